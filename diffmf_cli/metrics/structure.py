"""Metrics of local structure: SSIM and its relatives."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diffmf_cli.metrics.by_source import BySource, combine
from diffmf_cli.metrics.filters import box_sums, gaussian_taps, separable_filter, strips
from diffmf_cli.metrics.grey import as_grey


def _ssim(
    mean: Tensor, fused_mean: Tensor, squares: Tensor, product: Tensor, bessel: float, peak: float
) -> Tensor:
    """SSIM at each pixel from local means: of both pictures, the sum of their squares, their product."""
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_product = mean * fused_mean
    mean_squares = (mean * mean).addcmul_(fused_mean, fused_mean)
    covariance = (product - mean_product).mul_(2 * bessel).add_(c2)
    variances = (squares - mean_squares).mul_(bessel).add_(c2)
    return mean_product.mul_(2).add_(c1).mul_(covariance).div_(mean_squares.add_(c1).mul_(variances))


def _mean_of_window(window: str) -> tuple[int, float, Callable[[Tensor], Tensor]]:
    """Side of an SSIM window, N / (N - 1) where it takes sample covariances, and its weighted mean."""
    if window != "uniform7":
        return 11, 1.0, lambda picture: separable_filter(picture.double(), gaussian_taps(11, 1.5))
    # float32 holds sums of 98 products of 8-bit values exactly.
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
            Gaussian of sigma 1.5 (Wang's). Only windows that lie in the picture count. "gaussian11-same":
            the same at every pixel, with replicated borders (MATLAB's ssim).
        peak: The data range L in C1 = (0.01 L)^2 and C2 = (0.03 L)^2. 255 is right for 8-bit pictures. 2 is
            what CDDFuse's protocol has: scikit-image <= 0.19 takes it for float pictures when not told.
        combination: "sum" (CDDFuse, VIFB) or "mean" (TDFusion) of both sources.

    Returns:
        `(B,)` float64 in -2..2 (sum) or -1..1 (mean), parts in -1..1; NaN where the window does not fit.

    Source: Wang et al., IEEE TIP 2004. uniform7, L=2, sum: CDDFuse; uniform7, L=255, sum: SFMFusion;
    uniform7, L=255, mean: TDFusion; gaussian11, L=255, sum: VIFB; gaussian11-same, L=1, mean: Tang 2023,
    who hands MATLAB pictures in 0..255 as if they were in 0..1.
    """
    ir, vis, fused = as_grey(ir, vis, fused)
    size, bessel, mean = _mean_of_window(window)
    if window == "gaussian11-same":
        ir, vis, fused = (F.pad(p.float(), (5, 5, 5, 5), mode="replicate") for p in (ir, vis, fused))
    scores = torch.zeros(2, len(fused), dtype=torch.float64, device=fused.device)
    for rows in strips(fused, margin=size - 1):
        result = fused[..., rows, :].float()
        result_mean, result_square = mean(result), result * result
        for index, picture in enumerate((ir, vis)):
            source = picture[..., rows, :].float()
            squares = mean(torch.addcmul(result_square, source, source))
            score = _ssim(mean(source), result_mean, squares, mean(source * result), bessel, peak)
            scores[index] += score.flatten(1).sum(dim=1)
    height, width = (max(side - size + 1, 0) for side in fused.shape[-2:])
    scores = scores / (height * width)
    return combine(scores[0], scores[1], combination)


_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def multi_scale_ssim(ir: Tensor, vis: Tensor, fused: Tensor) -> BySource:
    """MS-SSIM of the fused picture with both sources, summed, higher is better.

    Five scales with an 11x11 Gaussian of sigma 1.5 and L = 255; 2x2 means between them, where a picture with
    an odd side first gets its first row and column doubled; negative factors count as 0.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in 0..2, parts in 0..1; NaN where a side is below 161 pixels.

    Source: Wang et al., Asilomar 2003. Libraries differ by up to 0.04 in downsampling and padding; this one
    agrees with piq.
    """
    taps = gaussian_taps(11, 1.5)
    pictures = [picture.double() for picture in as_grey(ir, vis, fused)]
    if min(fused.shape[-2:]) < 161:
        undefined = torch.full((len(fused),), torch.nan, dtype=torch.float64, device=fused.device)
        return BySource(undefined, undefined, undefined)
    parts = [torch.ones(len(fused), dtype=torch.float64, device=fused.device)] * 2
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        if scale:
            odd = max(side % 2 for side in pictures[0].shape[-2:])
            pictures = [
                F.avg_pool2d(F.pad(p, (odd, 0, odd, 0), mode="replicate"), kernel_size=2) for p in pictures
            ]
        local = _LocalStatistics(pictures, taps)
        for index in (0, 1):
            contrast = (2 * local.covariances[index] + 58.5225) / (
                local.variances[index] + local.variances[2] + 58.5225
            )
            if scale == len(_SCALE_WEIGHTS) - 1:
                contrast = contrast * local.luminance(index, 6.5025)
            factor = contrast.flatten(1).mean(dim=1).clamp_min(0)
            parts[index] = parts[index] * factor**weight
    return combine(parts[0], parts[1], "sum")


