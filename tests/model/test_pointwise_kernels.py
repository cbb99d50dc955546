"""The fused kernels against the operations that they stand for, in float64."""

import pytest
import torch
from torch.nn import functional as F

from diffmf_cli import scan
from diffmf_cli.model.network import Config, Conv3x3, DiffMF

kernels = pytest.importorskip("diffmf_cli.model.pointwise_kernels")


@pytest.fixture
def made():
    g = torch.Generator().manual_seed(0)

    def make(*size, scale=1.0):
        return scale * torch.randn(size, generator=g)

    return make


def run(kernel, *arguments):
    kernel(*(t.numpy() if isinstance(t, torch.Tensor) else t for t in arguments))


def close(got, expected):
    """To 1e-6 of the largest value."""
    assert got.isfinite().all()
    return (got.double() - expected).abs().max() < 1e-6 * (1 + expected.abs().max())


@pytest.mark.parametrize("channels", [5, 16, 96])
def test_norm(made, channels):
    x, scale, shift, later = made(7, channels) + 3, made(channels), made(channels), made(channels)
    expected = F.layer_norm(x.double(), (channels,), scale.double(), shift.double())
    out, before = torch.empty_like(x), x.clone()
    run(kernels.norm, x, scale, shift, out)
    assert close(out, expected)
    assert torch.equal(x, before)
    out.zero_()
    run(kernels.norm_and_add, x, scale, shift, later, out)
    assert close(out, expected)
    assert torch.equal(x, before + later)


@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_gate(made, scale):
    y, z, bias, x, later = made(7, 24), made(7, 24, scale=scale), made(24), made(7, 16), made(16)
    weight, shift = made(24), made(24)
    expected = F.layer_norm(y.double(), (24,), weight.double(), shift.double())
    expected = expected * F.silu((z + bias).double())
    added = x + later
    run(kernels.gate, y, z, bias, weight, shift, x, later)
    assert close(y, expected)
    assert torch.equal(x, added)


def test_gelu(made):
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([0.0, -100.0, 100.0])])[None].contiguous()
    bias = made(x.shape[1])
    expected = F.gelu((x + bias).double())
    run(kernels.gelu, x, bias)
    assert (x.double() - expected).abs().max() < 2e-6


def test_guide(made):
    own, guidance = made(9, 16), made(9, 32, scale=5)
    gate, rest = guidance.double().chunk(2, 1)
    expected = own.double() * (1 + torch.sigmoid(gate)) + torch.sigmoid(gate) * rest
    run(kernels.guide, own, guidance)
    assert close(own, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1), (5, 7)])
@pytest.mark.parametrize(("above", "below"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_depthwise_silu(made, size, above, below):
    h, w = size
    conv = Conv3x3(24, 24, groups=24).requires_grad_(False)
    x, out = made(h + above + below, w, 24), torch.empty(h, w, 24)
    expected = conv.double()(x.double().permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    expected = F.silu(expected[above : above + h])
    weight, bias = conv.weight.float().view(24, 9).t().contiguous(), conv.bias.float()
    run(kernels.depthwise_silu, x, weight, bias, above, below, out)
    assert close(out, expected)


@pytest.mark.parametrize("config", [Config(width=32, extraction=1), Config(width=16, d_state=3, expand=2)])
def test_network_is_the_same_with_and_without(pictures, config):
    torch.manual_seed(0)
    model = DiffMF(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gain_" in name or "bias" in name:
                parameter.normal_(0, 0.5)
        model.decoder.out.weight *= 20
    ir, vis = pictures(150, 210, batch=2)
    with torch.inference_mode():
        with scan.using("torch"):
            expected = model(ir, vis)
        with scan.using("numba"):
            got = model(ir, vis)
    assert expected.std() > 0.01
    assert 0 < (got - expected).abs().max() < 1e-5
