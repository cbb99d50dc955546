"""Haar and Meyer wavelets, and the metric of what is kept of the sources' wavelet details."""

import torch
from torch import Tensor

from diffmf_cli.metrics.by_source import BySource
from diffmf_cli.metrics.filters import filter_columns
from diffmf_cli.metrics.grey import as_grey

# The discrete Meyer wavelet's low-pass filter, which is symmetric, from its end to its middle; the 62nd tap
# is 0. Values of PyWavelets' and MATLAB's `dmey`.
_MEYER_HALF = (
    -1.009999956941423e-12,
    8.519459636796214e-09,
    -1.111944952595278e-08,
    -1.0798819539621958e-08,
    6.066975741351135e-08,
    -1.0866516536735883e-07,
    8.200680650386481e-08,
    1.1783004497663934e-07,
    -5.506340565252278e-07,
    1.1307947017916706e-06,
    -1.489549216497156e-06,
    7.367572885903746e-07,
    3.20544191334478e-06,
    -1.6312699734552807e-05,
    6.554305930575149e-05,
    -0.0006011502343516092,
    -0.002704672124643725,
    0.002202534100911002,
    0.006045814097323304,
    -0.006387718318497156,
    -0.011061496392513451,
    0.015270015130934803,
    0.017423434103729693,
    -0.03213079399021176,
    -0.024348745906078023,
    0.0637390243228016,
    0.030655091960824263,
    -0.13284520043622938,
    -0.035087555656258346,
    0.44459300275757724,
    0.7445855923188063,
)
# As correlations: in reverse order.
_MEYER_LOW = (*_MEYER_HALF, *_MEYER_HALF[-2::-1], 0.0)
_MEYER_HIGH = tuple((-1) ** index * tap for index, tap in enumerate(reversed(_MEYER_LOW)))


def _mirrored(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """Indices of a row of `size` that goes on at both ends as in a mirror, its ends doubled."""
    index = torch.arange(-before, size + after, device=device) % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


def meyer_transform(picture: Tensor) -> Tensor:
    """One level of the discrete Meyer wavelet transform, its four parts put together as one picture.

    Args:
        picture: `(B, 1, H, W)` float64.

    Returns:
        `(B, 1, 2 * ((H + 61) // 2), 2 * ((W + 61) // 2))`: approximation and horizontal details above,
        vertical and diagonal ones below. Rounded to 2^-36, so that flat parts are exactly flat.
    """
    for dim in (-2, -1):
        taps = len(_MEYER_LOW)
        mirror = _mirrored(picture.shape[dim], taps - 2, taps - 1, picture.device)
        picture = picture.index_select(dim, mirror)
    halves = []
    for across in (_MEYER_LOW, _MEYER_HIGH):
        filtered = filter_columns(picture.transpose(-1, -2), across, 2).transpose(-1, -2)
        parts = [filter_columns(filtered, down, 2) for down in (_MEYER_LOW, _MEYER_HIGH)]
        halves.append(torch.cat(parts, dim=-1))
    return torch.cat(halves, dim=-2).mul_(2**36).round_().div_(2**36)


def _haar(picture: Tensor) -> tuple[Tensor, Tensor]:
    """One level of the Haar transform of `(B, 1, H, W)`.

    Returns:
        Approximation `(B, 1, H // 2, W // 2)` and details `(B, 3, H // 2, W // 2)`; an odd last row or column
        is left out.
    """
    height, width = (side // 2 * 2 for side in picture.shape[-2:])
    above, below = picture[..., :height:2, :width], picture[..., 1:height:2, :width]
    sums, differences = above + below, above - below
    return (sums[..., ::2] + sums[..., 1::2]) / 2, torch.cat(
        [
            (differences[..., ::2] + differences[..., 1::2]) / 2,
            (sums[..., ::2] - sums[..., 1::2]) / 2,
            (differences[..., ::2] - differences[..., 1::2]) / 2,
        ],
        dim=1,
    )


def wavelet_details(ir: Tensor, vis: Tensor, fused: Tensor) -> BySource:
    """QM: how well the Haar details of both sources are kept at two scales, higher is better.

    At each scale sum(E_ir W_ir + E_vis W_vis) / sum(W_ir + W_vis), where E adds exp(-|D - D_fused|) over the
    three details D of a place and W their squares; the scales are joined as Q1^(2/3) Q2^(1/3). The part of a
    source is the same with that source alone.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in 0..3, parts likewise; NaN below 4x4 pixels, which have no second scale. Where the
        sources have no details at a scale (NaN in the reference code), all places count alike.

    Source: Wang and Liu, ICSP 2008; agrees with zhengliu, whose wavelets are those of pyrtools.
    """
    pictures = [picture.double() for picture in as_grey(ir, vis, fused)]
    if min(fused.shape[-2:]) < 4:
        undefined = torch.full((len(fused),), torch.nan, dtype=torch.float64, device=fused.device)
        return BySource(undefined, undefined, undefined)
    values = torch.ones(3, len(fused), dtype=torch.float64, device=fused.device)
    for exponent in (2 / 3, 1 / 3):
        details = []
        for index, picture in enumerate(pictures):
            pictures[index], detail = _haar(picture)
            details.append(detail)
        *sources, result = details
        kept = torch.stack([(-(source - result).abs()).exp_().sum(dim=1) for source in sources])
        weights = torch.stack([source.square().sum(dim=1) for source in sources])
        # One row for both sources together, then one for each.
        weighted = _with_both((kept * weights).sum(dim=(-2, -1)))
        totals = _with_both(weights.sum(dim=(-2, -1)))
        alike = _with_both(kept.mean(dim=(-2, -1))) / kept.new_tensor([[2], [1], [1]])
        values *= torch.where(totals > 0, weighted / totals, alike) ** exponent
    return BySource(*values)


def _with_both(by_source: Tensor) -> Tensor:
    """Put the sum of both sources, `(2, B)`, in front of them: `(3, B)`."""
    return torch.cat([by_source.sum(dim=0, keepdim=True), by_source])