class _LocalStatistics:
    """Windowed means, variances and covariances of a triple."""

    def __init__(self, pictures: Sequence[Tensor], taps: tuple[float, ...]) -> None:
        *sources, fused = pictures
        self.means = [separable_filter(p, taps) for p in pictures]
        self.variances = [
            separable_filter(p * p, taps) - mean * mean for p, mean in zip(pictures, self.means, strict=True)
        ]
        self.covariances = [
            separable_filter(source * fused, taps) - self.means[index] * self.means[2]
            for index, source in enumerate(sources)
        ]

    def luminance(self, index: int, c1: float) -> Tensor:
        """SSIM's first factor between a source and the fused picture."""
        mean, fused_mean = self.means[index], self.means[2]
        return (2 * mean * fused_mean + c1) / (mean * mean + fused_mean * fused_mean + c1)

    def ssim(self, index: int, c1: float, c2: float) -> Tensor:
        """SSIM at each window between a source and the fused picture."""
        contrast = (2 * self.covariances[index] + c2) / (self.variances[index] + self.variances[2] + c2)
        return self.luminance(index, c1) * contrast

    def saliency(self) -> Tensor:
        """The infrared source's share of both local variances; a half where both are flat."""
        ir, vis = (variance.clamp_min(0) for variance in self.variances[:2])
        return torch.where(ir + vis > 0, ir / (ir + vis), 0.5)


def _fusion_quality(pictures: Sequence[Tensor], weighted: bool) -> Tensor:
    """QS or QW of three maps `(B, 1, H, W)` float64, whose values lie in 0..255 or thereabouts."""
    local = _LocalStatistics(pictures, gaussian_taps(11, 1.5))
    share = local.saliency()
    score = share * local.ssim(0, 6.5025, 58.5225) + (1 - share) * local.ssim(1, 6.5025, 58.5225)
    if not weighted:
        return score.flatten(1).mean(dim=1)
    weight = torch.maximum(local.variances[0], local.variances[1]).clamp_min(0)
    total = weight.flatten(1).sum(dim=1)
    return torch.where(
        total > 0, (weight * score).flatten(1).sum(dim=1) / total, score.flatten(1).mean(dim=1)
    )


def fusion_quality_index(ir: Tensor, vis: Tensor, fused: Tensor, weighted: bool = False) -> Tensor:
    """QS, and with `weighted` QW: local SSIM, each source weighted by its local variance, higher is better.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.
        weighted: Weight each window by the larger of both variances (QW) instead of equally (QS).

    Returns:
        `(B,)` float64 in -1..1; NaN where the window of 11x11 does not fit.

    Source: Piella and Heijmans, ICIP 2003; agrees with zhengliu.
    """
    return _fusion_quality([picture.double() for picture in as_grey(ir, vis, fused)], weighted)


def _edge_strength(picture: Tensor) -> Tensor:
    """Strength of the Prewitt gradient of `(B, 1, H, W)`, with zeros beyond the border."""
    padded = F.pad(picture, (1, 1, 1, 1))
    along, across = (padded.diff(dim=dim, n=1) for dim in (-1, -2))
    gx = (along[..., :-1] + along[..., 1:]).unfold(-2, 3, 1).sum(dim=-1)
    gy = (across[..., :-1, :] + across[..., 1:, :]).unfold(-1, 3, 1).sum(dim=-1)
    return (gx * gx + gy * gy).sqrt()


def edge_fusion_quality_index(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    """QE: QW of the pictures times QW of their edge strengths, higher is better.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in -1..1; NaN where the window of 11x11 does not fit.

    Source: Piella and Heijmans, ICIP 2003, with an exponent of 1. zhengliu's code for it stops at a variable
    that it has not set; this is the value with QW in its place.
    """
    pictures = [picture.double() for picture in as_grey(ir, vis, fused)]
    edges = [_edge_strength(picture) for picture in pictures]
    return _fusion_quality(pictures, weighted=True) * _fusion_quality(edges, weighted=True)


def yang(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    """QY: the weighted SSIM with both sources where they agree, the better one elsewhere, higher is better.

    Windows are 7x7 Gaussians of sigma 1.5, the constants of SSIM practically 0, and sources agree where their
    SSIM is 0.75 or more.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in -1..1; NaN where the window does not fit. Flat windows hang on rounding in the
        reference code; here a window without variance is exactly flat.

    Source: Yang et al., Information Fusion 2008; agrees with zhengliu.
    """
    ir, vis, fused = (p.double() for p in as_grey(ir, vis, fused))
    taps = gaussian_taps(7, 1.5)
    local = _LocalStatistics((ir, vis, fused), taps)
    between = _LocalStatistics((ir, ir, vis), taps).ssim(0, 2e-16, 2e-16)
    share = local.saliency()
    scores = local.ssim(0, 2e-16, 2e-16), local.ssim(1, 2e-16, 2e-16)
    agreed = share * scores[0] + (1 - share) * scores[1]
    return torch.where(between >= 0.75, agreed, torch.maximum(*scores)).flatten(1).mean(dim=1)


def cvejic(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    """QC: SSIM with both sources, weighted by their local covariances with the result, higher is better.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in -1..1; NaN where the window of 7x7 does not fit. Windows without any covariance
        weigh both sources equally (NaN in the reference code).

    Source: Cvejic et al., Int. J. Inf. Commun. Eng. 2006; agrees with zhengliu, except for pictures with
    clipped, flat parts (up to 0.005): there the reference code counts a window as 0 or as its SSIM by the
    sign of a rounding error, and a covariance below 1e-9 is 0 here.
    """
    local = _LocalStatistics([p.double() for p in as_grey(ir, vis, fused)], gaussian_taps(7, 1.5))
    covariances = [c.masked_fill(c.abs() < 1e-9, 0.0) for c in local.covariances]
    total = covariances[0] + covariances[1]
    share = torch.where(total == 0, 0.5, covariances[0] / total)
    score = share * local.ssim(0, 2e-16, 2e-16) + (1 - share) * local.ssim(1, 2e-16, 2e-16)
    score = torch.where(share < 0, 0.0, torch.where(share > 1, 1.0, score))
    return score.flatten(1).mean(dim=1)
