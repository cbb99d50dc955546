"""Separable filters and Sobel gradients in float64, on the CPU and on CUDA.

A one-dimensional filter is a band matrix. Cut in blocks, it becomes a matrix product, which BLAS runs 10 to
20 times faster than torch's float64 convolution on a CPU.
"""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

# Outputs per block, best first: larger blocks multiply more zeros, smaller ones copy more overlap.
_BLOCKS = (12, 13, 11, 14, 10, 15, 16, 9, 8)
# Pixels of a strip, in whole blocks of rows: a few float64 maps fit in a core's second-level cache.
_STRIP = 60_000


def strips(picture: Tensor, margin: int) -> Iterator[slice]:
    """Cut the rows into strips whose 'valid' filter outputs, put together, are those of the picture.

    Sums over a picture are several times faster strip by strip on a CPU, where the maps stay in the cache,
    and need little memory for large pictures.

    Args:
        picture: `(B, 1, H, W)`; on CUDA it stays whole.
        margin: Rows that the filter loses: its length - 1.

    Yields:
        Slices of rows; one, of all rows, where the filter does not fit.
    """
    batch, _, height, width = picture.shape
    rows = height if picture.is_cuda else max(_STRIP // max(batch * width * _BLOCKS[0], 1), 1) * _BLOCKS[0]
    for start in range(0, max(height - margin, 1), rows):
        yield slice(start, min(start + rows + margin, height))


@lru_cache(maxsize=64)
def _band(taps: tuple[float, ...], stride: int, outputs: int, device: torch.device) -> Tensor:
    """The `(inputs, outputs)` matrix whose columns are `taps`, each moved down by `stride`."""
    band = torch.zeros((outputs - 1) * stride + len(taps), outputs, dtype=torch.float64)
    for column in range(outputs):
        band[column * stride : column * stride + len(taps), column] = torch.tensor(taps, dtype=torch.float64)
    return band.to(device)


def filter_columns(picture: Tensor, taps: tuple[float, ...], stride: int) -> Tensor:
    """Correlate along H, 'valid': `(..., H, W)` float64 to `(..., (H - len(taps)) // stride + 1, W)`."""
    size = (picture.shape[-2] - len(taps)) // stride + 1
    if size < 1:
        return picture[..., :0, :]
    # Blocks that fill the size exactly, so that no rest is left.
    outputs = next((n for n in _BLOCKS if size % n == 0), min(_BLOCKS[0], size))
    inputs = (outputs - 1) * stride + len(taps)
    band = _band(taps, stride, outputs, picture.device).T
    windows = picture.unfold(-2, inputs, outputs * stride).transpose(-1, -2)
    filtered = (band @ windows).flatten(-3, -2)
    rest = size - filtered.shape[-2]
    if not rest:
        return filtered
    last = (size - outputs) * stride
    tail = band @ picture[..., last : last + inputs, :]
    return torch.cat([filtered, tail[..., -rest:, :]], dim=-2)


def separable_filter(picture: Tensor, taps: tuple[float, ...], stride: int = 1) -> Tensor:
    """Correlate with the outer product of `taps` with itself, where it fits in the picture ('valid').

    Args:
        picture: `(..., H, W)` float64.
        taps: The filter of one dimension, of length K.
        stride: Keep every `stride`-th output in both dimensions, from the first.

    Returns:
        `(..., (H - K) // stride + 1, (W - K) // stride + 1)`; empty where the filter does not fit.
    """
    filtered = filter_columns(picture, taps, stride)
    return filter_columns(filtered.transpose(-1, -2), taps, stride).transpose(-1, -2)


@lru_cache(maxsize=16)
def gaussian_taps(size: int, sigma: float) -> tuple[float, ...]:
    """A sampled Gaussian of odd `size`, centred, of sum 1."""
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    return tuple((weights / weights.sum()).tolist())


def box_sums(picture: Tensor, size: int) -> Tensor:
    """Sums over all windows of `size` x `size` that fit, by doubling: log2(size) additions instead of size.

    Args:
        picture: `(B, 1, H, W)`.
        size: Side of the window.

    Returns:
        `(B, 1, H - size + 1, W - size + 1)` of the same dtype; empty where the window does not fit.
    """
    for dim in (-2, -1):
        length = picture.shape[dim] - size + 1
        if length < 1:
            return picture[..., :0, :0]
        sums, start = picture, 0  # sums of `width` neighbours, `width` a power of two
        parts = []
        width = 1
        while width <= size:
            if size & width:
                parts.append(sums.narrow(dim, start, length))
                start += width
            if 2 * width <= size:
                pairs = sums.shape[dim] - width
                sums = sums.narrow(dim, 0, pairs) + sums.narrow(dim, width, pairs)
            width *= 2
        picture = sum(parts[1:], start=parts[0])
    return picture


def sobel(padded: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel gradients along W and along H, where the 3x3 filter fits.

    Args:
        padded: `(B, 1, H + 2, W + 2)` float32 or float64, a picture with a border of one pixel.

    Returns:
        `(gx, gy)`, `(B, 1, H, W)` each. Sums of integers, hence exact for integer grey values.
    """
    down = padded[..., :-2, :] + padded[..., 2:, :] + 2 * padded[..., 1:-1, :]
    across = padded[..., :-2] + padded[..., 2:] + 2 * padded[..., 1:-1]
    return down[..., 2:] - down[..., :-2], across[..., 2:, :] - across[..., :-2, :]
