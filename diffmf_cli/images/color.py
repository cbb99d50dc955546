"""Luma, and the colour of the visible picture around a fused luma."""

import numpy as np

from diffmf_cli.images.opencv import cv2
from diffmf_cli.images.range import from_unit, to_unit

# Below this visible luma a camera's chroma is mostly noise: see restore_color.
DARK = 0.1


def luma(rgb: np.ndarray) -> np.ndarray:
    """Luma Y' of RGB.

    Args:
        rgb: `(H, W, 3)` in [0, 1].

    Returns:
        `(H, W)` float32 in [0, 1]: 0.299 R + 0.587 G + 0.114 B, full range (ITU-R BT.601).
    """
    return cv2.cvtColor(rgb.astype(np.float32, copy=False), cv2.COLOR_RGB2GRAY)


def restore_color(
    fused: np.ndarray, vis_rgb: np.ndarray, dtype: np.typing.DTypeLike = np.float32
) -> np.ndarray:
    """Gives a fused luma the chroma of the visible picture.

    Each pixel is `fused + s * (rgb - luma(rgb))`, so its luma is `fused` and its hue that of the visible
    picture, whatever `s` is. `s` is the largest factor up to 1 that keeps all three channels in [0, 1]:
    nothing is clipped.

    Where the visible luma is below DARK, chroma is mostly sensor noise and compression blotches, hidden by
    darkness until fusion brightens the pixel. There `s` is also at most a factor that falls from 1, where
    fusion does not brighten, to `luma / DARK`, where it brightens by DARK or more. So
    `restore_color(luma(vis), vis)` is `vis` everywhere, and pixels lit to DARK or more keep their full
    chroma.

    Args:
        fused: `(H, W)` luma in [0, 1].
        vis_rgb: `(H, W, 3)` visible picture: uint8, uint16, or floats in [0, 1].
        dtype: uint8, uint16 or a float type.

    Returns:
        `(H, W, 3)` RGB over the full range of `dtype`.
    """
    fused = fused.astype(np.float32, copy=False)
    out = np.empty(vis_rgb.shape, dtype)
    rows = max(1, 2**15 // fused.shape[1])  # strips that stay in the processor's cache: twice as fast
    for top in range(0, fused.shape[0], rows):
        strip = slice(top, top + rows)
        out[strip] = from_unit(_restored(fused[strip], to_unit(vis_rgb[strip])), dtype)
    return out


def _restored(fused: np.ndarray, vis_rgb: np.ndarray) -> np.ndarray:
    red, green, blue = cv2.split(vis_rgb)
    y = luma(vis_rgb)
    # The luma of a grey pixel may round to the wrong side of its channels, hence at least `tiny`, not `+
    # tiny`.
    tiny = np.float32(1e-12)
    above = np.maximum(np.maximum(np.maximum(red, green), blue) - y, tiny)
    below = np.maximum(y - np.minimum(np.minimum(red, green), blue), tiny)
    room = np.minimum((1 - fused) / above, fused / below)
    noise = np.clip(1 - y / DARK, 0, 1) * np.clip((fused - y) / DARK, 0, 1)
    scale = np.minimum(room, 1 - noise)
    offset = fused - scale * y
    return cv2.merge([scale * channel + offset for channel in (red, green, blue)])
