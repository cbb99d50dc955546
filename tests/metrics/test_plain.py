"""Metrics against plain float64 loops that are written from their formulas."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from diffmf_cli.metrics.features import _edges
from diffmf_cli.metrics.functional import evaluate
from diffmf_cli.metrics.wavelets import _MEYER_HIGH, _MEYER_LOW, meyer_transform


def filtered(picture, kernel):
    """Correlation with zeros beyond the border, of the same size."""
    margins = [side // 2 for side in kernel.shape]
    padded = np.pad(picture, [(margin, margin) for margin in margins])
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    return (windows * kernel).sum(axis=(2, 3))


def plain_qg(ir, vis, fused):
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])

    def gradient(picture):
        gx, gy = filtered(picture, sobel), filtered(picture, sobel.T)
        return np.maximum(np.hypot(gx, gy), 1e-5), np.arctan(gy / np.where(gx == 0, 1e-5, gx))

    (g_ir, a_ir), (g_vis, a_vis), (g, a) = map(gradient, (ir, vis, fused))

    def kept(strength, angle):
        ratio = np.where(strength > g, g / strength, strength / g)
        alignment = abs(abs(angle - a) - np.pi / 2) * 2 / np.pi
        return 1 / (1 + np.exp(-10 * (ratio - 0.5))) / (1 + np.exp(-20 * (alignment - 0.75)))

    return ((kept(g_ir, a_ir) * g_ir + kept(g_vis, a_vis) * g_vis) / (g_ir + g_vis)).mean()


def plain_qm(ir, vis, fused):
    def haar(picture):
        a, b, c, d = (picture[i : picture.shape[0] // 2 * 2 : 2, j : picture.shape[1] // 2 * 2 : 2]
                      for i, j in product((0, 1), repeat=2))  # fmt: skip
        return (a + b + c + d) / 2, ((a + b - c - d) / 2, (a - b + c - d) / 2, (a - b - c + d) / 2)

    value = 1.0
    for exponent in (2 / 3, 1 / 3):
        (ir, details), (vis, others), (fused, kept) = haar(ir), haar(vis), haar(fused)
        above = below = 0.0
        for source in (details, others):
            energy = sum(d**2 for d in source)
            above += (energy * sum(np.exp(-abs(d - k)) for d, k in zip(source, kept, strict=True))).sum()
            below += energy.sum()
        value *= (above / below) ** exponent
    return value


def plain_qsf(ir, vis, fused):
    def energy(*pictures):
        height, width = pictures[0].shape
        total = 0.0
        for (dy, dx), weight in {(0, 1): 1, (1, 0): 1, (1, 1): 0.5**0.5, (1, -1): 0.5**0.5}.items():
            for y, x in product(range(height - dy), range(max(-dx, 0), width - max(dx, 0))):
                total += weight * max(abs(p[y + dy, x + dx] - p[y, x]) for p in pictures) ** 2
        return total

    return math.sqrt(energy(fused) / energy(ir, vis)) - 1


def plain_qte(ir, vis, fused, order=0.43137):
    def levels(picture):
        return np.floor((picture - picture.min()) / (picture.max() - picture.min()) * 255 + 0.5).astype(int)

    def information(a, b):
        total = 0.0
        pairs, counts = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1, return_counts=True)
        for (i, j), count in zip(pairs.T, counts, strict=True):
            total += (count / a.size) ** order * ((a == i).mean() * (b == j).mean()) ** (1 - order)
        return (1 - total) / (1 - order)

    def entropy(a):
        return (((np.unique(a, return_counts=True)[1] / a.size) ** order).sum() - 1) / (1 - order)

    ir, vis, fused = map(levels, (ir, vis, fused))
    shared = information(ir, fused) + information(vis, fused)
    return shared / (entropy(ir) + entropy(vis) - information(ir, vis))


def plain_qe(ir, vis, fused):
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(picture):
        return filtered(picture, window)[5:-5, 5:-5]

    def weighted(a, b, f):
        variances = [mean(p * p) - mean(p) ** 2 for p in (a, b, f)]
        scores = [
            (2 * mean(p) * mean(f) + 6.5025) * (2 * (mean(p * f) - mean(p) * mean(f)) + 58.5225)
            / ((mean(p) ** 2 + mean(f) ** 2 + 6.5025) * (variance + variances[2] + 58.5225))
            for p, variance in zip((a, b), variances, strict=False)
        ]  # fmt: skip
        share = variances[0] / (variances[0] + variances[1])
        weight = np.maximum(variances[0], variances[1])
        return (weight * (share * scores[0] + (1 - share) * scores[1])).sum() / weight.sum()

    prewitt = np.array([[1, 0, -1]] * 3)
    edges = [np.hypot(filtered(p, prewitt), filtered(p, prewitt.T)) for p in (ir, vis, fused)]
    return weighted(ir, vis, fused) * weighted(*edges)


def plain_edges(picture):
    """MATLAB's rule, pixel by pixel: beyond the border, a neighbour does not count."""
    padded = np.pad(picture, 1, mode="edge")
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    gx, gy = (abs(filtered(padded, kernel)[1:-1, 1:-1]) for kernel in (sobel, sobel.T))
    energy = gx**2 + gy**2
    cutoff = 4 * energy.mean()
    height, width = picture.shape
    edges = np.zeros(picture.shape)
    for y, x in product(range(height), range(width)):
        here = energy[y, x]
        along = gx[y, x] >= gy[y, x] and (x == 0 or energy[y, x - 1] <= here)
        along = along and (x == width - 1 or energy[y, x + 1] < here)
        across = gy[y, x] >= gx[y, x] and (y == 0 or energy[y - 1, x] <= here)
        across = across and (y == height - 1 or energy[y + 1, x] < here)
        edges[y, x] = here > cutoff and (along or across)
    return edges


