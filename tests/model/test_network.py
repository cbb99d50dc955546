"""The architecture: what holds for any weights."""

import numpy as np
import pytest
import torch

from diffmf_cli import scan
from diffmf_cli.errors import WeightsError
from diffmf_cli.model.network import (
    SIZES,
    ChannelExchange,
    Config,
    DifferenceGuidedExtraction,
    DiffMF,
    doubled_by_slices,
)


def fuse(network, ir, vis, **options):
    with torch.inference_mode():
        return network(ir, vis, **options)


def difference(a, b):
    return (a - b).abs().max().item()


@pytest.mark.parametrize(
    "size",
    [(1, 1), (1, 2), (1, 40), (40, 1), (2, 2), (3, 17), (17, 3), (16, 16), (33, 47), (480, 640)],
    ids=str,
)
def test_any_size(network, pictures, size):
    ir, vis = pictures(*size)
    before = ir.clone(), vis.clone()
    fused = fuse(network, ir, vis)
    assert fused.shape == (1, 1, *size)
    assert fused.dtype == torch.float32
    assert fused.is_contiguous()
    assert 0 <= fused.min() <= fused.max() <= 1
    assert torch.equal(ir, before[0])
    assert torch.equal(vis, before[1])


def test_the_test_network_is_not_near_constant(network, pictures):
    assert fuse(network, *pictures(64, 64)).std() > 0.05


@pytest.mark.parametrize(
    ("size", "tile"), [((100, 75), 16), ((33, 170), 40), ((200, 64), 64), ((7, 300), 64)]
)
def test_strips_give_the_whole(network, pictures, size, tile):
    ir, vis = pictures(*size, batch=2)
    assert difference(fuse(network, ir, vis, tile=tile), fuse(network, ir, vis)) < 1e-5


def test_does_not_depend_on_batch_neighbours(network, pictures):
    ir, vis = pictures(50, 70, batch=3)
    together = fuse(network, ir, vis)
    other_ir, other_vis = (torch.cat([t[:1], 1 - t[1:]]) for t in (ir, vis))
    assert torch.equal(fuse(network, other_ir, other_vis)[0], together[0])
    for i in range(3):
        assert difference(fuse(network, ir[i : i + 1], vis[i : i + 1]), together[i : i + 1]) < 1e-5


def test_same_bytes_again(network, pictures):
    ir, vis = pictures(48, 64)
    random = np.random.default_rng(0)
    first = fuse(network, ir, vis)
    between = []
    for _ in range(20):
        between.append(np.empty(random.integers(1, 200_000), np.uint8))  # arrays lie elsewhere each time
        assert torch.equal(fuse(network, ir.clone(), vis.clone()), first)


def test_training_runs_the_same_network(network, pictures):
    ir, vis = pictures(50, 70, batch=2)
    with torch.enable_grad():
        trained = network(ir.requires_grad_(), vis)
    assert trained.requires_grad
    assert difference(fuse(network, ir.detach(), vis), trained.detach()) < 1e-5


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_backends_agree(network, pictures, backend):
    ir, vis = pictures(40, 52)
    with scan.using(backend):
        forced = fuse(network, ir, vis)
    assert difference(fuse(network, ir, vis), forced) < 1e-5


def test_agrees_with_float64(network, pictures, monkeypatch):
    ir, vis = pictures(48, 64)
    fused = fuse(network, ir, vis)
    double = DiffMF(network.config).eval().double()
    double.load_state_dict(network.state_dict())
    # Where the network asks for float32 it means "not less": in float64 all of it shall be float64.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    exact = fuse(double, ir.double(), vis.double())
    assert exact.dtype == torch.float64
    assert difference(exact, fused.double()) < 1e-4


