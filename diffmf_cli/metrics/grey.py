"""The one pixel convention of all metrics: 8-bit grey pictures `(B, 1, H, W)`."""

import torch
from torch import Tensor


def as_grey(*pictures: Tensor) -> tuple[Tensor, ...]:
    """Check the grey pictures of a triple and round them to 8 bits, as all evaluators of the field do.

    Args:
        *pictures: `(B, 1, H, W)` each, all of one shape and on one device; uint8, or any other dtype with
            values 0..255, which are rounded and clamped.

    Returns:
        The same pictures as uint8.

    Raises:
        ValueError: Shapes differ, are not `(B, 1, H, W)`, or values lie in 0..1 instead of 0..255, a mistake
            that else gives plausible wrong figures.
    """
    shape = pictures[0].shape
    for picture in pictures:
        if picture.ndim != 4 or picture.shape[1] != 1 or picture.numel() == 0:
            raise ValueError(f"expected a grey picture of shape (B, 1, H, W), got {tuple(picture.shape)}")
        if picture.shape != shape:
            raise ValueError(f"pictures differ in shape: {tuple(shape)} and {tuple(picture.shape)}")
        if picture.is_floating_point() and picture.max() <= 1 and (picture != picture.round()).any():
            raise ValueError("a picture lies in 0..1: metrics expect grey values 0..255, give 255 * x")
    return tuple(p if p.dtype == torch.uint8 else p.round().clamp(0, 255).to(torch.uint8) for p in pictures)


def stretch(picture: Tensor) -> Tensor:
    """Stretch each picture linearly to 0..255, as some reference codes do before they measure.

    Args:
        picture: `(B, 1, H, W)` uint8.

    Returns:
        `(B, 1, H, W)` uint8; a constant picture is left as it is (NaN in those codes).
    """
    flat = picture.flatten(1).double()
    low, high = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)
    stretched = ((flat - low) / (high - low).clamp_min(1) * 255 + 0.5).floor()
    return torch.where(high > low, stretched, flat).to(torch.uint8).view_as(picture)