def plain_fmi(source, fused):
    """Fast-FMI of one pair of windows of 9 values."""
    if (source == fused).all() or np.ptp(source) == np.ptp(fused) == 0:
        return 1.0
    p, q = (np.ones(9) if np.ptp(w) == 0 else (w - w.min()) / np.ptp(w) for w in (source, fused))
    p, q = p / p.sum(), q / q.sum()
    correlation = 0.0 if np.ptp(p) == 0 or np.ptp(q) == 0 else np.corrcoef(p, q)[0, 1]
    index = np.arange(9)
    spread = math.prod(math.sqrt(max((index**2 * r).sum() - (index * r).sum() ** 2, 0)) for r in (p, q))
    cp, cq = np.append(0, p.cumsum()), np.append(0, q.cumsum())
    bound = np.zeros((10, 10))
    for i, j in product(range(10), repeat=2):
        bound[i, j] = min(cp[i], cq[j]) if correlation >= 0 else max(cp[i] + cq[j] - 1, 0)
    covariance = (bound - np.outer(cp, cq)).sum()
    share = correlation * spread / covariance if abs(correlation) > 1e-12 and spread else 0.0
    joint = share * np.diff(np.diff(bound, axis=0), axis=1) + (1 - share) * np.outer(p, q)

    def entropy(values):
        values = values[values != 0]
        return -(values * np.log2(abs(values))).sum()

    marginal = entropy(p) + entropy(q)
    return 2 * (marginal - entropy(joint)) / marginal if marginal > 0 else 0.0


def plain_fmi_edge(ir, vis, fused):
    ir, vis, fused = map(plain_edges, (ir, vis, fused))
    values = []
    for y, x in product(range(fused.shape[0] - 2), range(fused.shape[1] - 2)):
        a, b, f = (p[y : y + 3, x : x + 3].T.ravel() for p in (ir, vis, fused))
        values.append((plain_fmi(a, f) + plain_fmi(b, f)) / 2)
    return np.mean(values)


