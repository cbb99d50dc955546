"""The scan in plain torch operations: any device, exact gradients, H + W steps instead of H x W.

Every line of the picture is scanned on its own, all lines at once; the state at the end of each line then
travels down the lines; last, what entered a line is added to it, decayed. Products of decays lie in [0, 1],
so nothing overflows (the well-known form that divides by them does).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffmf_cli.scan.recurrence import scan_with

NAME = "torch"
WRITES_OUT = False


def unavailable(device: torch.device) -> str | None:
    """None: it runs everywhere."""
    return None


def _raster(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """States `(B, H, W, m)` of `s_t = a_t s_{t-1} + b_t` in row order, from `start` `(B, m)`."""
    state, decay = torch.empty_like(b), torch.empty_like(a)
    state[:, :, 0], decay[:, :, 0] = b[:, :, 0], a[:, :, 0]
    for c in range(1, a.shape[2]):
        torch.addcmul(b[:, :, c], a[:, :, c], state[:, :, c - 1], out=state[:, :, c])
        torch.mul(a[:, :, c], decay[:, :, c - 1], out=decay[:, :, c])
    carry = torch.empty_like(b[:, :, 0])
    carry[:, 0] = start
    for r in range(1, a.shape[1]):
        torch.addcmul(state[:, r - 1, -1], decay[:, r - 1, -1], carry[:, r - 1], out=carry[:, r])
    return state.addcmul_(decay, carry[:, :, None])


def _ordered(t: Tensor, order: int) -> Tensor:
    """A view of `(B, H, W, m)` whose row order is the given one of the four; its own inverse."""
    if order >= 2:
        t = t.transpose(1, 2)
    return t.flip(1, 2) if order % 2 else t


def _restored(t: Tensor, order: int) -> Tensor:
    if order % 2:
        t = t.flip(1, 2)
    return t.transpose(1, 2) if order >= 2 else t


def _delayed(t: Tensor, first: Tensor) -> Tensor:
    """`(B, H, W, m)` in row order, moved on by one token, with `first` `(B, m)` moving in."""
    return torch.cat([first[:, None], t.flatten(1, 2)[:, :-1]], 1).view(t.shape)


class _FourOrders(torch.autograd.Function):
    """Keeps its inputs only; the states are computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, start: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, start)
        total = torch.zeros_like(b)
        for order in range(4):
            oa, ob = _ordered(a, order).contiguous(), _ordered(b, order).contiguous()
            states = _raster(oa, ob, start[:, order % 2])
            total += _restored(states, order)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b, start = ctx.saved_tensors
        grad_a, grad_b, grad_start = torch.zeros_like(a), torch.zeros_like(b), torch.zeros_like(start)
        for order in range(4):
            begin = start[:, order % 2]
            oa = _ordered(a, order).contiguous()
            states = _raster(oa, _ordered(b, order).contiguous(), begin)
            # The adjoint runs the other way: g_t = grad_t + a_{t+1} g_{t+1}.
            back_a, back_grad = oa.flip(1, 2), _ordered(grads[0], order).flip(1, 2).contiguous()
            zero = torch.zeros_like(begin)
            adjoint = _raster(_delayed(back_a, zero), back_grad, zero).flip(1, 2)
            grad_a += _restored(adjoint * _delayed(states, begin), order)
            grad_b += _restored(adjoint, order)
            grad_start[:, order % 2] += oa[:, 0, 0] * adjoint[:, 0, 0]
        return grad_a, grad_b, grad_start


def recurrence(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """Sum of the four orders' states, `(B, H, W, m)`; see `diffmf_cli.scan.recurrence.scan_with`."""
    result: Tensor = _FourOrders.apply(a, b, start)
    return result


def selective_scan_2d(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """See `diffmf_cli.scan.selective_scan_2d`."""
    return scan_with(recurrence, x, delta, A, B, C, D, delta_bias)
