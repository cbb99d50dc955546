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
    count = len(pictures)
    products = torch.zeros(len(pictures[0]), count, count, dtype=torch.float64, device=pictures[0].device)
    sums = products.new_zeros(len(pictures[0]), count, 1)
    for rows in strips(pictures[0], margin=0):
        # 128 off each value keeps the sums small: exact up to 10^8 pixels.
        stack = torch.stack([p[..., rows, :].flatten(1) for p in pictures], dim=1).double() - 128
        products += stack @ stack.mT
        sums += stack.sum(dim=2, keepdim=True)
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
    concerned is 0 here (see `_correlation`), so that a plain copy of one input scores low instead of
    vanishing from the mean.

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


def correlation_coefficient(ir: Tensor, vis: Tensor, fused: Tensor) -> BySource:
    """CC, the mean of Pearson's r of the fused picture with both sources, higher is better.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in -1..1. The part of a constant picture is 0, where toolkits return NaN.

    Source: Deshmukh and Bhosle, Int. J. Image Process. 2010; agrees with CDDFuse and Tang 2023.
    """
    c = _covariances(*as_grey(ir, vis, fused))
    ir_part = _correlation(c[:, 2, 0], c[:, 2, 2], c[:, 0, 0])
    return combine(ir_part, _correlation(c[:, 2, 1], c[:, 2, 2], c[:, 1, 1]), "mean")


def mean_squared_error(ir: Tensor, vis: Tensor, fused: Tensor, scale: str = "8bit") -> Tensor:
    """MSE, the mean over both sources of the mean squared difference, lower is better.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.
        scale: "8bit": grey levels squared (CDDFuse). "unit": of values in 0..1 (Tang, mark-bear), 65025 times
            smaller. "vifb": VIFB's sqrt(sum of squares) / (H*W), which shrinks with the picture's size.

    Returns:
        `(B,)` float64 in 0..65025 ("8bit") or 0..1 ("unit").
    """
    ir, vis, fused = as_grey(ir, vis, fused)
    errors = []
    for source in (ir, vis):
        squares = (source.float() - fused.float()).square_().flatten(1)
        error = squares.sum(dim=1, dtype=torch.float64) / squares.shape[1]
        errors.append((error / squares.shape[1]).sqrt() if scale == "vifb" else error)
    return (errors[0] + errors[1]) / (2 * 255**2 if scale == "unit" else 2)


def peak_signal_to_noise_ratio(
    ir: Tensor, vis: Tensor, fused: Tensor, peak: float | None = 255.0, scale: str = "8bit"
) -> Tensor:
    """PSNR: 10 log10(peak^2 / MSE) with the MSE over both sources, higher is better.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.
        peak: The largest value; None takes the largest grey level of each fused picture, as CDDFuse does.
        scale: That of `mean_squared_error`. Only "8bit" with a peak of 255 is a true PSNR: "unit" with 255
            (Tang, mark-bear, IVIF_ZOO) is 48.13 dB too high, the 60 to 65 dB of some papers.

    Returns:
        `(B,)` float64 in dB; infinite where both sources and the fused picture are equal; under a peak of
        None, -infinite for a black fused picture.
    """
    error = mean_squared_error(ir, vis, fused, scale)
    if peak is None:
        largest = as_grey(fused)[0].flatten(1).amax(dim=1).double()
    else:
        largest = torch.full_like(error, peak)
    return torch.where(error > 0, 10 * torch.log10(largest.square() / error), torch.inf)