PLAIN = {
    "QG": plain_qg,
    "QM": plain_qm,
    "QSF": plain_qsf,
    "QTE": plain_qte,
    "QE": plain_qe,
    "FMI-edge": plain_fmi_edge,
}


@pytest.mark.parametrize("key", PLAIN)
def test_agrees_with_plain_loops(triple, key):
    values = evaluate(*triple, metrics=key, convention="paper")[key]
    for index, value in enumerate(values.tolist()):
        assert value == pytest.approx(PLAIN[key](*(p[index, 0].double().numpy() for p in triple)), abs=1e-9)


def test_edges_are_thin_lines():
    step = torch.zeros(1, 1, 9, 12, dtype=torch.uint8)
    step[..., 6:] = 200
    edges = plain_edges(step[0, 0].double().numpy())
    assert edges[:, 6].all()
    assert edges.sum() == 9
    assert (_edges(step.double())[0, 0].numpy() == edges).all()
    assert float(evaluate(step, step, step, metrics="FMI-edge")["FMI-edge"]) == 1


@pytest.mark.parametrize("shape", [(1, 1), (5, 8), (61, 83)])
def test_meyer_transform_is_the_convolution_of_the_mirrored_picture(shape):
    picture = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    bands = meyer_transform(picture)[0, 0].numpy()
    mirrored = np.pad(picture[0, 0].numpy(), (60, 61), mode="symmetric")
    height, width = (side // 2 for side in bands.shape)
    assert (height, width) == tuple((side + 61) // 2 for side in shape)
    for (top, down), (left, across) in product(((0, _MEYER_LOW), (1, _MEYER_HIGH)), repeat=2):
        # Details of the rows lie to the right, those of the columns below, in MATLAB's order of both.
        band = bands[left * height :, top * width :][:height, :width]
        for y, x in product((0, height // 2, height - 1), (0, width // 2, width - 1)):
            window = mirrored[2 * y : 2 * y + 62, 2 * x : 2 * x + 62]
            assert band[y, x] == pytest.approx(np.array(down) @ window @ np.array(across), abs=1e-10)


def test_meyer_filters_are_those_of_pywavelets():
    wavelet = pytest.importorskip("pywt").Wavelet("dmey")
    assert wavelet.dec_lo[::-1] == list(_MEYER_LOW)
    assert wavelet.dec_hi[::-1] == list(_MEYER_HIGH)


def test_qe_parts(reference):
    """MetricsLab calls QE what is QW of the edges, without the factor of the pictures."""
    for name, value in reference.values("metricslab", "q_e_metric").items():
        ours = evaluate(*reference.triple(name), metrics="QW,QE")
        assert float(ours["QE"] / ours["QW"]) == pytest.approx(value, abs=1e-4)


def test_identical_pictures_are_perfect(triple):
    values = evaluate(triple[0], triple[0], triple[0], metrics="QM,QG,QSF,QE,QP,FMI-w,FMI-edge")
    for key, best in (("QM", 3), ("QSF", 0), ("QE", 1), ("FMI-w", 1), ("FMI-edge", 1)):
        assert values[key].tolist() == pytest.approx([best, best]), key
    assert (values["QG"] > 0.98).all()
    assert (values["QP"] > 0.9).all()


def test_what_is_undefined_in_the_toolkits():
    flat = torch.full((1, 1, 32, 40), 90, dtype=torch.uint8)
    noise = torch.randint(0, 256, (1, 1, 32, 40), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    values = evaluate(flat, flat, noise, metrics="QM,QSF,QP")
    assert 0 < float(values["QM"]) < 1
    assert float(values["QSF"]) == math.inf
    assert float(values["QP"]) == 0
    assert float(evaluate(noise, noise, flat, metrics="QP")["QP"]) == 0
    assert float(evaluate(flat, flat, flat, metrics="QTE", convention="paper")["QTE"]) == 0
    values = evaluate(flat, flat, flat, metrics="QM,QSF")
    assert (float(values["QM"]), float(values["QSF"])) == pytest.approx((3, 0))
