"""The recurrence as an exported program can hold it: loops whose length the picture decides.

`torch.export` and ONNX know such a loop as `scan`: a small graph, called for each slice of its inputs. Called
for each token it would cost more than it computes, so all lines of a picture are scanned at once, with a call
for each column: first only for what each line ends with, from zero; then down the lines, for what really
enters each of them; then along the lines again, from that. Nothing is divided, so nothing overflows.

A call returns what decays of the state before, `a_t s_{t-1}`, rather than the state: one that is handed on
and returned as well would be copied each time. Both directions are one loop, for half as many calls.
"""

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan_op  # `scan` around it compiles the body anew for each call


def recurrence(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """Sum of the four orders' states, `(B, H, W, m)`; see `diffmf_cli.scan.recurrence.scan_with`."""
    forward, reverse = (_copy(t) for t in start.unbind(1))  # a loop must not see two views of one tensor
    rows = _both_ways(_copy(a.permute(2, 1, 0, 3)), _copy(b.permute(2, 1, 0, 3)), forward, reverse)
    columns = _both_ways(_copy(a.permute(1, 2, 0, 3)), _copy(b.permute(1, 2, 0, 3)), forward, reverse)
    return 4 * b + rows.permute(2, 1, 0, 3) + columns.permute(2, 0, 1, 3)


def _both_ways(a: Tensor, b: Tensor, forward: Tensor, reverse: Tensor) -> Tensor:
    """Sum over both directions of what decays from token to token, `a_t s_{t-1}`.

    Args:
        a: `(L, R, B, m)`: tokens of a line, lines.
        b: likewise.
        forward: `(B, m)`, the state before the first token of the first line.
        reverse: `(B, m)`, the state after the last token of the last line.
    """
    back_a, back_b = a.flip(0), b.flip(0)
    zero, one = torch.zeros_like(b[0]), torch.ones_like(a[0])
    end, back_end, decay = scan_op(_end, [zero, zero.clone(), one], [a, b, back_a, back_b], ())
    back_end, back_decay = back_end.flip(0), decay.flip(0)
    lines = [decay, end, back_decay, back_end]
    _, _, decayed, back_decayed = scan_op(_states, [forward, reverse], lines, ())
    entering = torch.cat([forward[None], (decayed + end)[:-1]])
    back_entering = torch.cat([reverse[None], (back_decayed + back_end)[:-1]]).flip(0)
    _, _, decayed, back_decayed = scan_op(_states, [entering, back_entering], [a, b, back_a, back_b], ())
    return decayed + back_decayed.flip(0)


def _end(
    state: Tensor, back_state: Tensor, decay: Tensor, a: Tensor, b: Tensor, back_a: Tensor, back_b: Tensor
) -> list[Tensor]:
    return [a * state + b, back_a * back_state + back_b, a * decay]


def _states(
    state: Tensor, back_state: Tensor, a: Tensor, b: Tensor, back_a: Tensor, back_b: Tensor
) -> list[Tensor]:
    decayed, back_decayed = a * state, back_a * back_state
    return [decayed + b, back_decayed + back_b, decayed, back_decayed]


def _copy(t: Tensor) -> Tensor:
    return t.clone(memory_format=torch.contiguous_format)
