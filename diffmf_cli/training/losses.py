"""What a fused picture is trained to be. All of it is ours: the paper's loss is not published.

Terms that compare the fused picture with both sources are taken per source and per picture, and the *worse*
source counts: a sum over the sources is highest for a near copy of one of them.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from diffmf_cli.model.network import border_repeated
from diffmf_cli.training.recipe import Loss


def _blur(x: Tensor, size: int, sigma: float) -> Tensor:
    """Separable Gaussian over `(B, n, H, W)`, without padding."""
    at = torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2
    kernel = torch.exp(-(at**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    planes = x.flatten(0, 1)[:, None]
    planes = F.conv2d(F.conv2d(planes, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return planes[:, 0].unflatten(0, x.shape[:2])


def ssim_loss(fused: Tensor, source: Tensor, stability: float, luminance: float, flat: float) -> Tensor:
    """How much of a source's structure is lost, `(B,)`.

    1 - SSIM in uniform 7x7 windows, as the field's evaluator. Windows in which the source is flat count
    less: there SSIM would ask for a flat result, whatever the other source shows. So a black frame asks for
    little.

    Args:
        fused: `(B, 1, H, W)` in [0, 1].
        source: likewise.
        stability: the constant C2. The evaluator's is next to nothing, which would make every grain of sensor
            noise in flat areas count in full.
        luminance: the constant C1. The evaluator's is next to nothing, which asks for the geometric mean of
            both sources' brightness: a road that is cold in infrared turned nearly black by day.
        flat: weight in [0, 1] of a window in which the source is flat.
    """
    x, y = fused, source
    mx, my, xx, yy, xy = F.avg_pool2d(torch.cat([x, y, x * x, y * y, x * y], 1), 7, 1).split(1, 1)
    vx, vy, cov = (xx - mx * mx).clamp_min(0), (yy - my * my).clamp_min(0), xy - mx * my
    c1, c2 = luminance, stability
    value = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    structured = flat + (1 - flat) * vy / (vy + 6e-5)  # half at 2 grey levels
    return (structured * (1 - value)).mean((1, 2, 3))


def vif_loss(fused: Tensor, source: Tensor) -> Tensor:
    """How much of a source's information is lost, `(B,)`.

    1 - VIF in the pixel domain (Sheikh & Bovik 2006); counts less for a source that holds next to none.

    Args:
        fused: `(B, 1, H, W)` in [0, 1], sides of at least 41.
        source: likewise.
    """
    x, y = source * 255, fused * 255
    eps, noise = 1e-4, 2.0
    kept = total = torch.zeros(len(x), device=x.device)
    count = 0
    for scale in range(4):
        size = 2 ** (4 - scale) + 1
        if scale:
            x, y = _blur(torch.cat([x, y], 1), size, size / 5)[..., ::2, ::2].split(1, 1)
        blurred = _blur(torch.cat([x, y, x * x, y * y, x * y], 1), size, size / 5)
        mx, my, xx, yy, xy = blurred.split(1, 1)
        vx, vy = (xx - mx * mx).clamp_min(0), (yy - my * my).clamp_min(0)
        cov = xy - mx * my
        gain = (cov / (vx + eps)).clamp_min(0)
        rest = (vy - gain * cov).clamp_min(eps)
        kept = kept + torch.log1p(gain * gain * vx / (rest + noise)).sum((1, 2, 3))
        total = total + torch.log1p(vx / noise).sum((1, 2, 3))
        count += vx[0].numel()
    return (1 - kept / (total + eps)) * total / (total + 0.3 * count)


def difference_loss(fused: Tensor, source: Tensor, other: Tensor) -> Tensor:
    """How badly the fused picture without the other source shows this one, `(B,)`.

    1 - Pearson correlation, one of the two parts of SCD (so a trained network's SCD is optimised, not
    discovered); counts less for a source without contrast.

    Args:
        fused: `(B, 1, H, W)`.
        source: likewise.
        other: likewise.
    """
    x, y = (t - t.mean((1, 2, 3), keepdim=True) for t in (fused - other, source))
    power = (y * y).mean((1, 2, 3))
    norm = ((x * x).mean((1, 2, 3)) * power).clamp_min(1e-10).sqrt()
    return (1 - (x * y).mean((1, 2, 3)) / norm) * power / (power + 4e-4)  # half at 5 grey levels


def sobel(x: Tensor) -> Tensor:
    """`(B, 1, H, W)` -> `(B, 2, H, W)`, both signed gradients; a ramp of slope g gives g."""
    p = border_repeated(x)
    across, down = p[..., 2:] - p[..., :-2], p[..., 2:, :] - p[..., :-2, :]
    gx = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    gy = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return torch.cat([gx, gy], 1) / 8


def edge_loss(fused: Tensor, source: Tensor) -> Tensor:
    """How much of a source's edges is lost, `(B,)`.

    1 - Q of one source as Xydeas & Petrovic (2000) weigh strength and direction of Sobel gradients, so a
    trained network's Qabf is optimised, not discovered; counts less for a source without edges. Q takes an
    edge of the wrong sign for a right one: the gradient term of `fusion_loss` does not.

    Args:
        fused: `(B, 1, H, W)` in [0, 1].
        source: likewise.
    """
    faint = 5e-4  # an eighth of a grey level from pixel to pixel
    (fx, fy), (sx, sy) = sobel(fused).split(1, 1), sobel(source).split(1, 1)
    strength = (fx * fx + fy * fy + faint**2).sqrt()
    wanted = (sx * sx + sy * sy + faint**2).sqrt()
    ratio = torch.minimum(strength, wanted) / torch.maximum(strength, wanted)
    angle = torch.atan2((fx * sy - fy * sx).abs(), (fx * sx + fy * sy).abs() + faint**2)
    kept = 0.9994 * torch.sigmoid(15 * (ratio - 0.5))
    kept = kept * 0.9879 * torch.sigmoid(22 * (0.2 - angle / (math.pi / 2)))
    total = wanted.mean((1, 2, 3))
    return (1 - (kept * wanted).mean((1, 2, 3)) / total) * total / (total + 1e-3)


def intensity_target(ir: Tensor, vis: Tensor) -> Tensor:
    """The brighter source of each pixel."""
    return torch.maximum(ir, vis)


def darkness_loss(fused: Tensor, vis: Tensor) -> Tensor:
    """How far the fused picture lies below half of the visible one, a scalar.

    In means of 7x7 pixels, so that edges and marks may be dark. A road that is cold in infrared and bright by
    day is where the other terms ask for black: similarity to infrared is highest there. Not against infrared:
    where that is saturated, a bright result would cost the visible picture its contrast.

    Args:
        fused: `(B, 1, H, W)` in [0, 1].
        vis: likewise, luma.
    """
    level, wanted = F.avg_pool2d(torch.cat([fused, vis], 1), 7, 1).split(1, 1)
    return (wanted / 2 - level).clamp_min(0).mean()


def contrast_loss(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """How far the fused picture's contrast lies below half of the better source's, a scalar.

    Contrast is the standard deviation in windows of 7x7 pixels. Leaves in the sun with nothing behind them in
    infrared are where the other terms ask for a patch without them.

    Args:
        fused: `(B, 1, H, W)` in [0, 1].
        ir: likewise.
        vis: likewise.
    """
    x = torch.cat([fused, ir, vis], 1)
    mean, square = F.avg_pool2d(torch.cat([x, x * x], 1), 7, 1).split(3, 1)
    # A variance of nothing has no finite gradient under the root.
    contrast, *sources = ((square - mean * mean).clamp_min(0) + 1e-6).sqrt().split(1, 1)
    return (torch.maximum(*sources) / 2 - contrast).clamp_min(0).mean()


def fusion_loss(fused: Tensor, ir: Tensor, vis: Tensor, weights: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and its unweighted terms.

    Args:
        fused: `(B, 1, H, W)` in [0, 1].
        ir: likewise.
        vis: likewise, luma.
        weights: of the terms.

    Returns:
        The scalar loss, and each term as a scalar (0 is perfect).
    """
    # Both sources in one call each: the terms are many small operations.
    twice, sources, others = torch.cat([fused, fused]), torch.cat([ir, vis]), torch.cat([vis, ir])
    lost: dict[str, Tensor] = {}
    if weights.ssim:
        lost["ssim"] = ssim_loss(twice, sources, weights.stability, weights.luminance, weights.flat)
    if weights.vif:
        lost["vif"] = vif_loss(twice, sources)
    if weights.difference:
        lost["difference"] = difference_loss(twice, sources, others)
    if weights.edges:
        lost["edges"] = edge_loss(twice, sources)
    share = weights.sum_share
    terms = {
        name: (1 - share) * torch.maximum(*both.chunk(2)).mean() + share * both.mean()
        for name, both in lost.items()
    }
    terms["intensity"] = (fused - intensity_target(ir, vis)).abs().mean()
    if weights.darkness:
        terms["darkness"] = darkness_loss(fused, vis)
    if weights.contrast:
        terms["contrast"] = contrast_loss(fused, ir, vis)
    if weights.flatness:
        flat = (ir.amax((1, 2, 3)) == ir.amin((1, 2, 3))) & (vis.amax((1, 2, 3)) == vis.amin((1, 2, 3)))
        # From the brighter constant, not from the mean: white is flat as well.
        terms["flatness"] = ((fused - intensity_target(ir, vis)).abs() * flat[:, None, None, None]).mean()
    # Signed: the larger absolute value alone would accept edges of the wrong sign, which are halos.
    g_ir, g_vis = sobel(ir), sobel(vis)
    target = torch.where(g_ir.abs() > g_vis.abs(), g_ir, g_vis)
    terms["gradient"] = (sobel(fused) - target).abs().mean()
    loss = sum(getattr(weights, name) * value for name, value in terms.items())
    return torch.as_tensor(loss), terms