def test_gradients_reach_every_parameter(pictures):
    torch.manual_seed(0)
    model = DiffMF(Config(width=16, extraction=2, d_state=2))
    model(*pictures(48, 48, batch=2)).pow(2).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("size", "least", "most"), [("lite", 200_000, 400_000), ("base", 800_000, 1_500_000)]
)
def test_parameter_counts(size, least, most):
    assert least < sum(p.numel() for p in DiffMF(SIZES[size]).parameters()) < most


@pytest.fixture
def features():
    g = torch.Generator().manual_seed(3)
    return torch.randn(1, 6, 5, 16, generator=g), torch.randn(1, 6, 5, 16, generator=g)


@pytest.fixture
def exchange(features):
    """`ChannelExchange` and what it gives after rows of VIS' projection to (z, x, B, C, Delta) changed."""
    torch.manual_seed(0)
    block = ChannelExchange(Config(width=16)).requires_grad_(False)
    starts = np.cumsum([0, *block.sizes])
    rows = {name: slice(*starts[i : i + 2]) for i, name in enumerate(("z", "x", "B", "C", "Delta"))}

    def changed(part):
        saved = block.in_proj["vis"].weight.clone()
        block.in_proj["vis"].weight[rows[part]] *= 2
        result = block(*features)
        block.in_proj["vis"].weight.copy_(saved)
        return result

    return block, changed


@pytest.mark.parametrize("part", ["B", "C"])
def test_channel_exchange_swaps_b_and_c(exchange, features, part):
    block, changed = exchange
    ir, vis = block(*features)
    other_ir, other_vis = changed(part)
    assert difference(other_ir, ir) > 1e-5
    assert torch.equal(other_vis, vis)


@pytest.mark.parametrize("part", ["z", "x", "Delta"])
def test_channel_exchange_keeps_the_rest(exchange, features, part):
    block, changed = exchange
    ir, vis = block(*features)
    other_ir, other_vis = changed(part)
    assert torch.equal(other_ir, ir)
    assert difference(other_vis, vis) > 1e-5


def test_channel_exchange_does_not_grow_with_the_picture(exchange, features):
    block, _ = exchange
    small = block(*features)
    large = block(*(t.repeat(1, 4, 4, 1) for t in features))
    for s, big in zip(small, large, strict=True):
        # Inside, away from the border of the depthwise convolution, the same tokens give the same result.
        assert difference(big[:, 7:11, 6:9], s[:, 1:5, 1:4]) < 0.05 * s.abs().max()


def test_difference_is_signed_and_guides_both(features):
    torch.manual_seed(0)
    block = DifferenceGuidedExtraction(Config(width=16)).requires_grad_(False)
    seen = {}
    for modality in ("ir", "vis"):
        block.guide[modality].register_forward_hook(
            lambda _module, inputs, _output, modality=modality: seen.update({modality: inputs[0].clone()})
        )
    block.spread.bias.zero_()
    with torch.no_grad():
        block(*(t.clone() for t in features))
        assert seen["ir"].abs().max() > 1e-3
        assert torch.equal(seen["ir"], -seen["vis"])
        block(features[0].clone(), features[0].clone())
    assert seen["ir"].abs().max() < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 4)])
def test_doubling_for_training_is_bilinear(size):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(doubled_by_slices(x), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("wrong", [{}, {"width": 64}, {"depth": 3}, "more", "text", "narrow", "none", "wide"])
def test_wrong_configuration(wrong):
    values = {
        "more": Config().to_dict() | {"more": 1},
        "text": Config().to_dict() | {"width": "64"},
        "narrow": Config().to_dict() | {"width": 20},
        "none": Config().to_dict() | {"extraction": 0},
        "wide": Config().to_dict() | {"expand": float("inf")},
    }
    with pytest.raises(WeightsError, match="not a DIFF-MF configuration"):
        Config.from_dict(wrong if isinstance(wrong, dict) else values[wrong])


def test_configuration_round_trip():
    config = Config(width=48, extraction=3, d_state=4, expand=2.0)
    assert Config.from_dict(config.to_dict()) == config
