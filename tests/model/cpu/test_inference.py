"""The network by kernels against the same network by torch."""

import copy
import tracemalloc

import pytest
import torch

from diffmf_cli import scan
from diffmf_cli.model.network import Config, DiffMF

inference = pytest.importorskip("diffmf_cli.model.cpu.inference")


def made(config):
    """Random weights in which no bias and no gain is near zero."""
    torch.manual_seed(0)
    model = DiffMF(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gain_" in name or "bias" in name:
                parameter.normal_(0, 0.5)
        model.decoder.out.weight *= 20
    return model


def fuse(model, ir, vis):
    return inference.CpuInference(model)(ir, vis)


def plain(model, ir, vis):
    with torch.inference_mode(), scan.using("torch"):
        return model(ir, vis)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (Config(width=32, extraction=1), (150, 210)),
        (Config(width=16, d_state=3, expand=2), (150, 210)),
        (Config(width=48, extraction=1, expand=1.3), (50, 70)),  # widths that fill no whole lanes
        (Config(width=16, extraction=1), (20, 1500)),  # several tiles side by side
        (Config(width=32, extraction=1, expand=1.02), (50, 70)),  # two modalities fill more than twice one's
        (Config(width=16), (1, 1)),
    ],
    ids=str,
)
def test_agrees_with_torch(pictures, config, size):
    model = made(config)
    ir, vis = pictures(*size, batch=2)
    expected, got = plain(model, ir, vis), fuse(model, ir, vis)
    assert size == (1, 1) or expected.std() > 0.005
    assert 0 < (got - expected).abs().max() < 1e-5


@pytest.mark.parametrize("small", [2**16, 0], ids=["as small ones", "as large ones"])
def test_shipped_widths_agree_with_float64(pictures, monkeypatch, small):
    for limit in ("_KEPT_TOKENS", "_TOGETHER"):
        monkeypatch.setattr(inference, limit, small)
    model = made(Config(width=64, extraction=1))
    ir, vis = pictures(70, 90)
    got = fuse(model, ir, vis)
    double = copy.deepcopy(model).double()
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    exact = plain(double, ir.double(), vis.double())
    assert exact.dtype == torch.float64
    assert (exact - got.double()).abs().max() < 1e-5


@pytest.mark.parametrize("kept", [2**16, 2**11], ids=["as small ones", "as large ones"])
def test_does_not_depend_on_the_number_of_threads(network, pictures, kept, monkeypatch):
    for limit in ("_KEPT_TOKENS", "_TOGETHER"):
        monkeypatch.setattr(inference, limit, kept)
    monkeypatch.setattr(inference, "_NARROW", 0)
    ir, vis = pictures(300, 200)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(fuse(network, ir, vis))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_memory_of_a_large_picture(pictures, monkeypatch):
    """Bytes a pixel: 103 of maps, the rest is the border and what each thread needs, which grow slower."""
    for limit in ("_KEPT_TOKENS", "_TOGETHER"):  # as where a picture has more
        monkeypatch.setattr(inference, limit, 0)
    kernels = inference.CpuInference(made(Config(width=64, extraction=1)))
    ir, vis = pictures(792, 1000)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        tracemalloc.start()
        kernels(ir, vis)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        torch.set_num_threads(before)
    assert peak / ir.numel() < 110
