"""Metrics of edges and local contrast."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diffmf_cli.metrics.by_source import BySource
from diffmf_cli.metrics.filters import sobel, strips
from diffmf_cli.metrics.grey import as_grey


def spatial_frequency(fused: Tensor, divisor: str = "own") -> Tensor:
    """SF, the root of the mean squared differences of neighbours in both directions, higher is better.

    Args:
        fused: `(B, 1, H, W)`, values 0..255.
        divisor: "own" divides each sum by its own count (CDDFuse, Tang); "HW" both by H*W (VIFB).

    Returns:
        `(B,)` float64 in 0..361; the part of a direction that the picture is too thin for is 0.

    Source: Eskicioglu and Fisher, IEEE Trans. Commun. 1995.
    """
    (fused,) = as_grey(fused)
    energy = torch.zeros(len(fused), dtype=torch.float64, device=fused.device)
    for dim in (-1, -2):
        squares = fused.float().diff(dim=dim).square_().flatten(1)
        if squares.shape[1]:
            count = squares.shape[1] if divisor == "own" else fused[0].numel()
            energy += squares.sum(dim=1, dtype=torch.float64) / count
    return energy.sqrt()


def spatial_frequency_error(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    """QSF: (SF_fused - SF_sources) / SF_sources, nearest to 0 is best.

    SF adds the squared differences of neighbours along both sides and both diagonals, diagonals weighted by
    sqrt(1/2); for the sources, the larger difference of both counts at each place. Negative: detail is lost;
    positive: detail was added that no source has, such as noise.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64, -1 upwards. Of constant sources (NaN or infinite in the reference code): 0 where the
        fused picture is constant as well, else infinite.

    Source: Zheng et al., Information Fusion 2007; agrees with zhengliu.
    """
    *sources, result = (_squared_differences(picture.double()) for picture in as_grey(ir, vis, fused))
    largest = [torch.maximum(a, b) for a, b in zip(*sources, strict=True)]
    expected, found = (_extended_energy(maps) for maps in (largest, result))
    return torch.where(found == expected, 0.0, (found / expected).sqrt() - 1)


def _extended_energy(squares: list[Tensor]) -> Tensor:
    """Sum of squared differences, diagonal ones weighted by sqrt(1/2): `(B,)`."""
    ahead, down, falling, rising = (found.flatten(1).sum(dim=1) for found in squares)
    return ahead + down + math.sqrt(0.5) * (falling + rising)


def _squared_differences(picture: Tensor) -> list[Tensor]:
    """Squared differences of neighbours along W, along H and along both diagonals, `(B, 1, H, W)` at most."""
    ahead, down = picture.diff(dim=-1), picture.diff(dim=-2)
    falling = picture[..., 1:, 1:] - picture[..., :-1, :-1]
    rising = picture[..., 1:, :-1] - picture[..., :-1, 1:]
    return [difference.square() for difference in (ahead, down, falling, rising)]


def average_gradient(fused: Tensor, divisor: str = "HW") -> Tensor:
    """AG, the mean of sqrt((gx^2 + gy^2) / 2), higher is better.

    gx and gy are central differences, one-sided at the border.

    Args:
        fused: `(B, 1, H, W)`, values 0..255.
        divisor: What the sum is divided by: "HW" (CDDFuse, IVIF_ZOO) or "(H-1)(W-1)" (Tang, VIFB, mark-bear).

    Returns:
        `(B,)` float64 in 0..255; the gradient along a side of one pixel is 0.

    Source: Cui et al., Opt. Commun. 2015.
    """
    (fused,) = as_grey(fused)
    picture = fused.double()
    height, width = picture.shape[-2:]
    energy = torch.zeros_like(picture)
    for dim, side in ((-2, height), (-1, width)):
        if side > 1:
            energy += torch.gradient(picture, dim=dim)[0].square_()
    count = height * width if divisor == "HW" else max(height - 1, 1) * max(width - 1, 1)
    return (energy / 2).sqrt_().flatten(1).sum(dim=1) / count


def edge_intensity(fused: Tensor) -> Tensor:
    """EI, the mean strength of the Sobel gradient with replicated borders, higher is better.

    Args:
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in 0..1140.

    Source: Rajalingam and Priya, 2018; agrees with VIFB. IVIF_ZOO pads with zeros, which counts the frame.
    """
    (fused,) = as_grey(fused)
    gx, gy = sobel(F.pad(fused.double(), (1, 1, 1, 1), mode="replicate"))
    return (gx * gx).addcmul_(gy, gy).sqrt_().flatten(1).mean(dim=1)


def _strength_and_angle(padded: Tensor) -> tuple[Tensor, Tensor]:
    """Strength and angle of the Sobel gradient: uint8 `(B, 1, H + 2, W + 2)` to `(B, 1, H, W)` each."""
    # float32 holds the gradients and their squares exactly, so that equal strengths stay equal.
    gx, gy = sobel(padded.float())
    # The minus is the field's: with the angle of gx == 0 fixed at +pi/2, the sign of the others counts.
    angle = torch.atan(gy / -gx).masked_fill_(gx == 0, math.pi / 2)
    return (gx * gx).addcmul_(gy, gy).sqrt_(), angle


def _edge_preservation(source: tuple[Tensor, Tensor], fused: tuple[Tensor, Tensor]) -> Tensor:
    """Q of Xydeas and Petrovic for each pixel, from `(strength, angle)` of source and fused picture."""
    (strength, angle), (fused_strength, fused_angle) = source, fused
    ratio = torch.minimum(strength, fused_strength) / torch.maximum(strength, fused_strength)
    # Where both strengths are equal, the field's code takes the strength itself, not 1.
    ratio = torch.where(strength == fused_strength, fused_strength, ratio)
    alignment = 1 - (angle - fused_angle).abs_() * (2 / math.pi)
    strength_kept = torch.sigmoid(15 * (ratio - 0.5))
    angle_kept = torch.sigmoid(22 * (alignment - 0.8))
    return 0.9994 * 0.9879 * strength_kept * angle_kept


def edge_transfer(ir: Tensor, vis: Tensor, fused: Tensor) -> BySource:
    """Qabf, the share of the sources' Sobel edges that the fused picture keeps, higher is better.

    sum(Q_ir g_ir + Q_vis g_vis) / sum(g_ir + g_vis), where g is a source's gradient strength and Q rates
    how well its strength and angle are kept. The part of a source is the same with that source alone:
    sum(Q g) / sum(g). Of sources without any edge (black pictures) toolkits return NaN; 0 here.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in 0..0.9874.

    Source: Xydeas and Petrovic, Electron. Lett. 2000, with the constants of the code that the field uses;
    agrees with CDDFuse, Tang 2023, VIFB and mark-bear.
    """
    pictures = [F.pad(picture, (1, 1, 1, 1)) for picture in as_grey(ir, vis, fused)]
    kept = torch.zeros(2, len(fused), dtype=torch.float64, device=fused.device)
    total = torch.zeros_like(kept)
    for rows in strips(pictures[0], margin=2):
        *sources, result = (_strength_and_angle(picture[..., rows, :]) for picture in pictures)
        for index, source in enumerate(sources):
            weighted = _edge_preservation(source, result) * source[0]
            kept[index] += weighted.flatten(1).sum(dim=1, dtype=torch.float64)
            total[index] += source[0].flatten(1).sum(dim=1, dtype=torch.float64)

    def share(kept: Tensor, total: Tensor) -> Tensor:
        return torch.where(total > 0, kept / total, 0.0)

    return BySource(share(kept.sum(dim=0), total.sum(dim=0)), *share(kept, total))


def _kept_gradient(strength: Tensor, angle: Tensor, fused: Tensor, fused_angle: Tensor) -> Tensor:
    """Q of `mean_edge_transfer` for each pixel: strengths above 0, angles of a quarter turn to both sides."""
    ratio = torch.minimum(strength, fused) / torch.maximum(strength, fused)
    alignment = ((angle - fused_angle).abs() - math.pi / 2).abs() * (2 / math.pi)
    return torch.sigmoid(10 * (ratio - 0.5)) * torch.sigmoid(20 * (alignment - 0.75))


def mean_edge_transfer(ir: Tensor, vis: Tensor, fused: Tensor) -> BySource:
    """QG, the mean over pixels of the share of the sources' Sobel edges that is kept, higher is better.

    The idea of Qabf with other constants (slopes 10 and 20 around 0.5 and 0.75), and a mean of each pixel's
    ratio (Q_ir g_ir + Q_vis g_vis) / (g_ir + g_vis) instead of a ratio of sums, so that flat places count as
    much as edges. The part of a source is the mean of its Q.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in 0..0.99, parts likewise. Gradients of 0 count as 1e-5: flat places are kept by flat
        places.

    Source: Xydeas and Petrovic, Electron. Lett. 2000; agrees with zhengliu.
    """
    sums = torch.zeros(3, len(fused), dtype=torch.float64, device=fused.device)
    pictures = [F.pad(picture, (1, 1, 1, 1)) for picture in as_grey(ir, vis, fused)]
    for rows in strips(pictures[0], margin=2):
        gradients = []
        for picture in pictures:
            gx, gy = sobel(picture[..., rows, :].double())
            strength = (gx * gx).addcmul_(gy, gy).sqrt_()
            angle = torch.atan(gy / gx.masked_fill(gx == 0, 1e-5))
            gradients.append((strength.masked_fill_(strength == 0, 1e-5), angle))
        *sources, result = gradients
        kept = [_kept_gradient(*source, *result) for source in sources]
        (first, _), (second, _) = sources
        both = (kept[0] * first + kept[1] * second) / (first + second)
        for index, values in enumerate((both, *kept)):
            sums[index] += values.flatten(1).sum(dim=1)
    return BySource(*sums / fused[0].numel())


def _artifact_rates(source: tuple[Tensor, Tensor], fused: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Q of Petrovic and Xydeas for each pixel and the source's weights, from `(strength, angle)` of both."""
    (strength, angle), (fused_strength, fused_angle) = source, fused
    ratio = torch.minimum(strength, fused_strength) / torch.maximum(strength, fused_strength)
    ratio = ratio.masked_fill_((strength == 0) | (fused_strength == 0), 0.0)
    alignment = ((angle - fused_angle).abs() - math.pi / 2).abs() * (2 / math.pi)
    strength_kept = 0.9999 * torch.sigmoid(19 * (ratio - 0.5))
    angle_kept = 0.9995 * torch.sigmoid(22 * (alignment - 0.5))
    weight = torch.where(strength >= 2, strength**1.5, 0.001)
    return (strength_kept * angle_kept).sqrt_(), weight


