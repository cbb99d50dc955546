"""Metrics that model the eye's contrast sensitivity."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diffmf_cli.metrics.filters import separable_filter, sobel
from diffmf_cli.metrics.grey import as_grey, stretch


def _frequencies(height: int, width: int, divisor: float, device: torch.device) -> Tensor:
    """Radial frequency of each bin of a 2-D FFT: `(H, W)`, sides scaled to H / divisor and W / divisor."""
    rows = torch.fft.fftfreq(height, dtype=torch.float64, device=device) * 2 * height / divisor
    columns = torch.fft.fftfreq(width, dtype=torch.float64, device=device) * 2 * width / divisor
    return torch.hypot(rows.unsqueeze(1), columns.unsqueeze(0))


def _filter_spectrum(picture: Tensor, response: Tensor) -> Tensor:
    """Multiply the spectrum of `(B, 1, H, W)` by a real, symmetric response `(H, W)`."""
    return torch.fft.ifft2(torch.fft.fft2(picture) * response).real


def _local_contrast(picture: Tensor) -> Tensor:
    """Masked contrast of Gaussian neighbourhoods of 2 and 4 pixels: `(B, 1, H, W)`, 0 upwards."""
    padded = F.pad(picture, (15, 15, 15, 15))
    centre, surround = (
        separable_filter(
            padded,
            tuple(math.exp(-(x * x) / (2 * s * s)) / (math.sqrt(2 * math.pi) * s) for x in range(-15, 16)),
        )
        for s in (2, 4)
    )
    contrast = torch.where(surround == 0, 0.0, (centre / surround - 1).abs())
    return contrast**3 / (contrast**2 + 1e-4)


def chen_blum(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    """QCB, how well the local contrast of the more contrasted source is kept, higher is better.

    Args:
        ir: `(B, 1, H, W)`, values 0..255, stretched to the full range first, as in the reference code.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64 in 0..1. Where neither picture has any contrast, contrast is kept; a constant picture
        makes the reference code return NaN.

    Source: Chen and Blum, Image Vis. Comput. 2009; agrees with zhengliu and VIFB.
    """
    height, width = fused.shape[-2:]
    radius = _frequencies(height, width, 30, fused.device)
    response = torch.exp(-((radius / 15.387) ** 2)) - 0.7622 * torch.exp(-((radius / 1.3456) ** 2))
    *contrasts, result = (
        _local_contrast(_filter_spectrum(stretch(p).double(), response)) for p in as_grey(ir, vis, fused)
    )
    kept = []
    for contrast in contrasts:
        larger = torch.maximum(contrast, result)
        kept.append(torch.where(larger > 0, torch.minimum(contrast, result) / larger, 1.0))
    energy = contrasts[0].square(), contrasts[1].square()
    share = torch.where(energy[0] + energy[1] > 0, energy[0] / (energy[0] + energy[1]), 0.5)
    return (share * kept[0] + (1 - share) * kept[1]).flatten(1).mean(dim=1)


def _block_sums(picture: Tensor) -> Tensor:
    """Sums over blocks of 16x16, those at the right and lower border filled with zeros."""
    height, width = picture.shape[-2:]
    padded = F.pad(picture, (0, -width % 16, 0, -height % 16))
    return F.avg_pool2d(padded, 16) * 256


def chen_varshney(ir: Tensor, vis: Tensor, fused: Tensor) -> Tensor:
    """QCV, the visible difference from the sources in blocks of 16x16, by their edges, lower is better.

    Args:
        ir: `(B, 1, H, W)`, values 0..255, stretched to the full range first, as in the reference code.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.

    Returns:
        `(B,)` float64, 0 upwards, in grey levels squared; 0 where the sources have no edges (NaN in the
        reference code).

    Source: Chen and Varshney, Information Fusion 2007; agrees with zhengliu and VIFB.
    """
    *sources, result = (stretch(picture).double() for picture in as_grey(ir, vis, fused))
    radius = _frequencies(fused.shape[-2], fused.shape[-1], 8, fused.device)
    response = 2.6 * (0.0192 + 0.144 * radius) * torch.exp(-((0.144 * radius) ** 1.1))
    weighted = torch.zeros(len(fused), dtype=torch.float64, device=fused.device)
    total = torch.zeros_like(weighted)
    for source in sources:
        gx, gy = sobel(F.pad(source, (1, 1, 1, 1)))
        saliency = _block_sums((gx * gx + gy * gy) ** 2.5)
        difference = _block_sums(_filter_spectrum(source - result, response).square()) / 256
        weighted += (saliency * difference).flatten(1).sum(dim=1)
        total += saliency.flatten(1).sum(dim=1)
    return torch.where(total > 0, weighted / total, 0.0)
