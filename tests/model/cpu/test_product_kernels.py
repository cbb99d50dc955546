"""Products and convolutions against torch in float64."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

kernels = pytest.importorskip("diffmf_cli.model.cpu.product_kernels")


def normal(*size):
    return np.random.default_rng(sum(size)).standard_normal(size).astype(np.float32)


def close(got, expected):
    """To 1e-6 of the largest value."""
    return np.abs(got - expected).max() < 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("count", [1, 3, 7, 8, 24, 31])
@pytest.mark.parametrize("width", [16, 32, 48, 64, 80, 128])
def test_linear(count, width):
    x, weight, bias, out = normal(count, 5), normal(5, width), normal(width), np.empty((count, width), "f")
    kernels.linear(x, weight, bias, out)
    assert close(out, x.astype(float) @ weight + bias)


def test_rows_may_overlap_and_add_to_what_is_there():
    x, weight, out = normal(40), normal(6, 16), normal(12, 20)
    before = out.copy()
    flat = out.reshape(-1)
    kernels.add_product(x, 2, 3, weight, flat, 1, 20, flat, 1, 20, 11)
    windows = np.stack([x[2 + 3 * i : 8 + 3 * i] for i in range(11)]).astype(float)
    assert close(out[:11, 1:17], before[:11, 1:17] + windows @ weight)
    assert np.array_equal(out[11], before[11])
    assert np.array_equal(out[:, 17:], before[:, 17:])


def test_a_row_does_not_depend_on_its_neighbours():
    x, weight, bias = normal(24, 37), normal(37, 80), normal(80)
    whole, alone = np.empty((24, 80), "f"), np.empty((24, 80), "f")
    kernels.linear(x, weight, bias, whole)
    for first, last in ((0, 1), (1, 8), (8, 13), (13, 24)):
        kernels.linear(x[first:last], weight, bias, alone[first:last])
    assert np.array_equal(alone, whole)


@pytest.mark.parametrize("from_bias", [True, False])
def test_convolve(from_bias):
    rows, weight, bias = normal(3, 32, 5), normal(3, 15, 16), normal(16)
    out = normal(30, 16)
    start, step = (bias, 0) if from_bias else (out.reshape(-1).copy(), 16)
    expected = F.conv2d(
        torch.from_numpy(rows).double().permute(2, 0, 1)[None],
        torch.from_numpy(weight).double().view(3, 3, 5, 16).permute(3, 2, 0, 1),
    )
    expected = expected[0, :, 0].t().numpy() + (bias if from_bias else out)
    kernels.convolve(*rows.reshape(3, -1), 0, 5, weight, start, step, out.reshape(-1), 0, 30)
    assert close(out, expected)
