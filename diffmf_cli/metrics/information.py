"""Metrics of information theory, on histograms of 256 grey levels."""

import math

import torch
from torch import Tensor

from diffmf_cli.metrics.by_source import BySource, combine
from diffmf_cli.metrics.grey import as_grey, stretch


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


def cross_entropy(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    """CE, the mean divergence of the sources' histograms from the fused picture's, lower is better.

    sum p_source log2(p_source / p_fused) over the grey levels that occur in both; for that restriction it
    may be negative.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in bits.

    Source: Bulanon et al., Biosyst. Eng. 2009; agrees with VIFB. IVIF_ZOO's CE is another quantity.
    """
    *sources, result = (_probabilities(picture.flatten(1), 256) for picture in as_grey(ir, vis, fused))
    divergences = [
        torch.where((p > 0) & (result > 0), torch.xlogy(p, p / result), 0.0).sum(dim=1) for p in sources
    ]
    return (divergences[0] + divergences[1]) / (2 * math.log(2))


def normalized_mutual_information(ir: Tensor, vis: Tensor, fused: Tensor) -> BySource:
    """QMI: 2 I(IR; F) / (H(IR) + H(F)) plus the same with VIS, higher is better.

    Args:
        ir: `(B, 1, H, W)`, values 0..255, stretched to the full range first, as in the reference code.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in 0..2, parts in 0..1. A constant source has a part of 0 (NaN in the reference code).

    Source: Hossny et al., Electron. Lett. 2008; agrees with zhengliu, and with the sum of scikit-learn's
    normalized_mutual_info_score. IVIF_ZOO's NMI normalises by other entropies.
    """
    *sources, levels = (stretch(picture).flatten(1).int() for picture in as_grey(ir, vis, fused))
    result = _entropy(_probabilities(levels, 256))
    parts = []
    for source in sources:
        total = _entropy(_probabilities(source, 256)) + result
        parts.append(torch.where(total > 0, 2 * _mutual_information(source, levels) / total, 0.0))
    return combine(parts[0], parts[1], "sum")


_TSALLIS = 0.43137  # Nava's exponent


def _tsallis_entropy(probabilities: Tensor) -> Tensor:
    """Tsallis entropy of each row: `(B, K)` to `(B,)`."""
    return (torch.where(probabilities > 0, probabilities**_TSALLIS, 0.0).sum(dim=1) - 1) / (1 - _TSALLIS)


def _tsallis_information(a: Tensor, b: Tensor, swapped: bool) -> Tensor:
    """Tsallis mutual information of two stacks of grey levels `(B, N)` int32: `(B,)`.

    Args:
        a: Grey levels.
        b: Grey levels.
        swapped: Take each marginal at the other picture's level, as zhengliu's code does.
    """
    joint = _probabilities(a * 256 + b, 256 * 256).view(-1, 256, 256)
    rows, columns = joint.sum(dim=2, keepdim=True), joint.sum(dim=1, keepdim=True)
    independent = (rows * columns).mT if swapped else rows * columns
    divergence = joint**_TSALLIS * independent ** (1 - _TSALLIS)
    return (1 - divergence.sum(dim=(1, 2))) / (1 - _TSALLIS)


def tsallis_information(ir: Tensor, vis: Tensor, fused: Tensor, definition: str = "paper") -> Tensor:
    """QTE: Tsallis mutual information with both sources, normalised, higher is better.

    (I(IR; F) + I(VIS; F)) / (H(IR) + H(VIS) - I(IR; VIS)), with Tsallis entropies of the order 0.43137.

    Args:
        ir: `(B, 1, H, W)`, values 0..255, stretched to the full range first, as in the reference code.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.
        definition: "paper", or "zhengliu" for the value that tables in papers have. That code takes the
            probability of a level of one picture from the other picture's histogram, so that the value
            depends on which levels stand for the same things and not only on how well they tell each other;
            it raises Shannon entropies to the power of the order instead; and it adds I(IR; VIS).

    Returns:
        `(B,)` float64, 0 upwards. Constant pictures have no information ("paper": 0); zhengliu's code returns
        NaN for them, and here its formula is applied to the picture as it is, of which nothing can be read.

    Source: Nava et al., SPIE Newsroom 2007, in the form of Liu et al., IEEE TPAMI 2012; "zhengliu" agrees
    with zhengliu.
    """
    ir, vis, levels = (stretch(picture).flatten(1).int() for picture in as_grey(ir, vis, fused))
    swapped = definition == "zhengliu"
    shared = _tsallis_information(ir, levels, swapped) + _tsallis_information(vis, levels, swapped)
    between = _tsallis_information(ir, vis, swapped)
    histograms = [_probabilities(picture, 256) for picture in (ir, vis)]
    if swapped:
        total = sum((_entropy(p) / math.log(2)) ** _TSALLIS for p in histograms) + between
    else:
        total = sum(_tsallis_entropy(p) for p in histograms) - between
    return torch.where(total > 0, shared / total, 0.0)


def nonlinear_correlation_information_entropy(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    """QNCIE, the information in the nonlinear correlations of the three pictures, higher is better.

    1 + sum (e_i / 3) log256(e_i / 3), with the eigenvalues of the matrix of mutual informations in base 256.

    Args:
        ir: `(B, 1, H, W)`, values 0..255, stretched to the full range first, as in the reference code.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in 0.8019..1. A constant picture correlates with none (NaN in the reference code).

    Source: Wang et al. in Stathaki, Image Fusion, 2008; agrees with zhengliu. IVIF_ZOO takes linear
    correlations instead.
    """
    levels = [stretch(picture).flatten(1).int() for picture in as_grey(ir, vis, fused)]
    matrix = torch.eye(3, dtype=torch.float64, device=fused.device).repeat(len(fused), 1, 1)
    for row, column in ((0, 1), (0, 2), (1, 2)):
        matrix[:, row, column] = _mutual_information(levels[row], levels[column]) / math.log(256)
        matrix[:, column, row] = matrix[:, row, column]
    shares = torch.linalg.eigvalsh(matrix).clamp_min(0) / 3
    return 1 + torch.xlogy(shares, shares).sum(dim=1) / math.log(256)
