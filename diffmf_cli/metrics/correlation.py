"""Metrics of single pixels: contrast, error and correlation."""

import torch
from torch import Tensor

from diffmf_cli.metrics.by_source import BySource, combine
from diffmf_cli.metrics.grey import as_grey


def standard_deviation(fused: Tensor) -> Tensor:
    """SD, the contrast of the fused picture: sqrt(mean((F - mean F)^2)), higher is better.

    Args:
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in 0..127.5 grey levels.

    Source: Rao, Meas. Sci. Technol. 1997; agrees with CDDFuse, Tang 2023 and VIFB.
    """
    (fused,) = as_grey(fused)
    return fused.flatten(1).std(dim=1, correction=0)


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's r of two stacks of pictures; 0 where one of them is constant.

    Toolkits return NaN for a constant picture, which then poisons the mean of a whole set. A constant
    carries nothing of the other picture, hence 0.

    Args:
        a: `(B, 1, H, W)` float64.
        b: `(B, 1, H, W)` float64.

    Returns:
        `(B,)` in -1..1.
    """
    a = a.flatten(1) - a.flatten(1).mean(dim=1, keepdim=True)
    b = b.flatten(1) - b.flatten(1).mean(dim=1, keepdim=True)
    energy = (a * a).sum(dim=1) * (b * b).sum(dim=1)
    # The mean of a constant picture may be off by one rounding.
    constant = (a.abs().amax(dim=1) < 1e-9) | (b.abs().amax(dim=1) < 1e-9)
    return torch.where(constant, 0.0, (a * b).sum(dim=1) / energy.sqrt())


def sum_of_correlations_of_differences(ir: Tensor, vis: Tensor, fused: Tensor) -> BySource:
    """SCD: r(F - VIS, IR) + r(F - IR, VIS), higher is better.

    What the fused picture adds to one source should look like the other. The part of a source is its own
    correlation. Where F equals a source, or a source is constant, toolkits return NaN; the correlation
    concerned is 0 here (see `pearson`), so that a plain copy of one input scores low instead of vanishing
    from the mean.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in -2..2, parts in -1..1.

    Source: Aslantas and Bendes, AEU 2015; agrees with CDDFuse and Tang 2023.
    """
    ir, vis, fused = as_grey(ir, vis, fused)
    return combine(pearson(fused - vis, ir), pearson(fused - ir, vis), "sum")
