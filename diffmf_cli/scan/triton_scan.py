"""The scan on a CUDA device with a Triton kernel of our own: no layout copies, nothing to compile at install.

A program walks one order of one picture for 32 channels. Loads of a stretch of tokens are issued together
before the recurrence consumes them, since what bounds a walk is latency, not arithmetic.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffmf_cli.scan.recurrence import scan_with

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

NAME = "triton"
LANES = 32
STRETCH = 16


def unavailable(device: torch.device) -> str | None:
    """A reason, or None where Triton is installed and the device is CUDA."""
    if triton is None:
        return "triton is not installed; it comes with the CUDA builds of torch"
    if device.type != "cuda":
        return "triton runs on CUDA only"
    return None


if triton is not None:

    @triton.jit
    def _position(t, order, h, w):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        """Flat pixel of token `t` in one of the four orders."""
        length = h * w
        t = tl.where(order % 2 == 1, length - 1 - t, t)
        return tl.where(order >= 2, (t % h) * w + t // h, t)

    @triton.jit
    def _forward(a_ptr, b_ptr, start_ptr, state_ptr, h, w, m, LANES: tl.constexpr, STRETCH: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, N803, PLR0913
        picture, order, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
        length = h * w
        lane = block * LANES + tl.arange(0, LANES)
        inside = lane < m
        base = picture.to(tl.int64) * length * m
        plane = (order.to(tl.int64) * tl.num_programs(0) + picture) * length * m
        state = tl.load(start_ptr + (picture * 2 + order % 2) * m + lane, mask=inside, other=0.0)
        for t in range(0, length, STRETCH):
            a = ()
            b = ()
            for u in tl.static_range(STRETCH):
                p = _position(tl.minimum(t + u, length - 1), order, h, w)
                offset = p.to(tl.int64) * m + lane
                a = a + (tl.load(a_ptr + base + offset, mask=inside, other=0.0),)
                b = b + (tl.load(b_ptr + base + offset, mask=inside, other=0.0),)
            for u in tl.static_range(STRETCH):
                p = _position(tl.minimum(t + u, length - 1), order, h, w)
                state = a[u] * state + b[u]
                offset = p.to(tl.int64) * m + lane
                tl.store(state_ptr + plane + offset, state, mask=inside & (t + u < length))

    @triton.jit
    def _backward(  # type: ignore[no-untyped-def]  # noqa: ANN202, PLR0913
        a_ptr,  # noqa: ANN001
        start_ptr,  # noqa: ANN001
        state_ptr,  # noqa: ANN001
        grad_ptr,  # noqa: ANN001
        grad_a_ptr,  # noqa: ANN001
        grad_b_ptr,  # noqa: ANN001
        grad_start_ptr,  # noqa: ANN001
        h,  # noqa: ANN001
        w,  # noqa: ANN001
        m,  # noqa: ANN001
        LANES: tl.constexpr,  # noqa: N803
        STRETCH: tl.constexpr,  # noqa: N803
    ):
        picture, order, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
        length = h * w
        lane = block * LANES + tl.arange(0, LANES)
        inside = lane < m
        base = picture.to(tl.int64) * length * m
        plane = (order.to(tl.int64) * tl.num_programs(0) + picture) * length * m
        start = tl.load(start_ptr + (picture * 2 + order % 2) * m + lane, mask=inside, other=0.0)
        carry = tl.zeros((LANES,), tl.float32)  # a_{t+1} g_{t+1}
        for done in range(0, length, STRETCH):
            a = ()
            grad = ()
            before = ()
            for u in tl.static_range(STRETCH):
                t = length - 1 - done - u
                offset = _position(tl.maximum(t, 0), order, h, w).to(tl.int64) * m + lane
                earlier = _position(tl.maximum(t - 1, 0), order, h, w).to(tl.int64) * m + lane
                a = a + (tl.load(a_ptr + base + offset, mask=inside, other=0.0),)
                grad = grad + (tl.load(grad_ptr + base + offset, mask=inside, other=0.0),)
                before = before + (
                    tl.load(state_ptr + plane + earlier, mask=inside & (t > 0), other=0.0),
                )
            for u in tl.static_range(STRETCH):
                t = length - 1 - done - u
                offset = _position(tl.maximum(t, 0), order, h, w).to(tl.int64) * m + lane
                g = grad[u] + carry
                carry = a[u] * g
                tl.store(grad_b_ptr + plane + offset, g, mask=inside & (t >= 0))
                entered = tl.where(t == 0, start, before[u])
                tl.store(grad_a_ptr + plane + offset, g * entered, mask=inside & (t >= 0))
                if t == 0:
                    tl.store(grad_start_ptr + (order * tl.num_programs(0) + picture) * m + lane, carry, mask=inside)


class _FourOrders(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, start: Tensor) -> Tensor:
        a, b, start = a.contiguous(), b.contiguous(), start.contiguous()
        batch, h, w, m = a.shape
        states = a.new_empty(4, batch, h, w, m)
        grid = (batch, 4, triton.cdiv(m, LANES))
        _forward[grid](a, b, start, states, h, w, m, LANES=LANES, STRETCH=STRETCH, num_warps=1)
        ctx.save_for_backward(a, start, states)
        return states.sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, start, states = ctx.saved_tensors
        batch, h, w, m = a.shape
        grad_a, grad_b = torch.empty_like(states), torch.empty_like(states)
        grad_start = a.new_empty(4, batch, m)
        grid = (batch, 4, triton.cdiv(m, LANES))
        _backward[grid](
            a,
            start,
            states,
            grads[0].contiguous(),
            grad_a,
            grad_b,
            grad_start,
            h,
            w,
            m,
            LANES=LANES,
            STRETCH=STRETCH,
            num_warps=1,
        )
        # Orders 0 and 2 go forward, 1 and 3 backward.
        grad_start = (grad_start[:2] + grad_start[2:]).transpose(0, 1)
        return grad_a.sum(0), grad_b.sum(0), grad_start


def recurrence(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """Sum of the four orders' states, float32; see `diffmf_cli.scan.recurrence.scan_with`."""
    result: Tensor = _FourOrders.apply(a, b, start)
    return result


def selective_scan_2d(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """See `diffmf_cli.scan.selective_scan_2d`. The kernel is float32."""
    return scan_with(recurrence, x, delta, A, B, C, D, delta_bias)
