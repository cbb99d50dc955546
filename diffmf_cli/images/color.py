"""Luma, and the colour of the visible picture around a fused luma."""

import numpy as np

from diffmf_cli.images.opencv import cv2

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
    from diffmf_cli.images.color_kernels import restore  # late: numba takes half a second to import

    def white(dtype: np.dtype) -> np.float32:
        return np.float32(np.iinfo(dtype).max if dtype.kind == "u" else 1)

    fused = fused.astype(np.float32, copy=False)
    dtype = np.dtype(dtype)
    if vis_rgb.dtype.kind == "f":
        vis_rgb = vis_rgb.astype(np.float32, copy=False)
    out = np.empty(vis_rgb.shape, dtype if dtype.kind == "u" else np.float32)
    restore(
        fused, vis_rgb, white(vis_rgb.dtype), np.float32(DARK), out, white(out.dtype), out.dtype.kind == "u"
    )
    return out.astype(dtype, copy=False)
