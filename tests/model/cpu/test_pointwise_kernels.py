"""The fused kernels against the operations that they stand for, in float64."""

import pytest
import torch
from torch.nn import functional as F

kernels = pytest.importorskip("diffmf_cli.model.cpu.pointwise_kernels")


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


@pytest.mark.parametrize("channels", [16, 48, 96])
def test_norm(made, channels):
    x, scale, shift = made(7, channels) + 3, made(channels), made(channels)
    expected = F.layer_norm(x.double(), (channels,), scale.double(), shift.double())
    out, before = torch.empty_like(x), x.clone()
    run(kernels.norm, x, scale, shift, out)
    assert close(out, expected)
    assert torch.equal(x, before)


@pytest.mark.parametrize("scale", [1.0, 200.0])
@pytest.mark.parametrize("channels", [32, 24, 17])
def test_gate(made, scale, channels):
    y, z = made(7, 32) + 1, made(7, 32, scale=scale)
    weight, shift = made(32), made(32)
    for t in (y, weight, shift):
        t[..., channels:] = 0
    weight, shift = weight[:channels], shift[:channels]
    expected = F.layer_norm(y[:, :channels].double(), (channels,), weight.double(), shift.double())
    expected = expected * F.silu(z[:, :channels].double())
    run(kernels.gate, y, z, weight, shift)
    assert close(y[:, :channels], expected)
    assert (y[:, channels:] == 0).all()


def test_a_token_does_not_depend_on_its_neighbours(made):
    x, z, scale, shift = made(11, 48), made(11, 48), made(48), made(48)
    whole, alone = torch.empty_like(x), torch.empty_like(x)
    gated, alone_gated = x.clone(), x.clone()
    run(kernels.norm, x, scale, shift, whole)
    run(kernels.gate, gated, z, scale, shift)
    for first, last in ((0, 1), (1, 6), (6, 11)):
        run(kernels.norm, x[first:last], scale, shift, alone[first:last])
        run(kernels.gate, alone_gated[first:last], z[first:last], scale, shift)
    assert torch.equal(alone, whole)
    assert torch.equal(alone_gated, gated)


def test_gelu():
    x = torch.cat([torch.linspace(-12, 12, 4093), torch.tensor([0.0, -100.0, 100.0])]).view(2, -1)
    expected, bound = F.gelu(x.double()), 2e-7 * (1 + x.abs())
    run(kernels.gelu, x)
    assert ((x.double() - expected).abs() < bound).all()


def test_leaky_relu_and_sigmoid():
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([0.0, -100.0, 100.0])])
    for kernel, plain in (
        (kernels.leaky_relu, lambda t: F.leaky_relu(t, 0.1)),
        (kernels.sigmoid, torch.sigmoid),
    ):
        got = x.clone()
        run(kernel, got)
        assert close(got, plain(x.double()))


def test_guide(made):
    own, guidance = made(9, 16), made(9, 32, scale=5)
    gate, rest = guidance.double().chunk(2, 1)
    expected = own.double() * (1 + torch.sigmoid(gate)) + torch.sigmoid(gate) * rest
    run(kernels.guide, own, guidance)
    assert close(own, expected)


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("smooth", [False, True])
def test_depthwise(made, first, smooth):
    rows = made(3, 9, 48)  # their last 16 channels are something else
    weight, bias, out = made(9, 32), made(32), torch.empty(9 - 1 - first, 32)
    window = rows[:, first - 1 :, :32].permute(2, 0, 1)[None].double()
    expected = F.conv2d(window, weight.t().reshape(32, 1, 3, 3).double(), bias.double(), groups=32)
    expected = expected[0, :, 0].t()
    kernel = kernels.depthwise_silu if smooth else kernels.depthwise
    run(kernel, *rows, first, weight, bias, out)
    assert close(out, F.silu(expected) if smooth else expected)
