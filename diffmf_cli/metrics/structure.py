"""Metrics of local structure: SSIM and its relatives."""

from torch import Tensor

from diffmf_cli.metrics.by_source import BySource, combine
from diffmf_cli.metrics.filters import box_taps, gaussian_taps, separable_filter
from diffmf_cli.metrics.grey import as_grey


def _ssim(
    moments: tuple[Tensor, ...], fused_moments: tuple[Tensor, ...], bessel: float, peak: float
) -> Tensor:
    """Mean SSIM from local `(mean, mean of squares, mean of products)` and `(mean, mean of squares)`."""
    mean, square, product = moments
    fused_mean, fused_square = fused_moments
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_product = mean * fused_mean
    mean_squares = mean * mean + fused_mean * fused_mean
    covariance = bessel * (product - mean_product)
    variances = bessel * (square + fused_square - mean_squares)
    score = (2 * mean_product + c1) * (2 * covariance + c2) / ((mean_squares + c1) * (variances + c2))
    return score.flatten(1).mean(dim=1)


def ssim(
    ir: Tensor,
    vis: Tensor,
    fused: Tensor,
    window: str = "uniform7",
    peak: float = 2.0,
    combination: str = "sum",
) -> BySource:
    """SSIM of the fused picture with both sources, higher is better.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.
        window: "uniform7": 7x7 mean with sample covariance (scikit-image's default); "gaussian11": 11x11
            Gaussian of sigma 1.5 (Wang's). Only windows that lie in the picture count.
        peak: The data range L in C1 = (0.01 L)^2 and C2 = (0.03 L)^2. 255 is right for 8-bit pictures. 2 is
            what CDDFuse's protocol has: scikit-image <= 0.19 takes it for float pictures when not told.
        combination: "sum" (CDDFuse, VIFB) or "mean" (TDFusion) of both sources.

    Returns:
        `(B,)` float64 in -2..2 (sum) or -1..1 (mean), parts in -1..1; NaN where the window does not fit.

    Source: Wang et al., IEEE TIP 2004. uniform7, L=2, sum: CDDFuse; uniform7, L=255, sum: SFMFusion;
    uniform7, L=255, mean: TDFusion; gaussian11, L=255, sum: VIFB.
    """
    ir, vis, fused = as_grey(ir, vis, fused)
    taps = box_taps(7) if window == "uniform7" else gaussian_taps(11, 1.5)
    bessel = 49 / 48 if window == "uniform7" else 1.0
    fused_moments = separable_filter(fused, taps), separable_filter(fused * fused, taps)
    parts = [
        _ssim(
            tuple(separable_filter(p, taps) for p in (source, source * source, source * fused)),
            fused_moments,
            bessel,
            peak,
        )
        for source in (ir, vis)
    ]
    return combine(parts[0], parts[1], combination)
