"""Visual information fidelity."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diffmf_cli.metrics.by_source import BySource, combine
from diffmf_cli.metrics.filters import gaussian_taps, separable_filter, strips
from diffmf_cli.metrics.grey import as_grey

_EPSILON = 1e-10
_NOISE = 2.0  # variance of the eye's internal noise, grey levels squared
_FUSION_NOISE = 0.005 * 255**2  # the same in VIFF
_FLOOR = 1e-7 * math.log(10)


def _central(product: Tensor, mean: Tensor, other_mean: Tensor, taps: tuple[float, ...]) -> Tensor:
    """Local covariance from the product of two pictures and their local means."""
    return separable_filter(product, taps).addcmul_(mean, other_mean, value=-1)


def _information(variance: Tensor, fused_variance: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Information of a source in the fused picture, and of the source itself, at one scale: `(B,)` each."""
    variance = F.threshold(variance, _EPSILON, 0.0)  # a flat source has no information
    covariance = covariance.clamp_min(0)  # nor is a negative of it a way to carry it
    gain = covariance / (variance + _EPSILON)
    noise = torch.addcmul(fused_variance, gain, covariance, value=-1).clamp_min_(_EPSILON)
    kept = gain.square_().mul_(variance).div_(noise.add_(_NOISE)).log1p_()
    whole = variance.div_(_NOISE).log1p_()
    return kept.flatten(1).sum(dim=1), whole.flatten(1).sum(dim=1)


def visual_information_fidelity(ir: Tensor, vis: Tensor, fused: Tensor, combination: str = "sum") -> BySource:
    """VIF: pixel-domain VIFP of the fused picture with IR as reference, plus the same with VIS.

    Higher is better. Four scales with Gaussian windows of 17, 9, 5 and 3 pixels, sigma a fifth of that,
    where they fit in the picture; from the second scale on, the pictures are filtered and halved first.
    Papers of this field often print it as "VIFF", which is another metric.

    Args:
        ir: `(B, 1, H, W)`, values 0..255 (the noise variance of 2 is in grey levels squared: values in
            0..1 give a wrong figure, not an error).
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.
        combination: "sum" (CDDFuse, Tang, mark-bear) or "mean" (TDFusion) of both sources.

    Returns:
        `(B,)` float64, 0 upwards; each part is 1 for a copy of that source and above 1 for a sharpened
        copy. A source that is constant says nothing of the result: its part is 1, as in CDDFuse (NaN in
        the other toolkits). NaN below 41x41 pixels, where the windows of the last scale do not fit
        (scipy-based toolkits give a number there: 'valid' convolution swaps picture and kernel).

    Source: Sheikh and Bovik, IEEE TIP 2006; agrees with CDDFuse, Tang 2023, mark-bear and sewar.
    """
    ir, vis, fused = (picture.double() for picture in as_grey(ir, vis, fused))
    kept = torch.zeros(2, len(fused), dtype=torch.float64, device=fused.device)
    whole = torch.zeros_like(kept)
    for scale in range(4):
        size = 2 ** (4 - scale) + 1
        taps = gaussian_taps(size, size / 5)
        if scale:
            ir, vis, fused = (separable_filter(p, taps, stride=2) for p in (ir, vis, fused))
        for rows in strips(fused, margin=size - 1):
            result = fused[..., rows, :]
            result_mean = separable_filter(result, taps)
            result_variance = _central(result * result, result_mean, result_mean, taps)
            for index, picture in enumerate((ir, vis)):
                source = picture[..., rows, :]
                mean = separable_filter(source, taps)
                variance = _central(source * source, mean, mean, taps)
                covariance = _central(source * result, mean, result_mean, taps)
                information = _information(variance, result_variance, covariance)
                kept[index] += information[0]
                whole[index] += information[1]
    parts = torch.where(whole > 0, kept / whole, 1.0)
    if min(fused.shape[-2:]) < size:
        parts = torch.full_like(parts, torch.nan)
    return combine(parts[0], parts[1], combination)


def visual_information_fidelity_for_fusion(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    """VIFF, Han's fidelity of the fused picture to one source at each pixel, higher is better.

    The statistics are those of VIF with another noise variance. At each pixel of each scale the source with
    the smaller gain counts; the ratios of the four scales are weighted by 1, 0, 0.15 and 1, over 2.15.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64, 0 upwards; NaN below 41x41 pixels.

    Source: Han et al., Information Fusion 2013; agrees with the authors' VIFF_Public code. What many papers
    print as "VIFF" is VIF instead.
    """
    pictures = [picture.double() for picture in as_grey(ir, vis, fused)]
    ratios = []
    for scale in range(4):
        size = 2 ** (4 - scale) + 1
        taps = gaussian_taps(size, size / 5)
        if scale:
            pictures = [separable_filter(p, taps, stride=2) for p in pictures]
        *sources, result = pictures
        result_mean = separable_filter(result, taps)
        result_variance = _central(result * result, result_mean, result_mean, taps)
        gains, kept, whole = [], [], []
        for source in sources:
            mean = separable_filter(source, taps)
            variance = F.threshold(_central(source * source, mean, mean, taps), _EPSILON, 0.0)
            covariance = _central(source * result, mean, result_mean, taps).clamp_min_(0)
            flat = (variance == 0) | (result_variance < _EPSILON)
            gain = (covariance / (variance + _EPSILON)).masked_fill_(flat, 0.0)
            noise = torch.addcmul(result_variance, gain, covariance, value=-1).clamp_min_(_EPSILON)
            gains.append(gain)
            kept.append(torch.log1p(gain * gain * variance / (noise + _FUSION_NOISE)))
            whole.append(torch.log1p(variance / _FUSION_NOISE))
        first = gains[0] < gains[1]
        # Each pixel adds 1e-7 (in log10), so that pictures without any structure have a ratio of 1.
        kept_there, whole_there = (
            (torch.where(first, maps[0], maps[1]) + _FLOOR).flatten(1).sum(dim=1) for maps in (kept, whole)
        )
        ratios.append(kept_there / whole_there)
    return (ratios[0] + 0.15 * ratios[2] + ratios[3]) / 2.15
