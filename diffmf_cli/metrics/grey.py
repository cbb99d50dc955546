"""The one pixel convention of all metrics: grey pictures `(B, 1, H, W)` on the 8-bit scale 0..255."""

import torch
from torch import Tensor


def as_grey(*pictures: Tensor) -> tuple[Tensor, ...]:
    """Check grey pictures of one triple and return them as float64, in which all metrics are computed.

    float32 is not enough: windowed variances of bright, flat regions lose five of their seven digits.

    Args:
        *pictures: `(B, 1, H, W)` each, all of one shape and on one device; uint8, or floating with values
            0..255. Values are not rounded, except by the metrics that count grey levels.

    Returns:
        The same pictures as float64.

    Raises:
        ValueError: Shapes differ, are not `(B, 1, H, W)`, or floating values all lie in 0..1.
    """
    shape = pictures[0].shape
    for picture in pictures:
        if picture.ndim != 4 or picture.shape[1] != 1 or picture.numel() == 0:
            raise ValueError(f"expected a grey picture of shape (B, 1, H, W), got {tuple(picture.shape)}")
        if picture.shape != shape:
            raise ValueError(f"pictures differ in shape: {tuple(shape)} and {tuple(picture.shape)}")
    return tuple(picture.to(torch.float64) for picture in pictures)


def reject_unit_range(*pictures: Tensor) -> None:
    """Raise ValueError when floating pictures lie in 0..1, a mistake that gives plausible wrong values.

    Args:
        *pictures: `(B, 1, H, W)`, any dtype.
    """
    if all(p.is_floating_point() for p in pictures) and max(float(p.max()) for p in pictures) <= 1:
        raise ValueError("pictures lie in 0..1: metrics expect grey values 0..255, give (255 * x).round()")


def grey_levels(picture: Tensor) -> Tensor:
    """Round to the 256 grey levels that histograms count.

    Args:
        picture: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B, H*W)` int64 in 0..255.
    """
    if picture.is_floating_point():
        picture = picture.round().clamp(0, 255)
    return picture.flatten(1).long()
