"""From the selective scan to a first-order recurrence, and back.

The four orders share decay and input, so per state `n` the scan is `s_t = a_t s_{t-1} + b_t` over one pair of
pictures `a`, `b`. What surrounds it is pointwise; backends that differ only in how they run the recurrence
share this file.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

Recurrence = Callable[[Tensor, Tensor, Tensor], Tensor]


def start_states(x: Tensor, dt: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """What an endless run of the first token leaves: the fixed point `dt B x / (1 - exp(dt A))`.

    All orders begin in two corners: the forward ones in the first, the reversed ones in the last.

    Args:
        x: `(B, H, W, d)`.
        dt: `(B, H, W, d)`, positive.
        A: `(d, n)`, negative.
        B: `(B, H, W, n)`.

    Returns:
        `(B, 2, d, n)`: of the forward and of the reversed orders.
    """
    x, dt, B = (torch.stack([t[:, 0, 0], t[:, -1, -1]], 1) for t in (x, dt, B))
    decay = (dt[..., None] * -A).clamp_min(1e-12)  # 0 / 0 otherwise, where softplus underflows
    return x[..., None] * B[..., None, :] / -A * (decay / -torch.expm1(-decay))


def scan_with(
    recurrence: Recurrence,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    """`diffmf_cli.scan.selective_scan_2d`, given the recurrence.

    Args:
        recurrence: takes `a` and `b`, each `(B, H, W, m)`, and the states `(B, 2, m)` before the first token
            of the forward and of the reversed orders; returns the sum of the states of the four orders,
            `(B, H, W, m)`; differentiable.
        x: see `diffmf_cli.scan.selective_scan_2d`, as all that follow.
        delta: likewise.
        A: likewise.
        B: likewise.
        C: likewise.
        D: likewise.
        delta_bias: likewise.
    """
    dtype = x.dtype
    wide = torch.promote_types(dtype, torch.float32)  # 16-bit decay and state drift by up to 30 %
    x, delta, A, B, C, D, delta_bias = (t.to(wide) for t in (x, delta, A, B, C, D, delta_bias))
    dt = softplus(delta + delta_bias)
    start = start_states(x, dt, A, B).flatten(-2)
    if A.shape[1] == 1:
        y = recurrence(torch.exp(dt * A[:, 0]), dt * B * x, start) * C
    else:
        a = torch.exp(dt[..., None] * A)
        b = (dt * x)[..., None] * B[..., None, :]
        states = recurrence(a.flatten(-2), b.flatten(-2), start).unflatten(-1, A.shape)
        y = (states * C[..., None, :]).sum(-1)
    return (y + D * x).to(dtype)
