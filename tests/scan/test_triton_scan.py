"""The logic of the Triton kernels on a machine without CUDA, by Triton's own interpreter."""

import sys
from types import SimpleNamespace

import pytest
import torch

from diffmf_cli.scan import reference, torch_scan, triton_scan

# Chunks of 8 tokens: several programs, a ragged last chunk, lines shorter than a chunk, lanes that are not
# full, more than one block of them, and B and C where a projection leaves them.
TRAINING = """
import torch
from diffmf_cli.scan import reference, triton_scan

torch.manual_seed(0)
names = "y", "x", "delta", "A", "B", "C", "D", "delta_bias"
cases = ((2, 5, 7, 5), 1, 0), ((1, 1, 67, 3), 1, 3), ((1, 19, 1, 17), 2, 0), ((1, 1, 1, 1), 4, -2)
for shape, n, shift in (*cases, ((3, 2, 3, 32), 1, 0)):
    x, delta = torch.randn(2, *shape)
    A, D, bias = -torch.rand(shape[3], n) - 0.5, torch.randn(shape[3]), torch.randn(shape[3]) - 3 + shift
    projected = torch.randn(*shape[:3], 2 * n + 1)
    weight = torch.randn(shape)
    results = []
    for module, dtype in ((triton_scan, torch.float32), (reference, torch.float64)):
        leaves = [t.to(dtype).requires_grad_() for t in (x, delta, A, D, bias, projected)]
        x_, delta_, A_, D_, bias_, projected_ = leaves
        _, B_, C_ = projected_.split([1, n, n], -1)
        y = module.selective_scan_2d(x_, delta_, A_, B_, C_, D_, bias_)
        wanted = (x_, delta_, A_, B_, C_, D_, bias_)
        results.append([y, *torch.autograd.grad((y * weight.to(dtype)).sum(), wanted)])
    for name, got, expected in zip(names, *results):
        error = ((got - expected).abs().max() / expected.abs().max()).item()
        assert error < (1e-5 if name == "y" else 1e-4), (shape, n, name, error)
print("agreed")
"""

# What `torch.compile` asks of an operator: shapes without computing them, and gradients it can trace.
OPERATORS = """
import torch
from diffmf_cli.scan import triton_training

torch.manual_seed(0)
triton_training.CHUNK = 1  # the interpreter takes its time for each token of a chunk
values = [torch.randn(1, 2, 3, 4, dtype=torch.bfloat16) for _ in range(2)]
B, C = torch.randn(2, 1, 2, 3, 1, dtype=torch.bfloat16)
arguments = [*values, -torch.rand(1, 4) - 0.5, B, C, torch.randn(4), torch.randn(4) - 3]
arguments = [t.requires_grad_() for t in arguments]
torch.library.opcheck(triton_training._scan, arguments)
with torch.no_grad():
    rows, columns, *kept = triton_training._scan(*arguments)
    x, _, A, B, C, D, _ = arguments
    torch.library.opcheck(triton_training._scan_backward, (x, A, B, C, D, *kept, rows, columns))
print("agreed")
"""

# Tiles of 8x8, two of which share a warp: several, ragged ones, one without a partner, lanes that are not
# full; few lines are chained at once, so that several rounds are needed.
INFERENCE = """
import torch
from diffmf_cli.scan import reference, triton_scan

torch.manual_seed(0)
triton_scan.SEGMENT, triton_scan.STRETCH = 4, 2
cases = ((1, 9, 18, 20), 1, 0), ((1, 1, 1, 3), 1, -60), ((2, 1, 20, 17), 1, -9), ((1, 13, 1, 4), 3, 0)
for shape, n, shift in cases:
    batch, h, w, d = shape
    x, delta = torch.randn(2, *shape)
    B, C = torch.randn(2, batch, h, w, n)
    A, D, bias = -torch.rand(d, n) - 0.5, torch.randn(d), torch.randn(d) - 3 + shift
    arguments = x, delta, A, B, C, D, bias
    with torch.no_grad():
        got = triton_scan.selective_scan_2d(*arguments)
    expected = reference.selective_scan_2d(*(t.double() for t in arguments))
    error = ((got - expected).abs().max() / expected.abs().max()).item()
    assert error < 1e-5, (shape, n, shift, error)

# Three maps, of which the first has parameters of its own; rows and columns apart.
x, delta = torch.randn(2, 3, 5, 6, 4)
B, C = torch.randn(2, 3, 5, 6, 1)
A, D, bias = -torch.rand(2, 4, 1) - 0.5, torch.randn(2, 4), torch.randn(2, 4) - 3
got = triton_scan.scan_tiles(x, delta, A, B, C, D, bias, torch.empty(3, 5, 6, 4), 1, None)
for i, chosen in enumerate((0, 1, 1)):
    one = [t[i : i + 1].double() for t in (x, delta, B, C)]
    own = [t[chosen].double() for t in (A, D, bias)]
    expected = reference.selective_scan_2d(one[0], one[1], own[0], *one[2:], *own[1:])
    error = ((got[i] - expected[0]).abs().max() / expected.abs().max()).item()
    assert error < 1e-5, (i, error)
print("agreed")
"""


@pytest.mark.parametrize("code", [TRAINING, OPERATORS, INFERENCE], ids=["training", "operators", "inference"])
def test_kernels_by_the_interpreter(by_triton_interpreter, code):
    by_triton_interpreter(code)


def test_an_old_triton_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="3.2.0"))
    monkeypatch.setitem(sys.modules, "triton.language", SimpleNamespace())
    assert triton_scan._missing.__wrapped__() == "triton 3.2.0 is older than 3.3, which comes with torch 2.7"


@pytest.fixture
def on_cuda():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.usefixtures("on_cuda")
def test_many_chunks_on_cuda(scans, dtype):
    arguments = {name: t.to(dtype) for name, t in scans.make((2, 37, 129, 40)).items()}
    expected = reference.selective_scan_2d(**{name: t.double() for name, t in arguments.items()})
    got = scans.forward(triton_scan.selective_scan_2d, {name: t.cuda() for name, t in arguments.items()})
    assert got.dtype == dtype
    assert scans.error(got, expected) < (1e-5 if dtype == torch.float32 else 2e-3)


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_gradients_of_many_chunks_on_cuda(scans, compiled):
    arguments = scans.make((2, 37, 129, 48), dtype=torch.float32)
    weight = torch.randn(2, 37, 129, 48, generator=torch.Generator().manual_seed(1))
    expected = scans.gradients(
        torch_scan.selective_scan_2d, {k: t.double() for k, t in arguments.items()}, weight
    )
    run = triton_scan.selective_scan_2d
    if compiled:
        run = torch.compile(run, fullgraph=True, dynamic=False)
    got = scans.gradients(run, {k: t.cuda() for k, t in arguments.items()}, weight)
    for name, value in expected.items():
        assert scans.error(got[name], value) < (1e-5 if name == "y" else 1e-4), name
