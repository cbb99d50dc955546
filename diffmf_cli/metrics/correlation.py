"""Metrics of single pixels: contrast, error and correlation."""

import torch
from torch import Tensor

from diffmf_cli.metrics.by_source import BySource, combine
from diffmf_cli.metrics.filters import strips
from diffmf_cli.metrics.grey import as_grey


def _covariances(*pictures: Tensor) -> Tensor:
    """Covariance matrix of K grey pictures over their pixels, divided by the number of pixels.

    Sums of integers in float64: exact, so that a difference that is constant has exactly no variance.

    Args:
        *pictures: K times `(B, 1, H, W)` uint8.

    Returns:
        `(B, K, K)` float64.
    """
    pixels = pictures[0][0].numel()
    products: Tensor | float = 0.0
    sums: Tensor | float = 0.0
    for rows in strips(pictures[0], margin=0):
        # 128 off each value keeps the sums small: exact up to 10^8 pixels.
        stack = torch.stack([p[..., rows, :].flatten(1) for p in pictures], dim=1).double() - 128
        products = products + stack @ stack.mT
        sums = sums + stack.sum(dim=2, keepdim=True)
    assert isinstance(products, Tensor)
    assert isinstance(sums, Tensor)
    return (products * pixels - sums * sums.mT) / pixels**2


def standard_deviation(fused: Tensor) -> Tensor:
    """SD, the contrast of the fused picture: sqrt(mean((F - mean F)^2)), higher is better.

    Args:
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in 0..127.5 grey levels.

    Source: Rao, Meas. Sci. Technol. 1997; agrees with CDDFuse, Tang 2023 and VIFB.
    """
    return _covariances(*as_grey(fused))[:, 0, 0].sqrt()


def _correlation(covariance: Tensor, variance: Tensor, other_variance: Tensor) -> Tensor:
    """Pearson's r; 0 where one of the pictures is constant.

    Toolkits return NaN for a constant picture, which then poisons the mean of a whole set. A constant
    carries nothing of the other picture, hence 0.

    Args:
        covariance: `(B,)`.
        variance: `(B,)`, exactly 0 for a constant picture.
        other_variance: `(B,)`, likewise.

    Returns:
        `(B,)` in -1..1.
    """
    energy = variance * other_variance
    return torch.where(energy > 0, covariance / energy.sqrt(), 0.0)


def sum_of_correlations_of_differences(ir: Tensor, vis: Tensor, fused: Tensor) -> BySource:
    """SCD: r(F - VIS, IR) + r(F - IR, VIS), higher is better.

    What the fused picture adds to one source should look like the other. The part of a source is its own
    correlation. Where F equals a source, or a source is constant, toolkits return NaN; the correlation
    concerned is 0 here (see `_correlation`), so that a plain copy of one input scores low instead of vanishing
    from the mean.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in -2..2, parts in -1..1.

    Source: Aslantas and Bendes, AEU 2015; agrees with CDDFuse and Tang 2023.
    """
    c = _covariances(*as_grey(ir, vis, fused))
    ir_part = _correlation(c[:, 2, 0] - c[:, 1, 0], c[:, 2, 2] + c[:, 1, 1] - 2 * c[:, 2, 1], c[:, 0, 0])
    vis_part = _correlation(c[:, 2, 1] - c[:, 0, 1], c[:, 2, 2] + c[:, 0, 0] - 2 * c[:, 2, 0], c[:, 1, 1])
    return combine(ir_part, vis_part, "sum")
