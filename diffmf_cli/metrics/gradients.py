"""Metrics of edges and local contrast."""

import math

import torch
from torch import Tensor

from diffmf_cli.metrics.by_source import BySource
from diffmf_cli.metrics.filters import sobel
from diffmf_cli.metrics.grey import as_grey


def spatial_frequency(fused: Tensor, divisor: str = "own") -> Tensor:
    """SF, the root of the mean squared differences of neighbours in both directions, higher is better.

    Args:
        fused: `(B, 1, H, W)`, values 0..255.
        divisor: "own" divides each sum by its own count (CDDFuse, Tang); "HW" both by H*W (VIFB).

    Returns:
        `(B,)` float64 in 0..361; the part of a direction that the picture is too thin for is 0.

    Source: Eskicioglu and Fisher, IEEE Trans. Commun. 1995.
    """
    (fused,) = as_grey(fused)
    energy = torch.zeros(len(fused), dtype=fused.dtype, device=fused.device)
    for dim in (-1, -2):
        squares = fused.diff(dim=dim).square().flatten(1)
        if squares.shape[1]:
            count = squares.shape[1] if divisor == "own" else fused[0].numel()
            energy = energy + squares.sum(dim=1) / count
    return energy.sqrt()


def _edge_preservation(source: tuple[Tensor, Tensor], fused: tuple[Tensor, Tensor]) -> Tensor:
    """Q of Xydeas and Petrovic for each pixel, from `(strength, angle)` of source and fused picture."""
    (strength, angle), (fused_strength, fused_angle) = source, fused
    ratio = torch.minimum(strength, fused_strength) / torch.maximum(strength, fused_strength)
    # Where both strengths are equal, the field's code takes the strength itself, not 1.
    ratio = torch.where(strength == fused_strength, fused_strength, ratio)
    alignment = 1 - (angle - fused_angle).abs() / (math.pi / 2)
    strength_kept = 0.9994 * torch.sigmoid(15 * (ratio - 0.5))
    angle_kept = 0.9879 * torch.sigmoid(22 * (alignment - 0.8))
    return strength_kept * angle_kept


def edge_transfer(ir: Tensor, vis: Tensor, fused: Tensor) -> BySource:
    """Qabf, the share of the sources' Sobel edges that the fused picture keeps, higher is better.

    sum(Q_ir g_ir + Q_vis g_vis) / sum(g_ir + g_vis), where g is a source's gradient strength and Q rates
    how well its strength and angle are kept. The part of a source is the same with that source alone:
    sum(Q g) / sum(g). Of sources without any edge (black pictures) toolkits return NaN; 0 here.

    Args:
        ir: `(B, 1, H, W)`, values 0..255. Integers: the rule for equal strengths hangs on rounding else.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in 0..0.9874.

    Source: Xydeas and Petrovic, Electron. Lett. 2000, with the constants of the code that the field uses;
    agrees with CDDFuse, Tang 2023, VIFB and mark-bear.
    """
    gradients = []
    for picture in as_grey(ir, vis, fused):
        gx, gy = sobel(picture)
        # The minus is the field's: with the angle of gx == 0 fixed at +pi/2, the sign of the others counts.
        angle = torch.where(gx == 0, math.pi / 2, torch.atan(-gy / gx))
        gradients.append(((gx * gx + gy * gy).sqrt(), angle))
    kept, total = [], []
    for source in gradients[:2]:
        kept.append((_edge_preservation(source, gradients[2]) * source[0]).flatten(1).sum(dim=1))
        total.append(source[0].flatten(1).sum(dim=1))

    def share(kept: Tensor, total: Tensor) -> Tensor:
        return torch.where(total > 0, kept / total, 0.0)

    return BySource(share(kept[0] + kept[1], total[0] + total[1]), *map(share, kept, total))
