"""The network as Triton kernels against the network itself, in float64."""

import numpy as np
import pytest
import torch

INTERPRETED = """
from copy import deepcopy

import torch
from diffmf_cli import scan
from diffmf_cli.model.cuda import inference
from diffmf_cli.model.network import SS2D, Config, DiffMF
from diffmf_cli.scan import triton_scan

torch.manual_seed(0)
triton_scan.SEGMENT = 4
network = DiffMF(Config(width=16, extraction=1)).eval().requires_grad_(False)
for name, parameter in network.named_parameters():
    if "gain_" in name:
        parameter.fill_(1.0)
    elif "guide" in name:
        parameter.normal_(0, 0.3)
    elif name.endswith("bias") or "norm" in name:
        parameter.add_(0.1 * torch.randn_like(parameter))
network.decoder.out.weight *= 20
pictures = torch.rand(2, 2, 7, 20)
ir, vis = pictures[:, :, None]


def results():
    # Loud scans go beyond 65,504, the end of 16 bits: LayerNorm follows, so nothing holds them down.
    for loudness in (1, 2000):
        with torch.no_grad():
            for block in network.modules():
                if isinstance(block, SS2D):
                    block.select.weight[block.rank :] *= loudness
        made = []
        for dtype, count, inference._TOGETHER in ((torch.float32, 2, 2**16), (torch.float16, 1, 0)):
            fast = inference.CudaInference(network, dtype)
            made.append(fast.launch_all(pictures[:, :count].contiguous()))
        yield deepcopy(network), made


made = list(results())
torch.Tensor.float = torch.Tensor.double  # where the network asks for float32 it means "not less"
for number, (network, (got, half)) in enumerate(made):
    peaks = []
    for block in network.modules():
        if isinstance(block, SS2D):
            block.norm.register_forward_pre_hook(lambda _, given: peaks.append(given[0].abs().max().item()))
    with torch.inference_mode(), scan.using("torch"):
        expected = network.double()(ir.double(), vis.double())[:, 0]
    assert (max(peaks) > 65504) == bool(number), peaks
    assert expected.max() - expected.min() > 0.3
    assert (got - expected).abs().max() < 2e-6, (number, (got - expected).abs().max())
    assert (half - expected[:1]).abs().max() < 2e-3, (number, (half - expected[:1]).abs().max())
print("agreed")
"""


def test_kernels_by_the_interpreter(by_triton_interpreter):
    by_triton_interpreter(INTERPRETED)


@pytest.fixture(scope="module")
def cuda():
    """The module under test, where there is CUDA."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("triton")
    from diffmf_cli.model.cuda import inference

    return inference


@pytest.fixture(scope="module")
def network(cuda):
    """The shipped `base` on CUDA."""
    import diffmf_cli

    return diffmf_cli.load_model("base", device="cuda", precision="fp32")._network


def exact(network, ir, vis, monkeypatch):
    from diffmf_cli import scan
    from diffmf_cli.model.network import DiffMF

    double = DiffMF(network.config).eval().double()
    double.load_state_dict(network.state_dict())
    with monkeypatch.context() as patch, torch.inference_mode(), scan.using("torch"):
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        return double(ir.double(), vis.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("size", [(2, 101, 135), (1, 33, 17), (3, 5, 1)], ids=str)
@pytest.mark.parametrize("together", [2**16, 0], ids=["a stage's maps together", "apart"])
def test_agrees_with_float64(cuda, network, pictures, monkeypatch, size, dtype, together):
    monkeypatch.setattr(cuda, "_TOGETHER", together)
    batch, h, w = size
    ir, vis = pictures(h, w, batch)
    expected = exact(network, ir, vis, monkeypatch)
    fast = cuda.CudaInference(network, dtype)
    results = [fast(ir.cuda(), vis.cuda()).cpu() for _ in range(3)]
    assert torch.equal(results[0], results[2]), "a graph computes what single launches do"
    error = (results[0] - expected).abs().max().item()
    assert error < (1e-4 if dtype == torch.float32 else 2e-3)
    # One grey level of 255 at most, whatever rounding does.
    assert ((results[0] * 255).round() - (expected * 255).round()).abs().max() <= 1


def test_results_outlive_the_next_call(cuda, network, pictures):
    fast = cuda.CudaInference(network, torch.float16)
    first = [t.cuda() for t in pictures(40, 50, seed=0)]
    second = [t.cuda() for t in pictures(40, 50, seed=1)]
    kept = [fast(*pair) for pair in (first, second, first, second)]
    assert torch.equal(kept[0], kept[2])
    assert torch.equal(kept[1], kept[3])
    assert not torch.equal(kept[0], kept[1])


def test_graphs_of_old_sizes_go(cuda, network, pictures, monkeypatch):
    monkeypatch.setattr(cuda, "_GRAPHS", 2)
    fast = cuda.CudaInference(network, torch.float16)
    results = {}
    for _ in range(2):
        for side in (24, 40, 56):
            pair = [t.cuda() for t in pictures(side, side)]
            for _ in range(2):
                result = fast(*pair)
            assert len(fast._graphs) <= 2
            assert torch.equal(result, results.setdefault(side, result))


def test_two_fusers_of_one_process(cuda, scene):
    import diffmf_cli

    models = [diffmf_cli.load_model(name, device="cuda", precision="fp32") for name in ("base", "lite")]
    results = [[model.fuse(*scene) for model in models] for _ in range(3)]
    for model, fused in zip(models, results[0], strict=True):
        plain = diffmf_cli.load_model(model.name, device="cuda", precision="fp32", tile=64)
        assert np.abs(fused.astype(int) - plain.fuse(*scene)).max() <= 1
    assert np.array_equal(results[0][0], results[2][0])
    assert np.array_equal(results[0][1], results[2][1])


def test_other_scans_run_the_network_itself(cuda, scene):
    import diffmf_cli

    model = diffmf_cli.load_model("base", device="cuda", scan_backend="torch")
    assert model._fused_kernels is None
    assert model.precision == "fp32"
    automatic = diffmf_cli.load_model("base", device="cuda")
    assert automatic.precision == "fp16"
    difference = np.abs(model.fuse(*scene).astype(int) - automatic.fuse(*scene))
    assert difference.max() <= 1


def test_a_call_on_another_stream_waits_for_the_one_before(monkeypatch):
    pytest.importorskip("triton")
    from diffmf_cli.model.cuda.inference import CudaInference

    waits = []

    class Stream:
        def wait_stream(self, other):
            waits.append((self, other))

    first, second = Stream(), Stream()
    inference = CudaInference.__new__(CudaInference)
    inference._stream = None
    for stream in (first, first, second, second, first):
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device, stream=stream: stream)
        inference._follow(torch.device("cuda"))
    assert waits == [(second, first), (first, second)]
