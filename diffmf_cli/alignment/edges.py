"""What an infrared and a visible picture of one scene have in common: where edges are and how they run.

Brightness is no help: what is bright in one may be dark in the other, so that even the sign of an edge is
free. An edge of angle a is therefore described by the cosines and sines of 2a and 4a, which a change of sign
leaves as they are and which are zero on average over unrelated edges.
"""

import numpy as np

from diffmf_cli.images.opencv import cv2

_NEIGHBOURHOOD = 0.05  # of the longer side: the contrast of an edge counts relative to what is around it
_STRONGEST = 3.0


def edges(picture: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Edge maps of a picture.

    Args:
        picture: `(H, W)` float32 of any range.
        valid: `(H, W)` float32, 1 where the picture shows something, 0 elsewhere.

    Returns:
        `(H, W, 4)` float32: strength times cos 2a, sin 2a, cos 4a, sin 4a.
    """
    smooth = cv2.GaussianBlur(picture, (0, 0), 0.8)
    x = cv2.Scharr(smooth, cv2.CV_32F, 1, 0)
    y = cv2.Scharr(smooth, cv2.CV_32F, 0, 1)
    if valid is not None:
        x *= valid
        y *= valid
    xx, yy = x * x, y * y
    squared = xx + yy
    strength = cv2.sqrt(squared)
    around = cv2.blur(strength, (2 * round(_NEIGHBOURHOOD * max(picture.shape)) + 1,) * 2)
    around = around + 0.3 * float(strength.mean()) + 1e-9
    squared += 1e-20
    weight = np.minimum(strength / around, _STRONGEST)
    cos2 = (xx - yy) / squared
    sin2 = 2 * x * y / squared
    maps = cv2.merge(
        [cos2 * weight, sin2 * weight, (cos2 * cos2 - sin2 * sin2) * weight, 2 * cos2 * sin2 * weight]
    )
    return cv2.GaussianBlur(maps, (0, 0), 1.0)


def turn(maps: np.ndarray, radians: float) -> np.ndarray:
    """Edge maps `(..., 4)` whose edges run at an angle that is larger by `radians`."""
    c2, s2, c4, s4 = (f(n * radians) for n in (2, 4) for f in (np.cos, np.sin))
    rotation = np.array([[c2, s2, 0, 0], [-s2, c2, 0, 0], [0, 0, c4, s4], [0, 0, -s4, c4]], np.float32)
    return maps @ rotation


def content(picture: np.ndarray) -> np.ndarray | None:
    """Where a picture is not the flat border that warping and rectifying leave.

    Args:
        picture: `(H, W)` float32.

    Returns:
        `(H, W)` float32 mask of 0 and 1, eroded by the reach of an edge; None where there is no such border.
    """
    height, width = picture.shape
    tolerance = 0.01 * float(picture.max() - picture.min())
    border = np.zeros((height + 2, width + 2), np.uint8)
    found = False
    for x, y in ((0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)):
        if border[y + 1, x + 1]:
            continue
        extreme = min(picture[y, x] - picture.min(), picture.max() - picture[y, x]) <= tolerance
        if extreme:
            flags = 8 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
            cv2.floodFill(picture, border, (x, y), 0, tolerance, tolerance, flags)
            found = True
    if not found:
        return None
    inside = (1 - border[1:-1, 1:-1]).astype(np.uint8)
    return cv2.erode(inside, np.ones((7, 7), np.uint8), borderValue=1).astype(np.float32)
