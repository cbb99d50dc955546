"""Metrics of local structure: SSIM and its relatives."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffmf_cli.metrics.by_source import BySource, combine
from diffmf_cli.metrics.filters import box_sums, gaussian_taps, separable_filter, strips
from diffmf_cli.metrics.grey import as_grey


def _ssim(
    moments: tuple[Tensor, ...], fused_moments: tuple[Tensor, ...], bessel: float, peak: float
) -> Tensor:
    """SSIM at each pixel from local `(mean, mean of squares, of products)` and `(mean, mean of squares)`."""
    mean, square, product = moments
    fused_mean, fused_square = fused_moments
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_product = mean * fused_mean
    mean_squares = (mean * mean).addcmul_(fused_mean, fused_mean)
    covariance = (product - mean_product).mul_(2 * bessel).add_(c2)
    variances = (square + fused_square).sub_(mean_squares).mul_(bessel).add_(c2)
    return mean_product.mul_(2).add_(c1).mul_(covariance).div_(mean_squares.add_(c1).mul_(variances))


def _mean_of_window(window: str) -> tuple[int, float, Callable[[Tensor], Tensor]]:
    """Side of an SSIM window, N / (N - 1) where it takes sample covariances, and its weighted mean."""
    if window == "gaussian11":
        return 11, 1.0, lambda picture: separable_filter(picture.double(), gaussian_taps(11, 1.5))
    # float32 holds sums of 49 products of 8-bit values exactly.
    return 7, 49 / 48, lambda picture: box_sums(picture, 7).double().div_(49)


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
    size, bessel, mean = _mean_of_window(window)
    scores = torch.zeros(2, len(fused), dtype=torch.float64, device=fused.device)
    for rows in strips(fused, margin=size - 1):
        result = fused[..., rows, :].float()
        result_moments = mean(result), mean(result * result)
        for index, picture in enumerate((ir, vis)):
            source = picture[..., rows, :].float()
            moments = tuple(mean(p) for p in (source, source * source, source * result))
            scores[index] += _ssim(moments, result_moments, bessel, peak).flatten(1).sum(dim=1)
    height, width = (max(side - size + 1, 0) for side in fused.shape[-2:])
    scores = scores / (height * width)
    return combine(scores[0], scores[1], combination)
