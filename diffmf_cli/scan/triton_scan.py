"""The scan on a CUDA device with our own Triton kernels: no layout copies, nothing to compile at install."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from diffmf_cli.scan.recurrence import scan_with

NAME = "triton"
WRITES_OUT = False
LANES = 16
STRETCH = 16
TILE = 8, 8
TILE_OF_MANY = 4, 8
TILES = 2, 1
SEGMENT = 32  # lines that a program chains
SEGMENTS = 32  # that it passes at once
_LARGEST = 2**31  # the kernels count a picture's values in 32 bits


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Runs a Triton kernel: every launch goes through here."""
    kernel[grid](*arguments, **constants)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


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
    grid = (batch, 4, -(-m // 32))
    triton_kernels.forward[grid](a, b, start, states, h, w, m, LANES=32, STRETCH=STRETCH, num_warps=1)
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
    grid = (batch, 4, -(-m // 32))
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
        LANES=32,
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


def scan_tiles(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor | None,
    out: Tensor,
    shared: int,
) -> Tensor:
    """The scan for inference, of maps whose parameters may differ; see `diffmf_cli.scan.selective_scan_2d`.

    Args:
        x: `(P, H, W, d)`, contiguous as all tensors.
        delta: `(P, H, W, d)`: step sizes themselves where there is no `delta_bias`.
        A: `(sets, d, n)` float32. The first `shared` maps have the first set, the next ones the second; all
            that remain have the last.
        B: `(P, H, W, n)`.
        C: `(P, H, W, n)`.
        D: `(sets, d)` float32.
        delta_bias: `(sets, d)` float32.
        out: `(P, H, W, d)`.
        shared: maps in a row that have the same parameters.

    Returns:
        `out`.
    """
    from diffmf_cli.scan import triton_kernels

    pictures, h, w, d = x.shape
    sets, _, n = A.shape
    height, width = TILE if n == 1 else TILE_OF_MANY
    across, down = TILES
    groups = _ceil_div(h, down * height) * _ceil_div(w, across * width)
    rows, columns = h * _ceil_div(w, across * width), w * _ceil_div(h, down * height)
    segments = _ceil_div(rows, SEGMENT) + _ceil_div(columns, SEGMENT)

    def empty(*shape: int) -> Tensor:
        return torch.empty(pictures, *shape, d, device=x.device, dtype=torch.float32)

    lines = empty(n, rows + columns), empty(2, n, rows + columns)  # decay and states
    chained = *lines, empty(n, segments), empty(2, n, segments)
    inputs = x, delta, delta if delta_bias is None else delta_bias, A, B
    sizes = h, w, sets, shared
    kinds = {"d": d, "N": n, "SOFTPLUS": delta_bias is not None, "num_warps": LANES * across * down // 32}
    tiles = {"HEIGHT": height, "WIDTH": width, "ACROSS": across, "DOWN": down, "LANES": LANES}
    chain = {"d": d, "N": n, "SEGMENT": SEGMENT, "num_warps": 1}
    grid = groups * _ceil_div(d, LANES), pictures
    by_segment = segments * _ceil_div(d, 32), pictures * n
    launch(triton_kernels.tile_states, grid, *inputs, *lines, *sizes, **kinds, **tiles)
    launch(triton_kernels.segment_states, by_segment, *chained, rows, columns, **chain)
    chain |= {"SOFTPLUS": delta_bias is not None, "STRETCH": SEGMENTS}
    launch(triton_kernels.entering_states, by_segment, *inputs, *chained, rows, columns, *sizes, **chain)
    launch(triton_kernels.tile_outputs, grid, *inputs, C, D, lines[1], out, *sizes, **kinds, **tiles)
    return out


def selective_scan_2d(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """See `diffmf_cli.scan.selective_scan_2d`. The kernels are float32."""
    arguments = (x, delta, A, B, C, D, delta_bias)
    trained = torch.is_grad_enabled() and any(t.requires_grad for t in arguments)
    if trained or x.dtype == torch.float64 or x[0].numel() >= _LARGEST:
        return scan_with(recurrence, *arguments)
    x, delta, B, C = (t.contiguous() for t in (x, delta, B, C))
    A, D, delta_bias = (t.float().contiguous() for t in (A, D, delta_bias))
    return scan_tiles(x, delta, A[None], B, C, D[None], delta_bias[None], torch.empty_like(x), len(x))
