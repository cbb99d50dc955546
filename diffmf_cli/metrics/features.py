"""Feature mutual information: how much of the sources' local features the fused picture tells."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diffmf_cli.metrics.by_source import BySource, combine
from diffmf_cli.metrics.filters import sobel
from diffmf_cli.metrics.grey import as_grey
from diffmf_cli.metrics.wavelets import meyer_transform

# Windows at once, with 81 float64 values each: few maps of them stay in a core's second-level cache.
_CHUNK = 1024
_CHUNK_ON_CUDA = 2**17


def _cosines(size: int, device: torch.device) -> Tensor:
    """Orthonormal DCT-II matrix `(size, size)`."""
    index = torch.arange(size, dtype=torch.float64, device=device)
    matrix = torch.cos(math.pi / size * (index + 0.5) * index.unsqueeze(1)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def _feature(picture: Tensor, feature: str) -> Tensor:
    """Feature map of `(B, 1, H, W)` float64, of the same shape but for wavelets."""
    if feature == "gradient":
        return torch.gradient(picture, dim=-1)[0] if picture.shape[-1] > 1 else torch.zeros_like(picture)
    if feature == "dct":
        rows, columns = (_cosines(side, picture.device) for side in picture.shape[-2:])
        return rows @ picture @ columns.T
    if feature == "wavelet":
        return meyer_transform(picture)
    if feature == "edge":
        return _edges(picture)
    return picture


def _edges(picture: Tensor) -> Tensor:
    """Edge map of 0 and 1 by the rule of MATLAB's `edge`: strong Sobel gradients, thinned.

    Strong is a squared strength above four times its mean. Of neighbours across the gradient's main direction
    only the strongest stays, of equal ones the last.
    """
    gx, gy = (gradient.abs() for gradient in sobel(F.pad(picture, (1, 1, 1, 1), mode="replicate")))
    energy = gx * gx + gy * gy
    strong = energy > 4 * energy.mean(dim=(-2, -1), keepdim=True)
    thin = torch.zeros_like(strong)
    for dim, leads in ((-1, gx >= gy), (-2, gy >= gx)):
        rising = energy.diff(dim=dim)
        lasting = torch.ones_like(strong)
        lasting.narrow(dim, 1, rising.shape[dim]).logical_and_(rising >= 0)
        lasting.narrow(dim, 0, rising.shape[dim]).logical_and_(rising < 0)
        thin |= leads & lasting
    return (strong & thin).to(picture.dtype)


def _windows(picture: Tensor) -> Tensor:
    """All 3x3 windows of `(1, H, W)`, column by column: `(N, 9)`."""
    return picture[0].T.unfold(0, 3, 1).unfold(1, 3, 1).reshape(-1, 9)


def _distribution(windows: Tensor) -> Tensor:
    """Windows as probabilities: stretched to 0..1, uniform where they are flat, of sum 1."""
    low, high = windows.amin(dim=1, keepdim=True), windows.amax(dim=1, keepdim=True)
    weights = torch.where(high > low, (windows - low) / (high - low), 1.0)
    return weights / weights.sum(dim=1, keepdim=True)


def _entropy(terms: Tensor) -> Tensor:
    """-sum p log2 |p| over the last dimension, with 0 log 0 = 0; a joint term may be negative."""
    return -(terms * torch.log2(terms.abs().clamp_min(1e-300))).sum(dim=-1)


def _spread(probabilities: Tensor) -> Tensor:
    """Standard deviation of the index 1..9 under each distribution."""
    index = torch.arange(1, 10, dtype=torch.float64, device=probabilities.device)
    mean = (index * probabilities).sum(dim=1)
    return ((index**2 * probabilities).sum(dim=1) - mean**2).clamp_min(0).sqrt()


def _window_information(source: Tensor, fused: Tensor) -> Tensor:
    """Normalised mutual information of pairs of windows `(N, 9)`: `(N,)`.

    The joint distribution is not counted, it is modelled: between independence and the Frechet bound that the
    correlation of both distributions points to.
    """
    p, q = _distribution(source), _distribution(fused)
    a, b = p - p.mean(dim=1, keepdim=True), q - q.mean(dim=1, keepdim=True)
    product = (a * b).sum(dim=1)
    energy = ((a * a).sum(dim=1) * (b * b).sum(dim=1)).sqrt()
    correlation = torch.where((product == 0) | (energy == 0), 0.0, product / energy)
    # The lower bound, for negative correlations, is the upper one of a distribution turned around.
    p = torch.where((correlation < 0).unsqueeze(1), p.flip(1), p)
    cumulated, other = q.cumsum(dim=1), p.cumsum(dim=1)
    joint = torch.minimum(cumulated.unsqueeze(2), other.unsqueeze(1))
    covariance = joint.sum(dim=(1, 2)) - cumulated.sum(dim=1) * other.sum(dim=1)
    spread = _spread(p) * _spread(q)
    share = torch.where((spread == 0) | (correlation == 0), 0.0, correlation.abs() * spread / covariance)
    share = share[:, None, None]
    for dim in (1, 2):
        joint = torch.cat([joint.narrow(dim, 0, 1), joint.diff(dim=dim)], dim=dim)
    joint = joint.mul_(share).addcmul_((1 - share) * q.unsqueeze(2), p.unsqueeze(1))
    marginal = _entropy(p) + _entropy(q)
    information = 2 * (marginal - _entropy(joint.flatten(1))) / marginal
    information = torch.where(marginal > 0, information, 0.0)
    # Two flat windows tell all of each other, even at different levels; so they do in the authors' code,
    # where a rounding error makes their correlation 1.
    flat = (source.amin(dim=1) == source.amax(dim=1)) & (fused.amin(dim=1) == fused.amax(dim=1))
    return torch.where(flat | (source == fused).all(dim=1), 1.0, information)


def feature_mutual_information(ir: Tensor, vis: Tensor, fused: Tensor, feature: str = "pixels") -> BySource:
    """FMI, the mean over 3x3 windows of both sources' information about the result, higher is better.

    Args:
        ir: `(B, 1, H, W)`, values 0..255.
        vis: `(B, 1, H, W)`, values 0..255.
        fused: `(B, 1, H, W)`, values 0..255.
        feature: "pixels"; "gradient" along W; "dct", the cosine transform of the whole picture; "wavelet",
            one level of the discrete Meyer transform; "edge", MATLAB's thinned Sobel edges.

    Returns:
        `(B,)` float64, about 0..1, parts likewise; NaN below 3x3 pixels.

    Source: Haghighat and Razian, Fast-FMI, AICT 2014. "pixels", "gradient" and "wavelet" agree with Tang's
    copy of the authors' code. What Tang's driver prints as FMI_pixel is "edge", the code's default; its maps
    follow MATLAB's published rule, but were not compared with MATLAB.
    """
    pictures = [_feature(picture.double(), feature) for picture in as_grey(ir, vis, fused)]
    parts = torch.full((2, len(fused)), torch.nan, dtype=torch.float64, device=fused.device)
    chunk = _CHUNK_ON_CUDA if fused.is_cuda else _CHUNK
    if min(fused.shape[-2:]) >= 3:
        for item in range(len(fused)):
            *sources, result = (_windows(picture[item]) for picture in pictures)
            for index, source in enumerate(sources):
                total = sum(
                    _window_information(a, b).sum()
                    for a, b in zip(source.split(chunk), result.split(chunk), strict=True)
                )
                parts[index, item] = total / len(result)
    return combine(parts[0], parts[1], "mean")
