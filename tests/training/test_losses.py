"""Each term against its formula in numpy, and against what it is there for."""

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from diffmf_cli.metrics.functional import evaluate
from diffmf_cli.model.network import Config, DiffMF
from diffmf_cli.training.losses import (
    contrast_loss,
    darkness_loss,
    difference_loss,
    edge_loss,
    fusion_loss,
    intensity_target,
    sobel,
    ssim_loss,
    vif_loss,
)
from diffmf_cli.training.recipe import Loss


@pytest.fixture
def pictures():
    """Fused, IR and VIS, `(3, 1, 48, 56)` each: related, rough and smooth."""
    g = torch.Generator().manual_seed(0)

    def smooth(cells):
        coarse = torch.rand(3, 1, cells, cells, generator=g)
        return torch.nn.functional.interpolate(coarse, (48, 56), mode="bicubic").clamp(0, 1)

    ir, vis = smooth(6), (smooth(9) + 0.1 * torch.randn(3, 1, 48, 56, generator=g)).clamp(0, 1)
    fused = (torch.maximum(ir, vis) + 0.05 * torch.randn(3, 1, 48, 56, generator=g)).clamp(0, 1)
    return fused, ir, vis


def plain(t):
    return t[:, 0].double().numpy()


def agrees(got, expected):
    np.testing.assert_allclose(got.numpy(), expected, rtol=2e-3, atol=1e-5)


def test_ssim_formula(pictures):
    fused, ir, _ = pictures
    c1, c2 = 3e-3, 1e-4
    x, y = (sliding_window_view(plain(t), (7, 7), (1, 2)) for t in (fused, ir))
    mx, my, vx, vy = x.mean((-1, -2)), y.mean((-1, -2)), x.var((-1, -2)), y.var((-1, -2))
    covariance = (x * y).mean((-1, -2)) - mx * my
    ssim = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    weight = 0.2 + 0.8 * vy / (vy + 6e-5)
    agrees(ssim_loss(fused, ir, c2, c1, 0.2), (weight * (1 - ssim)).mean((1, 2)))


def test_vif_formula(pictures):
    fused, ir, _ = pictures

    def blurred(t, side):
        at = np.arange(side) - (side - 1) / 2
        taps = np.exp(-(at**2) / (2 * (side / 5) ** 2))
        window = np.outer(taps, taps) / taps.sum() ** 2
        return (sliding_window_view(t, (side, side), (1, 2)) * window).sum((-1, -2))

    x, y = plain(ir) * 255, plain(fused) * 255
    kept, total, count = np.zeros(3), np.zeros(3), 0
    for scale, side in enumerate((17, 9, 5, 3)):
        if scale:
            x, y = (blurred(t, side)[:, ::2, ::2] for t in (x, y))
        mx, my = blurred(x, side), blurred(y, side)
        vx, vy = blurred(x * x, side) - mx**2, blurred(y * y, side) - my**2
        covariance = blurred(x * y, side) - mx * my
        gain = np.maximum(covariance / (vx + 1e-4), 0)
        rest = np.maximum(vy - gain * covariance, 1e-4)
        kept += np.log1p(gain**2 * vx / (rest + 2)).sum((1, 2))
        total += np.log1p(vx / 2).sum((1, 2))
        count += vx[0].size
    agrees(vif_loss(fused, ir), (1 - kept / total) * total / (total + 0.3 * count))


def test_difference_formula(pictures):
    fused, ir, vis = pictures
    expected = []
    for f, i, v in zip(*map(plain, (fused, ir, vis)), strict=True):
        correlation = np.corrcoef((f - v).ravel(), i.ravel())[0, 1]
        expected.append((1 - correlation) * i.var() / (i.var() + 4e-4))
    agrees(difference_loss(fused, ir, vis), expected)


def test_edge_formula(pictures):
    fused, ir, _ = pictures
    expected = []
    for f, i in zip(plain(fused), plain(ir), strict=True):
        (fx, fy), (sx, sy) = (sobel(torch.from_numpy(t)[None, None])[0].numpy() for t in (f, i))
        strength, wanted = np.sqrt(fx**2 + fy**2 + 25e-8), np.sqrt(sx**2 + sy**2 + 25e-8)
        ratio = np.minimum(strength / wanted, wanted / strength)
        lengths = np.hypot(fx, fy) * np.hypot(sx, sy)
        cosine = np.where(lengths > 0, np.abs(fx * sx + fy * sy) / lengths.clip(1e-12), 1)
        alignment = 1 - np.arccos(cosine.clip(0, 1)) / (np.pi / 2)
        kept = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5))) * 0.9879 / (1 + np.exp(-22 * (alignment - 0.8)))
        weight = wanted.mean() / (wanted.mean() + 1e-3)
        expected.append((1 - (kept * wanted).sum() / wanted.sum()) * weight)
    agrees(edge_loss(fused, ir), expected)


