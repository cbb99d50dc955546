"""The scan as a traced program can hold it (`diffmf export`): loops whose length the picture decides.

`torch.export` knows such a loop as `scan`: a small graph, called for each slice of its inputs. Called
for each token it would cost more than it computes, so all lines of a picture are scanned at once, with a call
for each column: first only for what each line ends with, from zero; then down the lines, for what really
enters each of them; then along the lines again, from that. Nothing is divided, so nothing overflows.

A call returns what decays of the state before, `a_t s_{t-1}`, rather than the state: one that is handed on
and returned as well would be copied each time. Both directions are one loop, for half as many calls: the way
back is the way there in a picture turned by half a turn, as more channels.
"""

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan_op  # `scan` around it compiles the body anew for each call

from diffmf_cli.scan.recurrence import scan_with

NAME = "export"
WRITES_OUT = False


def unavailable(device: torch.device) -> str | None:
    """None: a trace runs nowhere."""
    return None


def recurrence(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """Sum of the four orders' states, `(B, H, W, m)`; see `diffmf_cli.scan.recurrence.scan_with`."""
    start = start.flatten(1).clone()
    rows = _both_ways(a.permute(2, 1, 0, 3), b.permute(2, 1, 0, 3), start)
    columns = _both_ways(a.permute(1, 2, 0, 3), b.permute(1, 2, 0, 3), start)
    return 4 * b + rows.permute(2, 1, 0, 3) + columns.permute(2, 0, 1, 3)


def _both_ways(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """Sum over both directions of what decays from token to token, `a_t s_{t-1}`.

    Args:
        a: `(L, R, B, m)`: tokens of a line, lines.
        b: likewise.
        start: `(B, 2 m)`, the state before the first token and the one after the last.
    """
    a, b = (torch.cat([t, t.flip(0, 1)], -1) for t in (a, b))
    (end,) = scan_op(_end, [torch.zeros_like(b[0])], [a, b], ())
    _, decayed = scan_op(_states, [start], [a.prod(0), end], ())
    entering = torch.cat([start[None], (decayed + end)[:-1]])
    _, decayed = scan_op(_states, [entering], [a, b], ())
    there, back = decayed.chunk(2, -1)
    return there + back.flip(0, 1)


def _end(state: Tensor, a: Tensor, b: Tensor) -> list[Tensor]:
    return [a * state + b]


def _states(state: Tensor, a: Tensor, b: Tensor) -> list[Tensor]:
    decayed = a * state
    return [decayed + b, decayed]


def selective_scan_2d(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """See `diffmf_cli.scan.selective_scan_2d`."""
    return scan_with(recurrence, x, delta, A, B, C, D, delta_bias)
