"""The oracle itself, against its definition in numpy and against symmetries that it must have."""

import numpy as np
import pytest
import torch

from diffmf_cli.scan.reference import raster_orders, selective_scan_2d


def by_numpy(x, delta, A, B, C, D, delta_bias):
    """One picture, one number at a time, starting from a long run of the first token."""
    h, w, d = x.shape
    walks = [
        [(r, c) for r in range(h) for c in range(w)],
        [(r, c) for r in reversed(range(h)) for c in reversed(range(w))],
        [(r, c) for c in range(w) for r in range(h)],
        [(r, c) for c in reversed(range(w)) for r in reversed(range(h))],
    ]
    y = x * D
    for walk in walks:
        for k in range(d):
            for n in range(A.shape[1]):
                state = 0.0
                for r, c in [walk[0]] * 3000 + walk:
                    step = np.log1p(np.exp(delta[r, c, k] + delta_bias[k]))
                    state = np.exp(step * A[k, n]) * state + step * B[r, c, n] * x[r, c, k]
                    walked = (r, c)
                    if walked == walk[0]:
                        first = state
                    else:
                        y[walked][k] += C[r, c, n] * state
                y[walk[0]][k] += C[walk[0]][n] * first
    return y


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 3), (4, 3)])
def test_definition(scans, shape):
    arguments = scans.make((1, *shape, 2), d_state=2)
    arguments["delta_bias"] += 2  # so that 3000 tokens are an endless run
    plain = {k: (t[0] if k in ("x", "delta", "B", "C") else t).numpy() for k, t in arguments.items()}
    got = selective_scan_2d(**arguments)[0].numpy()
    np.testing.assert_allclose(got, by_numpy(**plain), rtol=1e-9, atol=1e-12)


def test_orders_of_a_small_picture():
    assert raster_orders(2, 3) == [
        [0, 1, 2, 3, 4, 5],
        [5, 4, 3, 2, 1, 0],
        [0, 3, 1, 4, 2, 5],
        [5, 2, 4, 1, 3, 0],
    ]


@pytest.mark.parametrize(
    "turn",
    [lambda t: t.transpose(1, 2), lambda t: t.flip(1, 2), lambda t: t.transpose(1, 2).flip(1, 2)],
    ids=["transposed", "half a turn", "other diagonal"],
)
def test_the_four_orders_map_to_each_other(scans, turn):
    arguments = scans.make((2, 4, 7, 3), d_state=2)
    turned = {k: turn(t) if k in ("x", "delta", "B", "C") else t for k, t in arguments.items()}
    torch.testing.assert_close(selective_scan_2d(**turned), turn(selective_scan_2d(**arguments)))


def test_a_single_impulse_decays_along_each_order(scans):
    arguments = scans.make((1, 3, 5, 1))
    for name in ("delta", "D", "delta_bias"):
        arguments[name] = torch.zeros_like(arguments[name])
    arguments["A"] = torch.full((1, 1), -1.0, dtype=torch.float64)
    arguments["B"], arguments["C"] = torch.ones(2, 1, 3, 5, 1, dtype=torch.float64)
    arguments["x"] = torch.zeros(1, 3, 5, 1, dtype=torch.float64)
    arguments["x"][0, 1, 2] = 1.0
    # softplus(0) = log 2, so exp(-step) = 1/2: each order halves the impulse with every token.
    got = selective_scan_2d(**arguments)[0, :, :, 0] / np.log(2)
    rows = torch.arange(15, dtype=torch.float64).view(3, 5) - 7
    columns = torch.arange(15, dtype=torch.float64).view(5, 3).T - 7
    expected = 0.5 ** rows.abs() + 0.5 ** columns.abs()
    expected[1, 2] = 4  # where it falls, all four orders hold it whole
    torch.testing.assert_close(got, expected)