def test_edges_follow_qabf(pictures):
    """The term falls where the metric of one source alone rises."""
    fused, ir, vis = pictures
    levels = [(t * 255).round() for t in (ir, vis)]
    for share in (0.0, 0.3, 0.6):
        mixed = share * ir + (1 - share) * fused
        values = evaluate(*levels, (mixed * 255).round(), metrics="Qabf")["Qabf.ir"]
        nearer = mixed + 0.1 * (ir - mixed)
        better = evaluate(*levels, (nearer * 255).round(), metrics="Qabf")["Qabf.ir"]
        assert ((edge_loss(nearer, ir) < edge_loss(mixed, ir)) == (better > values)).all()


def test_edges_of_two_constants_have_a_gradient():
    flat = torch.full((1, 1, 48, 48), 0.4, requires_grad=True)
    edge_loss(flat, torch.full((1, 1, 48, 48), 0.7)).sum().backward()
    assert torch.isfinite(flat.grad).all()


def test_sobel_of_a_ramp_is_its_slope():
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(11.0), indexing="ij")
    gradient = sobel((0.3 * x - 0.2 * y)[None, None])
    assert gradient.shape == (1, 2, 9, 11)
    torch.testing.assert_close(gradient[0, 0, 1:-1, 1:-1], torch.full((7, 9), 0.3))
    torch.testing.assert_close(gradient[0, 1, 1:-1, 1:-1], torch.full((7, 9), -0.2))


def test_sum_of_the_terms(pictures):
    fused, ir, vis = pictures
    weights = Loss(
        intensity=2,
        gradient=3,
        ssim=5,
        vif=7,
        edges=6,
        difference=11,
        darkness=13,
        contrast=9,
        sum_share=0.25,
    )
    loss, terms = fusion_loss(fused, ir, vis, weights)
    assert set(terms) == {name for name, weight in vars(weights).items() if weight} - CONSTANTS
    assert loss.item() == pytest.approx(
        sum(getattr(weights, k) * v.item() for k, v in terms.items()), rel=1e-5
    )
    ssim = [ssim_loss(fused, s, weights.stability, weights.luminance, weights.flat) for s in (ir, vis)]
    expected = 0.75 * torch.maximum(*ssim).mean() + 0.25 * torch.stack(ssim).mean()
    assert terms["ssim"].item() == pytest.approx(expected.item(), rel=1e-5)
    f, i, v = map(plain, (fused, ir, vis))
    assert terms["intensity"].item() == pytest.approx(np.abs(f - np.maximum(i, v)).mean(), rel=1e-5)


def test_gradient_keeps_the_sign_of_the_stronger_edge():
    ir = torch.full((1, 1, 48, 48), 0.5)
    vis = ir.clone()
    ir[..., 24:] = 0.1  # falls, and more than VIS rises
    vis[..., 24:] = 0.7
    weights = Loss(gradient=1)
    follows = fusion_loss(ir, ir, vis, weights)[1]["gradient"]
    mirrored = fusion_loss(1 - ir, ir, vis, weights)[1]["gradient"]
    assert follows < 1e-7
    assert mirrored > 0.005


def test_weight_of_zero_leaves_a_term_out(pictures):
    _, terms = fusion_loss(*pictures, Loss(ssim=0, vif=0, difference=0))
    assert {"ssim", "vif", "difference"}.isdisjoint(terms)


def test_perfect_result(pictures):
    _, ir, vis = pictures
    for source in (ir, vis):
        assert ssim_loss(source, source, 1e-4, 1e-5, 0.2).abs().max() < 1e-5
        assert vif_loss(source, source).abs().max() < 1e-3
        assert difference_loss(ir + vis, source, ir + vis - source).abs().max() < 1e-5
    loss, terms = fusion_loss(ir, ir, ir.clone(), Loss(difference=0))
    assert all(value.abs() < 1e-3 for value in terms.values())
    assert loss < 0.01
    assert torch.equal(intensity_target(ir, vis), torch.maximum(ir, vis))


@pytest.mark.parametrize("damage", ["noise", "blur", "contrast"])
def test_grows_with_damage(pictures, damage):
    _, ir, vis = pictures
    perfect = torch.maximum(ir, vis)
    noise = torch.randn(perfect.shape, generator=torch.Generator().manual_seed(1))
    blurred = torch.nn.functional.avg_pool2d(perfect, 9, 1, 4, count_include_pad=False)
    mean = perfect.mean((2, 3), keepdim=True)
    towards = {"noise": perfect + 0.3 * noise, "blur": blurred, "contrast": mean.expand_as(perfect)}[damage]
    losses = [fusion_loss(perfect + s * (towards - perfect), ir, vis, Loss())[0] for s in (0, 0.3, 0.6, 1)]
    assert losses == sorted(losses)
    assert losses[-1] > 1.2 * losses[0]


