"""The scan in place against the reference in float64."""

import numpy as np
import pytest
import torch

from diffmf_cli.scan import reference

kernels = pytest.importorskip("diffmf_cli.model.cpu.scan_kernels")


@pytest.mark.parametrize("states", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 13), (13, 1), (7, 50), (17, 23)], ids=str)
@pytest.mark.parametrize("kept", ["all", "a strip"])
@pytest.mark.parametrize("offset", [-3.0, -200.0, 60.0])
def test_scan_in_place(states, size, kept, offset):
    h, w, d, rank = *size, 32, 4
    kept = w if kept == "all" else min(w, kernels.CHUNK)
    g = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=g)

    values, selected = normal(h * w, d), normal(h * w, 16)
    delta_weight, D, bias = normal(rank, d), normal(d), normal(d) + offset
    A = -torch.arange(1, states + 1) * torch.exp(0.3 * normal(d, states))
    delta = selected[:, :rank].double() @ delta_weight.double()
    B, C = selected[:, rank : rank + 2 * states].double().split(states, 1)
    picture = (t.reshape(1, h, w, -1) for t in (values.double(), delta, B, C))
    x, delta, B, C = picture
    expected = reference.selective_scan_2d(x, delta, A.double(), B, C, D.double(), bias.double())
    blocked, blocked_weight = (
        t.reshape(len(t), -1, 16).swapaxes(0, 1).contiguous() for t in (values, delta_weight)
    )
    arrays = [t.numpy() for t in (blocked, selected, blocked_weight, A, D, bias)]
    for block in range(d // 16):
        kernels.scan_in_place(*arrays, h, w, block, kept, np.empty(kernels.scan_room(h, w, kept), np.float32))
    got = blocked.swapaxes(0, 1).reshape(expected.shape).double()
    error = (got - expected).abs().max() / expected.abs().max()
    assert error < 1e-5
    assert np.isfinite(arrays[0]).all()
