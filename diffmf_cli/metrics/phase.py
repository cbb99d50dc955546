"""Phase congruency, a measure of features that does not depend on contrast, and its metric."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diffmf_cli.metrics.filters import gaussian_taps, separable_filter
from diffmf_cli.metrics.grey import as_grey

_SCALES, _ORIENTATIONS = 4, 6
_EPSILON = 1e-4
_THRESHOLD = 0.1  # of phase congruency, from which on a place has a feature
_STABILITY = 1e-4  # in the correlation of features


class _Features(NamedTuple):
    """Maps `(B, 1, H, W)` of the phase congruency of pictures."""

    congruency: Tensor
    """Over all orientations, 0..1."""
    largest: Tensor
    """Largest moment over orientations: edges."""
    smallest: Tensor
    """Smallest moment over orientations: corners."""


def _radial_filters(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Log-Gabor responses of each scale `(S, H, W)` and the angle of each bin `(H, W)`, as `fft2` orders."""
    rows, columns = (torch.arange(side, dtype=torch.float64, device=device) for side in (height, width))
    # Bins of an odd side are stretched to end at 1/2, as in the reference code.
    y, x = (
        (index - side // 2) / max(side - side % 2, 1) for index, side in ((rows, height), (columns, width))
    )
    radius = torch.fft.ifftshift(torch.hypot(y[:, None], x[None]))
    angle = torch.fft.ifftshift(torch.atan2(-y[:, None].expand(height, width), x.expand(height, width)))
    radius[0, 0] = 1
    radial = torch.hypot((rows[:, None] - height // 2) / height, (columns[None] - width // 2) / width)
    lowpass = torch.fft.fftshift(1 / (1 + (radial / 0.45) ** 30))
    wavelengths = 3 * 2.1 ** torch.arange(_SCALES, dtype=torch.float64, device=device)
    responses = torch.exp(-((radius * wavelengths[:, None, None]).log() ** 2) / (2 * math.log(0.55) ** 2))
    responses *= lowpass
    responses[:, 0, 0] = 0
    return responses, angle


def _median(values: Tensor) -> Tensor:
    """Median of each row of `(B, N)`, the mean of both middle ones where N is even: `(B, 1, 1, 1)`."""
    lower, upper = values.median(dim=1).values, -(-values).median(dim=1).values
    return ((lower + upper) / 2)[:, None, None, None]


def _noise_threshold(smallest_scale: Tensor, filters: Tensor) -> Tensor:
    """Energy that noise alone would have, mean plus two deviations: `(B, 1, 1, 1)`.

    Args:
        smallest_scale: Amplitudes at the smallest scale `(B, 1, H, W)`, whose median tells the noise.
        filters: The filters of one orientation, `(S, H, W)`.
    """
    power = _median(smallest_scale.square().flatten(1)) / math.log(2)
    power = power / filters[0].square().sum().clamp_min(torch.finfo(torch.float64).tiny)
    # Power of the sum of all filters' real parts: by Parseval, of the even half of their spectra.
    total = filters.sum(dim=0)
    even = (total + total.flip(0, 1).roll((1, 1), (0, 1))) / 2
    rayleigh = (power * even.square().sum()).sqrt()
    return rayleigh * (math.sqrt(math.pi / 2) + 2 * math.sqrt(2 - math.pi / 2)) / 1.7


def _phase_congruency(picture: Tensor) -> _Features:
    """Kovesi's phase congruency of `(B, 1, H, W)` float64: 4 scales from 3 pixels on, 6 orientations."""
    spectrum = torch.fft.fft2(picture)
    radial, angle = _radial_filters(picture.shape[-2], picture.shape[-1], picture.device)
    energy_sum, amplitude_sum, xx, yy, xy = (torch.zeros_like(picture) for _ in range(5))
    for orientation in range(_ORIENTATIONS):
        direction = orientation * math.pi / _ORIENTATIONS
        distance = torch.remainder(angle - direction + math.pi, 2 * math.pi) - math.pi
        filters = radial * torch.exp(-(distance**2) / (2 * (math.pi / _ORIENTATIONS / 1.2) ** 2))
        # One after the other, and not longer than needed: these are the largest maps of all metrics.
        responses = [torch.fft.ifft2(spectrum * response) for response in filters]
        even = torch.cat([response.real for response in responses], dim=1)
        odd = torch.cat([response.imag for response in responses], dim=1)
        del responses
        amplitude = (even * even).addcmul_(odd, odd).sqrt_()
        even_sum, odd_sum = even.sum(dim=1, keepdim=True), odd.sum(dim=1, keepdim=True)
        strength = torch.hypot(even_sum, odd_sum) + _EPSILON
        even_mean, odd_mean = even_sum / strength, odd_sum / strength
        # The sum over scales of even * even_mean + odd * odd_mean, from the sums that are there.
        along = even_sum * even_mean + odd_sum * odd_mean
        across = (even * odd_mean).addcmul_(odd, even_mean, value=-1).abs_().sum(dim=1, keepdim=True)
        energy = (along - across - _noise_threshold(amplitude[:, :1], filters)).clamp_min_(0)
        amplitudes = amplitude.sum(dim=1, keepdim=True)
        width = amplitudes / (amplitude.amax(dim=1, keepdim=True) + _EPSILON) / _SCALES
        energy *= torch.sigmoid(10 * (width - 0.5))
        energy_sum += energy
        amplitude_sum += amplitudes
        congruency = torch.where(amplitudes > 0, energy / amplitudes, 0.0)
        xx += (congruency * math.cos(direction)) ** 2
        yy += (congruency * math.sin(direction)) ** 2
        xy += congruency**2 * (math.cos(direction) * math.sin(direction))
    xx, yy, xy = xx / (_ORIENTATIONS / 2), yy / (_ORIENTATIONS / 2), xy / _ORIENTATIONS
    spread = torch.hypot(xy, xx - yy) + _EPSILON
    congruency = energy_sum / (amplitude_sum + _EPSILON)
    return _Features(congruency, (xx + yy + spread) / 2, (xx + yy - spread) / 2)


def _local_mean(maps: Tensor) -> Tensor:
    """Gaussian means of `(B, 1, H, W)`, at every pixel, with zeros beyond the border."""
    return separable_filter(F.pad(maps, (5, 5, 5, 5)), gaussian_taps(11, 1.5))


def _correlation(source: Tensor, fused: Tensor) -> Tensor:
    """Local correlation of two maps `(B, 1, H, W)`, held towards 1 where both are flat."""
    mean, fused_mean = _local_mean(source), _local_mean(fused)
    variance = _local_mean(source * source) - mean * mean
    fused_variance = _local_mean(fused * fused) - fused_mean * fused_mean
    covariance = _local_mean(source * fused) - mean * fused_mean
    return (covariance + _STABILITY) / ((variance * fused_variance).abs().sqrt() + _STABILITY)


def phase_congruency(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    """QP: how well the fused picture keeps the sources' phase congruency and its moments, higher is better.

    For each of three maps (phase congruency, edges, corners) the largest local correlation with the map of
    IR, of VIS, or of the stronger of both counts; it is averaged over the places where a source has a
    feature, and the three means are multiplied.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64, about 0..1. 0 where neither source has a feature, or the fused picture is constant:
        the reference code returns NaN for these, and for a source that is 0 everywhere, which has no features
        here.

    Source: Zhao, Laganiere and Liu, Int. J. Innov. Comput. Inf. Control 2007, with Kovesi's phase congruency,
    Videre 1999; agrees with zhengliu.
    """
    *sources, result = (_phase_congruency(picture.double()) for picture in as_grey(ir, vis, fused))
    first = sources[0].congruency > sources[1].congruency
    stronger = _Features(*(torch.where(first, a, b) for a, b in zip(*sources, strict=True)))
    references = [*sources, stronger]
    masks = [reference.congruency > _THRESHOLD for reference in references]
    count = masks[2].flatten(1).sum(dim=1)
    value = torch.ones(len(fused), dtype=torch.float64, device=fused.device)
    for index, kept in enumerate(result):
        best = torch.full_like(kept, -torch.inf)
        for reference, mask in zip(references, masks, strict=True):
            correlation = _correlation(reference[index] * mask, kept)
            best = torch.maximum(best, torch.where(mask, correlation, 0.0))
        value *= best.flatten(1).sum(dim=1) / count.clamp_min(1)
    constant = fused.flatten(1).amin(dim=1) == fused.flatten(1).amax(dim=1)
    return torch.where(constant, 0.0, value)