def test_the_worse_source_counts(pictures):
    _, ir, vis = pictures
    weights = Loss(sum_share=0.0)
    copy = fusion_loss(ir, ir, vis, weights)[1]
    both = fusion_loss((ir + vis) / 2, ir, vis, weights)[1]
    for name in ("ssim", "vif", "difference"):
        assert copy[name] > both[name], name


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("which", ["ir", "vis", "both", "all"])
def test_constant_sources_give_finite_losses_and_gradients(pictures, which, level):
    fused, ir, vis = pictures
    flat = torch.full_like(ir, level)
    ir, vis = (flat if which in (name, "both", "all") else t for name, t in (("ir", ir), ("vis", vis)))
    fused = (flat if which == "all" else fused).clone().requires_grad_()
    loss, terms = fusion_loss(fused, ir, vis, Loss())
    (gradient,) = torch.autograd.grad(loss, fused)
    assert all(value.isfinite() for value in terms.values())
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1


CONSTANTS = {"sum_share", "flat", "stability", "luminance"}

# With every term, and the constants of the shipped recipe: its stability is the smallest.
EVERY_TERM = Loss(edges=20, darkness=300, contrast=250, flatness=200, stability=1.5e-6, flat=0.4)


@pytest.fixture
def extremes():
    """`(5, 1, 48, 48)`: black, white, checkered, mostly saturated, next to flat."""
    noise = torch.randn(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    line = torch.arange(48)
    checkered = ((line[:, None] + line) % 2).float()[None]
    black = torch.zeros(1, 48, 48)
    return torch.stack([black, black + 1, checkered, (5 * noise[0]).clamp(0, 1), 0.5 + 1e-6 * noise[1]])


def test_extreme_pictures_give_finite_gradients(extremes):
    index = torch.cartesian_prod(*[torch.arange(len(extremes))] * 3)
    fused, ir, vis = (extremes[i] for i in index.T)
    fused = fused.clone().requires_grad_()
    loss, terms = fusion_loss(fused, ir, vis, EVERY_TERM)
    assert set(terms) == set(vars(EVERY_TERM)) - CONSTANTS
    assert all(value.isfinite() for value in terms.values())
    (gradient,) = torch.autograd.grad(loss * len(fused), fused)
    assert gradient.isfinite().all()
    assert gradient.flatten(1).norm(dim=1).max() < 1e5


@pytest.mark.parametrize("mixed", [False, True])
def test_extreme_pictures_give_weights_finite_gradients(extremes, mixed):
    torch.manual_seed(0)
    model = DiffMF(Config(width=16, extraction=1))
    index = torch.cartesian_prod(*[torch.arange(len(extremes))] * 2)
    ir, vis = (extremes[i] for i in index.T)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        fused = model.fuse_padded(ir, vis)
    loss, _ = fusion_loss(fused.float(), ir, vis, EVERY_TERM)
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name


def test_a_black_source_asks_for_next_to_nothing(pictures):
    _, ir, _ = pictures
    terms = fusion_loss(ir, ir, torch.zeros_like(ir), Loss())[1]
    assert terms["ssim"] < 0.25
    assert terms["vif"] < 0.02
    assert terms["difference"] < 0.02


def test_flatness_counts_for_two_constants_only(pictures):
    fused, ir, _ = pictures
    constant = torch.full_like(ir, 0.4)
    weights = Loss(flatness=1)
    away = (fused - 0.4).abs().mean()
    assert fusion_loss(fused, constant, constant / 2, weights)[1]["flatness"] == pytest.approx(float(away))
    white = torch.ones_like(ir)
    assert fusion_loss(white, constant, constant / 2, weights)[1]["flatness"] == pytest.approx(0.6)
    assert fusion_loss(constant, constant, constant / 2, weights)[1]["flatness"] == pytest.approx(0, abs=1e-6)
    assert fusion_loss(fused, ir, constant, weights)[1]["flatness"] == 0


def test_darkness_formula(pictures):
    fused, _, vis = pictures
    f, v = (sliding_window_view(plain(t), (7, 7), (1, 2)).mean((-1, -2)) for t in (fused / 3, vis))
    expected = np.maximum(v / 2 - f, 0).mean()
    assert expected > 0.01
    agrees(darkness_loss(fused / 3, vis), expected)


def test_edges_and_marks_may_be_dark():
    vis = torch.full((1, 1, 48, 48), 0.8)
    fused = vis.clone()
    fused[..., ::4] = 0
    assert darkness_loss(fused, vis) == 0


def test_contrast_formula(pictures):
    fused, ir, vis = pictures
    f, i, v = (
        np.sqrt(sliding_window_view(plain(t), (7, 7), (1, 2)).var((-1, -2)) + 1e-6)
        for t in (fused / 4, ir, vis)
    )
    expected = np.maximum(np.maximum(i, v) / 2 - f, 0).mean()
    assert expected > 0.01
    agrees(contrast_loss(fused / 4, ir, vis), expected)


def test_a_source_without_contrast_asks_for_none(pictures):
    _, ir, _ = pictures
    assert contrast_loss(ir / 2, ir, torch.zeros_like(ir)) == pytest.approx(0, abs=1e-3)
    assert contrast_loss(ir * 0.4 + 0.6, ir, torch.ones_like(ir)) > contrast_loss(ir, ir, torch.ones_like(ir))
