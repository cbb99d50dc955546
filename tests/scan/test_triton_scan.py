"""The logic of the Triton kernels on a machine without CUDA, by Triton's own interpreter."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

CODE = """
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


def test_kernels_by_the_interpreter():
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if torch.cuda.is_available():
        pytest.skip("the kernels run for real in test_backends.py")
    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip("Triton 3.6's interpreter needs NumPy before 2.4")
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "agreed", done.stderr
