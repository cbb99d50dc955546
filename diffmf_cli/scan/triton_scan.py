"""The scan on a CUDA device with our own Triton kernels: no layout copies, nothing to compile at install."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

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


# As operators with a shape rule each, so that `torch.compile` takes them as they are.
@torch.library.custom_op("diffmf::four_orders", mutates_args=())
def _four_orders(a: Tensor, b: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the four orders' states, `(B, H, W, m)`, and the states, `(4, B, H, W, m)`."""
    from diffmf_cli.scan import triton_kernels

    a, b, start = a.contiguous(), b.contiguous(), start.contiguous()
    batch, h, w, m = a.shape
    states = a.new_empty(4, batch, h, w, m)
    grid = (batch, 4, -(-m // LANES))
    triton_kernels.forward[grid](a, b, start, states, h, w, m, LANES=LANES, STRETCH=STRETCH, num_warps=1)
    return states.sum(0), states


@_four_orders.register_fake
def _(a: Tensor, b: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    return a.new_empty(a.shape), a.new_empty((4, *a.shape))


@torch.library.custom_op("diffmf::four_orders_backward", mutates_args=())
def _four_orders_backward(
    a: Tensor, start: Tensor, states: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `a`, `b` and `start`."""
    from diffmf_cli.scan import triton_kernels

    a, start, grad = a.contiguous(), start.contiguous(), grad.contiguous()
    batch, h, w, m = a.shape
    grad_a, grad_b = torch.empty_like(states), torch.empty_like(states)
    grad_start = a.new_empty(4, batch, m)
    grid = (batch, 4, -(-m // LANES))
    triton_kernels.backward[grid](
        a,
        start,
        states,
        grad,
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
    grad_start = (grad_start[:2] + grad_start[2:]).transpose(0, 1).contiguous()
    return grad_a.sum(0), grad_b.sum(0), grad_start


@_four_orders_backward.register_fake
def _(a: Tensor, start: Tensor, states: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(a.shape), a.new_empty(a.shape), start.new_empty(start.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    a, _, start = inputs
    ctx.save_for_backward(a, start, output[1])
    ctx.set_materialize_grads(False)  # nobody takes a gradient of the states


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    result: tuple[Tensor, Tensor, Tensor] = _four_orders_backward(*ctx.saved_tensors, grad)
    return result


_four_orders.register_autograd(_backward, setup_context=_save)


def recurrence(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """Sum of the four orders' states, float32; see `diffmf_cli.scan.recurrence.scan_with`."""
    result: Tensor = _four_orders(a, b, start)[0]
    return result


def selective_scan_2d(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """See `diffmf_cli.scan.selective_scan_2d`. The kernel is float32."""
    return scan_with(recurrence, x, delta, A, B, C, D, delta_bias)
