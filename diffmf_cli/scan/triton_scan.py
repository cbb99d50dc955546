"""The scan on a CUDA device with our own Triton kernels: no layout copies, nothing to compile at install."""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffmf_cli.scan.recurrence import scan_with

NAME = "triton"
WRITES_OUT = False
LANES = 32
STRETCH = 16


@cache
def _missing() -> str | None:
    try:
        import diffmf_cli.scan.triton_kernels  # noqa: F401
    except Exception as error:  # a triton of another torch raises anything
        return f"triton does not import ({error}); it comes with the CUDA builds of torch"
    return None


def unavailable(device: torch.device) -> str | None:
    """A reason, or None where Triton is installed and the device is CUDA."""
    if device.type != "cuda":
        return "triton runs on CUDA only"
    return _missing()


class _FourOrders(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, start: Tensor) -> Tensor:
        from diffmf_cli.scan import triton_kernels

        a, b, start = a.contiguous(), b.contiguous(), start.contiguous()
        batch, h, w, m = a.shape
        states = a.new_empty(4, batch, h, w, m)
        grid = (batch, 4, -(-m // LANES))
        triton_kernels.forward[grid](a, b, start, states, h, w, m, LANES=LANES, STRETCH=STRETCH, num_warps=1)
        ctx.save_for_backward(a, start, states)
        return states.sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from diffmf_cli.scan import triton_kernels

        a, start, states = ctx.saved_tensors
        batch, h, w, m = a.shape
        grad_a, grad_b = torch.empty_like(states), torch.empty_like(states)
        grad_start = a.new_empty(4, batch, m)
        grid = (batch, 4, -(-m // LANES))
        triton_kernels.backward[grid](
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