def fusion_artifacts(ir: Tensor, vis: Tensor, fused: Tensor, scored: str = "fused") -> Tensor:
    """Nabf, the share of edges that the fused picture has and neither source explains, lower is better.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.
        scored: "fused", or "ir" for the value that Tang's code prints since March 2023: it hands the pictures
            over as (IR, VIS, F) where (F, IR, VIS) is expected, and so scores the infrared source.

    Returns:
        `(B,)` float64 in 0..1.

    Source: Shreyamsha Kumar, Signal Image Video Process. 2013, after Petrovic and Xydeas, ICCV 2005; agrees
    with Tang's code called in the right order, and to 1.3e-5 with mark-bear's, which drops a weight.
    """
    pictures = list(as_grey(ir, vis, fused))
    if scored == "ir":
        pictures = [pictures[1], pictures[2], pictures[0]]
    mode = "reflect" if min(fused.shape[-2:]) > 1 else "replicate"
    pictures = [F.pad(picture.float(), (1, 1, 1, 1), mode=mode) for picture in pictures]
    lost = torch.zeros(len(fused), dtype=torch.float64, device=fused.device)
    total = torch.zeros_like(lost)
    for rows in strips(pictures[0], margin=2):
        gradients = []
        for picture in pictures:
            gx, gy = sobel(picture[..., rows, :].double() / 8)
            strength = (gx * gx + gy * gy).sqrt()
            gradients.append((strength, torch.atan(gx / gy).masked_fill_(strength == 0, 0.0)))
        *sources, result = gradients
        added = (result[0] > sources[0][0]) & (result[0] > sources[1][0])
        for source in sources:
            rate, weight = _artifact_rates(source, result)
            lost += ((1 - rate) * weight * added).flatten(1).sum(dim=1)
            total += weight.flatten(1).sum(dim=1)
    return lost / total
