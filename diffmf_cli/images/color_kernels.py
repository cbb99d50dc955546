"""`color.restore_color` in one pass over the rows, compiled by numba for the types of the pictures at hand.

NumPy takes some twenty passes in strips, and hands the interpreter over in each: where many threads write
pictures they waited for it most of the time.
"""

import numpy as np
from numba import njit

_F = np.float32
# Only what cannot change a rounding: see `diffmf_cli.scan.numba_kernels`.
_JIT = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"nnan", "ninf", "nsz"}}


@njit(**_JIT)
def restore(fused, vis, white, dark, out, full, whole):
    """See `color.restore_color`. Loops are short and apart, so that LLVM makes vectors of them.

    Args:
        fused: `(H, W)` float32.
        vis: `(H, W, 3)`.
        white: what is 1 in `vis`, float32.
        dark: `color.DARK`, float32.
        out: `(H, W, 3)`.
        full: what is 1 in `out`, float32.
        whole: whether to round to whole numbers.
    """
    zero, one = _F(0), _F(1)
    # The luma of a grey pixel may round to the wrong side of its channels: at least `tiny`, not `+ tiny`.
    tiny = _F(1e-12)
    height, width = fused.shape
    planes = np.empty((3, width), np.float32)
    scales, offsets = np.empty(width, np.float32), np.empty(width, np.float32)
    for i in range(height):
        for k in range(3):
            plane = planes[k]
            for j in range(width):
                plane[j] = _F(vis[i, j, k]) / white
        reds, greens, blues, row = planes[0], planes[1], planes[2], fused[i]
        for j in range(width):
            red, green, blue, f = reds[j], greens[j], blues[j], row[j]
            y = _F(0.299) * red + _F(0.587) * green + _F(0.114) * blue
            above = max(max(max(red, green), blue) - y, tiny)
            below = max(y - min(min(red, green), blue), tiny)
            room = min((one - f) / above, f / below)
            noise = min(max(one - y / dark, zero), one) * min(max((f - y) / dark, zero), one)
            scale = min(room, one - noise)
            scales[j] = scale
            offsets[j] = f - scale * y
        for k in range(3):
            plane = planes[k]
            for j in range(width):
                plane[j] = min(max(scales[j] * plane[j] + offsets[j], zero), one) * full
            if whole:
                for j in range(width):
                    out[i, j, k] = np.rint(plane[j])
            else:
                for j in range(width):
                    out[i, j, k] = plane[j]
