"""The logic around mamba-ssm's kernel, on a CPU, with a stand-in that computes what the kernel should.

The kernel itself runs in test_backends.py where it is installed.
"""

import sys
from types import ModuleType

import pytest
import torch

from diffmf_cli.scan import mamba_scan, reference


def selective_scan_fn(u, delta, A, B, C, D, delta_bias, delta_softplus):
    """`u`, `delta` (B, d, L), `A` (d, n), `B`, `C` (B, 1, n, L): one order, forward, from zero."""
    assert delta_softplus
    assert D is None
    dt = torch.nn.functional.softplus(delta + delta_bias[:, None])
    state, y = torch.zeros(*u.shape[:2], A.shape[1]), []
    for t in range(u.shape[-1]):
        step = dt[:, :, t, None]
        state = torch.exp(step * A) * state + step * B[:, :, :, t] * u[:, :, t, None]
        y.append((state * C[:, :, :, t]).sum(-1))
    return torch.stack(y, -1)


@pytest.fixture
def mamba_ssm(monkeypatch):
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    interface = sys.modules["mamba_ssm.ops.selective_scan_interface"]
    monkeypatch.setattr(interface, "selective_scan_fn", selective_scan_fn, raising=False)


@pytest.mark.parametrize("d_state", [1, 3])
@pytest.mark.parametrize("shape", [(2, 5, 7, 6), (1, 1, 9, 4), (1, 3, 1, 2)])
def test_agrees_with_the_reference(scans, mamba_ssm, shape, d_state):
    exact = scans.make(shape, d_state=d_state)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = scans.gradients(reference.selective_scan_2d, exact, weight)
    single = {name: t.float() for name, t in exact.items()}
    got = scans.gradients(mamba_scan.selective_scan_2d, single, weight)
    assert scans.error(got["y"], expected["y"]) < 1e-5
    for name in scans.arguments:
        assert scans.error(got[name], expected[name]) < 1e-4, name
