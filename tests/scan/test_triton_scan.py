"""The logic of the Triton kernels on a machine without CUDA, by Triton's own interpreter."""

import pytest
import torch

from diffmf_cli.scan import reference, triton_scan

TRAINING = """
import torch
from diffmf_cli.scan import torch_scan, triton_scan

torch.manual_seed(0)
for shape in [(2, 5, 7, 5), (1, 1, 19, 33), (1, 17, 1, 3), (1, 1, 1, 1), (2, 4, 4, 32)]:
    values = torch.rand(shape), torch.randn(shape), torch.randn(shape[0], 2, shape[3])
    weight = torch.randn(shape)
    results = []
    for module, dtype in ((triton_scan, torch.float32), (torch_scan, torch.float64)):
        leaves = [v.to(dtype).requires_grad_() for v in values]
        y = module.recurrence(*leaves)
        results.append([y, *torch.autograd.grad((y * weight.to(dtype)).sum(), leaves)])
    for name, got, expected in zip(("y", "a", "b", "start"), *results):
        error = ((got - expected).abs().max() / expected.abs().max()).item()
        assert error < 1e-5, (shape, name, error)
print("agreed")
"""

# Tiles of 8x8, two of which share a warp: several, ragged ones, one without a partner, lanes that are not
# full; few lines are chained at once, so that several rounds are needed.
INFERENCE = """
import torch
from diffmf_cli.scan import reference, triton_scan

torch.manual_seed(0)
triton_scan.SEGMENT, triton_scan.SEGMENTS = 4, 2
cases = ((1, 9, 18, 5), 1, 0), ((1, 1, 1, 3), 1, -60), ((2, 1, 20, 17), 1, -9), ((1, 13, 1, 4), 3, 0)
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
got = triton_scan.scan_tiles(x, delta, A, B, C, D, bias, torch.empty(3, 5, 6, 4), 1)
for i, chosen in enumerate((0, 1, 1)):
    one = [t[i : i + 1].double() for t in (x, delta, B, C)]
    own = [t[chosen].double() for t in (A, D, bias)]
    expected = reference.selective_scan_2d(one[0], one[1], own[0], *one[2:], *own[1:])
    error = ((got[i] - expected[0]).abs().max() / expected.abs().max()).item()
    assert error < 1e-5, (i, error)
print("agreed")
"""


@pytest.mark.parametrize("code", [TRAINING, INFERENCE], ids=["training", "inference"])
def test_kernels_by_the_interpreter(by_triton_interpreter, code):
    by_triton_interpreter(code)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_many_chunks_on_cuda(scans, dtype):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    arguments = {name: t.to(dtype) for name, t in scans.make((2, 37, 129, 40)).items()}
    expected = reference.selective_scan_2d(**{name: t.double() for name, t in arguments.items()})
    got = scans.forward(triton_scan.selective_scan_2d, {name: t.cuda() for name, t in arguments.items()})
    assert got.dtype == dtype
    assert scans.error(got, expected) < (1e-5 if dtype == torch.float32 else 2e-3)
