"""The scan with gradients on a CUDA device: one operator forward, one backward, three kernels each.

Nothing is left to torch but sums of a few parts, which `torch.compile` fuses with what is around them.
All sums have a fixed order: a step gives the same bytes again.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK = 8  # tokens, over whose states a program keeps a hand
VALUES = 128  # of a program's tile: four for each thread of a warp
GROUPS = 64  # of chunks, whose states are chained at once


def _by_token(t: Tensor, most: int) -> tuple[Tensor, int]:
    """B or C `(P, h, w, n)` and how far apart its tokens lie: parts of a projection need no copy."""
    _, h, w, n = t.shape
    apart = t.stride(2)
    even = t.stride(0) == h * w * apart and t.stride(1) == w * apart and (n == 1 or t.stride(3) == 1)
    return (t, apart) if even and n <= apart <= most else (t.contiguous(), n)


def _walk(kernel: Any, x: Tensor, states: int, tensors: tuple[Tensor, ...], *apart: int) -> None:
    """Launches a kernel that walks the tokens of `x` `(P, h, w, d)` along both axes."""
    pictures, h, w, d = x.shape
    lanes = _lanes(d)
    grid = (_programs(h * w, d), 2 * -(-d // lanes), pictures)
    tile = {"CHUNK": CHUNK, "ROWS": VALUES // lanes, "LANES": lanes, "num_warps": 1}
    kernel[grid](*tensors, h, w, _chunks(h * w), *apart, d=d, N=states, **tile)


def _chain(
    adjoint: bool, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, apart: int, decay: Tensor, states: Tensor
) -> None:
    from diffmf_cli.scan import training_kernels

    pictures, h, w, d = x.shape
    n = A.shape[0]
    grid = (n * -(-d // 16), 4, pictures)
    tile = {"GROUPS": GROUPS, "STRETCH": 4, "LANES": 16}
    tensors = (x, dt, A, B, decay, states)
    training_kernels.chain[grid](*tensors, h * w, _chunks(h * w), apart, d=d, N=n, ADJOINT=adjoint, **tile)


def _lanes(d: int) -> int:
    return 16 if d % 32 else 32


def _chunks(tokens: int) -> int:
    return -(-tokens // CHUNK)


def _programs(tokens: int, d: int) -> int:
    return -(-_chunks(tokens) * _lanes(d) // VALUES)


@torch.library.custom_op("diffmf::scan", mutates_args=())
def _scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Results of the orders along rows and of those along columns, `(P, h, w, d)` float32.

    And what the way back needs: step sizes `(P, h, w, d)`, decays of chunks `(P, 2, n, chunks, d)` and the
    states that enter them, `(P, 4, n, chunks, d)`. `A` is `(n, d)`; it, `D` and `delta_bias` are float32.
    """
    from diffmf_cli.scan import training_kernels as kernels

    x, delta, A, D, delta_bias = (t.contiguous() for t in (x, delta, A, D, delta_bias))
    n = A.shape[0]
    (B, B_apart), (C, C_apart) = _by_token(B, x.shape[3]), _by_token(C, x.shape[3])
    results = _empty_results(x, A)
    rows, columns, dt, decay, states = results
    _walk(kernels.chunk_states, x, n, (x, delta, delta_bias, A, B, dt, decay, states), B_apart)
    _chain(False, x, dt, A, B, B_apart, decay, states)
    _walk(kernels.outputs, x, n, (x, dt, A, B, C, D, states, rows, columns), B_apart, C_apart)
    return results


def _empty_results(x: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    pictures, h, w, d = x.shape
    rows, columns, dt = (A.new_empty(x.shape) for _ in range(3))
    decay, states = (A.new_empty(pictures, k, A.shape[0], _chunks(h * w), d) for k in (2, 4))
    return rows, columns, dt, decay, states


@_scan.register_fake
def _(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _empty_results(x, A)


@torch.library.custom_op("diffmf::scan_backward", mutates_args=())
def _scan_backward(
    x: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt: Tensor,
    decay: Tensor,
    states: Tensor,
    grad_rows: Tensor,
    grad_columns: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Parts of the gradients, to be added over the first dimension.

    Of `x` and of `delta` `(2, P, h, w, d)`, of `B` beside `C` `(parts, P, h, w, 2 n)`, of `A`, `delta_bias`
    and `D` below each other `(parts, n + 2, d)`.
    """
    from diffmf_cli.scan import training_kernels as kernels

    x, A, D, grad_rows, grad_columns = (t.contiguous() for t in (x, A, D, grad_rows, grad_columns))
    (B, B_apart), (C, C_apart) = _by_token(B, x.shape[3]), _by_token(C, x.shape[3])
    adjoints = torch.empty_like(states)
    grads = _empty_gradients(x, A)
    n = A.shape[0]
    upstream = (grad_rows, grad_columns)
    _walk(kernels.chunk_adjoints, x, n, (dt, A, C, *upstream, adjoints), C_apart)
    _chain(True, x, dt, A, B, B_apart, decay, adjoints)
    tensors = (x, dt, A, B, C, D, *upstream, states, adjoints, *grads)
    _walk(kernels.gradients, x, n, tensors, B_apart, C_apart)
    return grads


def _empty_gradients(x: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pictures, h, w, d = x.shape
    n = A.shape[0]
    grad_x, grad_delta = (A.new_empty(2, pictures, h, w, d) for _ in range(2))
    grad_BC = A.new_empty(2 * -(-d // _lanes(d)), pictures, h, w, 2 * n)
    return grad_x, grad_delta, grad_BC, A.new_empty(2 * pictures * _programs(h * w, d), n + 2, d)


@_scan_backward.register_fake
def _(
    x: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt: Tensor,
    decay: Tensor,
    states: Tensor,
    grad_rows: Tensor,
    grad_columns: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty_gradients(x, A)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    x, _, A, B, C, D, _ = inputs
    ctx.save_for_backward(x, A, B, C, D, *output[2:])
    ctx.delta_dtype = inputs[1].dtype
    ctx.set_materialize_grads(False)  # nobody takes a gradient of step sizes, decays and states


def _backward(ctx: Any, grad_rows: Tensor, grad_columns: Tensor, *_: None) -> tuple[Tensor, ...]:
    x, A, B, C = ctx.saved_tensors[:4]
    parts = _scan_backward(*ctx.saved_tensors, grad_rows, grad_columns)
    n = A.shape[0]
    grad_B, grad_C = parts[2].sum(0).split(n, -1)
    grad_A, grad_bias, grad_D = parts[3].sum(0).split([n, 1, 1])
    return (
        (parts[0][0] + parts[0][1]).to(x.dtype),
        (parts[1][0] + parts[1][1]).to(ctx.delta_dtype),
        grad_A,
        grad_B.to(B.dtype),
        grad_C.to(C.dtype),
        grad_D[0],
        grad_bias[0],
    )


_scan.register_autograd(_backward, setup_context=_save)


def selective_scan_2d(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """See `diffmf_cli.scan.selective_scan_2d`; of pictures with fewer than 2^31 values, not float64."""
    rows, columns, *_ = _scan(x, delta, A.t().float(), B, C, D.float(), delta_bias.float())
    result: Tensor = (rows + columns).to(x.dtype)
    return result
