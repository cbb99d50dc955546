"""The scan as its definition reads: one token after the other. The oracle of the tests; slow."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

NAME = "reference"
WRITES_OUT = False


def unavailable(device: torch.device) -> str | None:
    """None: it runs everywhere."""
    return None


def raster_orders(h: int, w: int) -> list[list[int]]:
    """The four orders as lists of flat positions `row * w + column`."""
    rows = [r * w + c for r in range(h) for c in range(w)]
    columns = [r * w + c for c in range(w) for r in range(h)]
    return [rows, rows[::-1], columns, columns[::-1]]


def selective_scan_2d(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """See `diffmf_cli.scan.selective_scan_2d`. Computes in the dtype of its inputs, float64 included."""
    batch, h, w, d = x.shape
    flat_x, dt = x.reshape(batch, h * w, d), softplus(delta + delta_bias).reshape(batch, h * w, d)
    flat_B, flat_C = B.reshape(batch, h * w, -1), C.reshape(batch, h * w, -1)
    y = [D * flat_x[:, p] for p in range(h * w)]
    for order in raster_orders(h, w):
        # An endless run of the first token; x B / -A is its limit where the step underflows to 0.
        decay = (-A * dt[:, order[0], :, None]).clamp_min(torch.finfo(x.dtype).tiny)
        state = (
            flat_x[:, order[0], :, None] * flat_B[:, order[0], None, :] / -A * decay / -torch.expm1(-decay)
        )
        for p in order:
            step = dt[:, p, :, None]
            state = torch.exp(step * A) * state + step * flat_B[:, p, None, :] * flat_x[:, p, :, None]
            y[p] = y[p] + (state * flat_C[:, p, None, :]).sum(-1)
    return torch.stack(y, 1).reshape(x.shape)
