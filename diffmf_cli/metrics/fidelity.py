"""Visual information fidelity."""

import torch
from torch import Tensor

from diffmf_cli.metrics.by_source import BySource, combine
from diffmf_cli.metrics.filters import gaussian_taps, separable_filter
from diffmf_cli.metrics.grey import as_grey

_EPSILON = 1e-10
_NOISE = 2.0  # variance of the eye's internal noise, grey levels squared


def _information(variance: Tensor, fused_variance: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Information of a source in the fused picture, and of the source itself, at one scale: `(B,)` each."""
    variance, fused_variance = variance.clamp_min(0), fused_variance.clamp_min(0)
    gain = covariance / (variance + _EPSILON)
    noise = fused_variance - gain * covariance
    # A flat source, a flat result or a negative gain carry nothing: all that is in the result is noise.
    flat = variance < _EPSILON
    variance = torch.where(flat, 0.0, variance)
    lost = flat | (gain < 0)
    noise = torch.where(lost, fused_variance, noise)
    fused_flat = fused_variance < _EPSILON
    gain = torch.where(lost | fused_flat, 0.0, gain)
    noise = torch.where(fused_flat, 0.0, noise).clamp_min(_EPSILON)
    kept = torch.log1p(gain * gain * variance / (noise + _NOISE))
    whole = torch.log1p(variance / _NOISE)
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
    ir, vis, fused = as_grey(ir, vis, fused)
    sums = {
        name: [torch.zeros(len(fused), dtype=fused.dtype, device=fused.device)] * 2 for name in ("ir", "vis")
    }
    for scale in range(4):
        size = 2 ** (4 - scale) + 1
        taps = gaussian_taps(size, size / 5)
        if scale:
            ir, vis, fused = (separable_filter(p, taps, stride=2) for p in (ir, vis, fused))
        fused_mean = separable_filter(fused, taps)
        fused_variance = separable_filter(fused * fused, taps) - fused_mean * fused_mean
        for name, source in (("ir", ir), ("vis", vis)):
            mean = separable_filter(source, taps)
            kept, whole = _information(
                separable_filter(source * source, taps) - mean * mean,
                fused_variance,
                separable_filter(source * fused, taps) - mean * fused_mean,
            )
            sums[name] = (sums[name][0] + kept, sums[name][1] + whole)
    too_small = fused.shape[-1] < 3 or fused.shape[-2] < 3
    parts = []
    for kept, whole in sums.values():
        part = torch.where(whole > 0, kept / whole, 1.0)
        parts.append(torch.full_like(part, torch.nan) if too_small else part)
    return combine(parts[0], parts[1], combination)
