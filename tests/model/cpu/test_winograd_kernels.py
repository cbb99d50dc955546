"""Convolutions in tiles against torch in float64."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

kernels = pytest.importorskip("diffmf_cli.model.cpu.winograd_kernels")


def normal(*size):
    return np.random.default_rng(sum(size)).standard_normal(size).astype(np.float32)


def transformed(row, tiles):
    """Of a row `(pixels + 2, channels)`; what products take of tiles that do not exist is infinite."""
    out = np.full((6, kernels.room_for(4 * tiles), row.shape[1]), np.inf, np.float32)
    kernels.transform_row(row.reshape(-1), row.shape[1], tiles, out, 0)
    return out


def convolve(rows, weight, start, step, out, first, leaky):
    tiles = (rows.shape[1] - 2) // 4
    points = np.ascontiguousarray(kernels.winograd_weights(weight.astype(float)), np.float32)
    sums = np.empty((6, kernels.AT_ONCE, len(weight)), np.float32)
    lines = [transformed(row, tiles) for row in rows]
    kernels.convolve_tiles(*lines, tiles, points, start, step, out, first, leaky, sums)


@pytest.mark.parametrize("tiles", [1, 7, 50, 96])
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(4, 4), (8, 16), (24, 8), (12, 12), (16, 64), (32, 48), (48, 24), (64, 128)]
)
@pytest.mark.parametrize("leaky", [False, True])
def test_convolve_tiles(tiles, inputs, outputs, leaky):
    rows, weight, bias = normal(3, 4 * tiles + 2, inputs), normal(outputs, inputs, 3, 3), normal(outputs)
    known = normal(4 * tiles, outputs)
    exact = F.conv2d(
        torch.from_numpy(rows).double().permute(2, 0, 1)[None], torch.from_numpy(weight).double()
    )
    exact = exact[0, :, 0].t().numpy()
    for start, step, added in ((bias, 0, bias), (known.reshape(-1), outputs, known)):
        out = np.full((4 * tiles + 2, outputs), 7, np.float32)
        convolve(rows, weight, start, step, out.reshape(-1), outputs, leaky)
        expected = exact + added
        expected = np.where(leaky & (expected < 0), 0.1 * expected, expected)
        assert np.abs(out[1:-1] - expected).max() < 5e-6 * np.abs(expected).max()
        assert (out[[0, -1]] == 7).all()


def test_channels_of_several_rows_side_by_side():
    first, second = normal(30, 8), normal(30, 16)
    out = np.zeros((6, kernels.room_for(28), 24), np.float32)
    kernels.transform_row(second.reshape(-1), 16, 7, out, 8)
    kernels.transform_row(first.reshape(-1), 8, 7, out, 0)
    assert np.array_equal(out[:, :7], transformed(np.concatenate([first, second], 1), 7)[:, :7])
    assert (out[:, 7:] == 0).all()


def test_a_tile_does_not_depend_on_its_place():
    rows, weight, bias = normal(3, 4 * 60 + 2, 32), normal(32, 32, 3, 3), normal(32)
    whole, part = np.empty((240, 32), np.float32), np.empty((120, 32), np.float32)
    convolve(rows, weight, bias, 0, whole.reshape(-1), 0, True)
    for tile in (1, 17, 30):
        convolve(
            np.ascontiguousarray(rows[:, 4 * tile :][:, :122]), weight, bias, 0, part.reshape(-1), 0, True
        )
        assert np.array_equal(part, whole[4 * tile :][:120])
