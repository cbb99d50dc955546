"""Metrics of information theory, on histograms of 256 grey levels."""

import math

import torch
from torch import Tensor

from diffmf_cli.metrics.by_source import BySource, combine
from diffmf_cli.metrics.grey import as_grey


def _probabilities(levels: Tensor, count: int) -> Tensor:
    """Relative frequencies of the integers 0..count-1 in each row: `(B, N)` to `(B, count)` float64."""
    histogram = torch.stack([torch.bincount(row, minlength=count) for row in levels])
    return histogram.double() / levels.shape[1]


def _entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy of each row in nats: `(B, K)` to `(B,)`."""
    return torch.special.entr(probabilities).sum(dim=1)


def entropy(fused: Tensor) -> Tensor:
    """EN, the entropy of the fused picture's histogram: -sum p log2 p, higher is better.

    Args:
        fused: `(B, 1, H, W)`, values 0..255, rounded to grey levels.

    Returns:
        `(B,)` float64 in 0..8 bits.

    Source: Roberts et al., J. Appl. Remote Sens. 2008; agrees with CDDFuse, Tang and VIFB. Toolkits that
    add 1e-7 inside the logarithm (mark-bear, IVIF_ZOO) are 4e-5 lower.
    """
    (fused,) = as_grey(fused)
    return _entropy(_probabilities(fused.flatten(1), 256)) / math.log(2)


def _mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """Mutual information in nats of two stacks of grey levels `(B, N)` int32."""
    joint = _probabilities(a * 256 + b, 256 * 256)
    table = joint.view(-1, 256, 256)
    shared = _entropy(table.sum(dim=2)) + _entropy(table.sum(dim=1)) - _entropy(joint)
    return shared.clamp_min(0)  # rounding leaves -1e-16 for independent pictures


def mutual_information(
    ir: Tensor, vis: Tensor, fused: Tensor, unit: str = "nat", merge_top: bool = False
) -> BySource:
    """MI: I(IR; F) + I(VIS; F) from 256 x 256 joint histograms, higher is better.

    Args:
        ir: `(B, 1, H, W)`, values 0..255, rounded to grey levels.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.
        unit: "nat" (CDDFuse, VIFB) or "bit" (Tang, mark-bear, IVIF_ZOO): bits are 1.4427 times larger.
        merge_top: Count levels 254 and 255 as one in the joint histogram but not in the marginal ones, as
            Tang's code does (it adds 1 to uint8 values).

    Returns:
        `(B,)` float64 in 0..11.1 nats (16 bits); parts in 0..5.55 nats (8 bits).

    Source: Qu et al., Electron. Lett. 2002.
    """
    *sources, levels = (picture.flatten(1).int() for picture in as_grey(ir, vis, fused))
    scale = 1 / math.log(2) if unit == "bit" else 1.0
    parts = []
    for source in sources:
        shared = _mutual_information(source, levels)
        if merge_top:
            merged = _probabilities(source.clamp_max(254) * 256 + levels.clamp_max(254), 256 * 256)
            marginals = _entropy(_probabilities(source, 256)) + _entropy(_probabilities(levels, 256))
            shared = marginals - _entropy(merged)
        parts.append(shared * scale)
    return combine(parts[0], parts[1], "sum")
