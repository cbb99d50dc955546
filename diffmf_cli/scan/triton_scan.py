"""The scan on a CUDA device with our own Triton kernels: no layout copies, nothing to compile at install."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from diffmf_cli.scan import torch_scan, triton_training

NAME = "triton"
WRITES_OUT = False
LANES = 32
STRETCH = 16
CHUNK = 16  # tokens, which a program of the scan for inference keeps in registers
ROWS = {"chunk_states": 2, "chunk_outputs": 2}  # chunks of a program: values of a thread
GROUPS = 64  # of chunks, whose states are chained at once
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


def scan_chunks(
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
        out: `(P, H, W, d)`, or `(2, P, H, W, d)` for the orders along rows and those along columns apart.
        shared: maps in a row that have the same parameters.

    Returns:
        `out`.
    """
    from diffmf_cli.scan import triton_kernels

    pictures, h, w, d = x.shape
    sets, _, n = A.shape
    chunks, blocks = _ceil_div(h * w, CHUNK), _ceil_div(d, LANES)
    decay = x.new_empty(pictures, 2, n, chunks, d, dtype=torch.float32)
    states = x.new_empty(pictures, 4, n, chunks, d, dtype=torch.float32)
    bias = delta if delta_bias is None else delta_bias
    sizes = (h, w, chunks, shared)
    kinds = {"d": d, "N": n, "SETS": sets, "SOFTPLUS": delta_bias is not None}
    inputs = (x, delta, bias, A, B)

    def walk(kernel: Any, axes: int, *arguments: Any, **constants: Any) -> None:
        rows = ROWS[kernel.fn.__name__]
        grid = (_ceil_div(chunks, rows), axes * blocks, pictures)
        tile = {"CHUNK": CHUNK, "ROWS": rows, "LANES": LANES, "num_warps": 1}
        launch(kernel, grid, *inputs, *arguments, *sizes, **kinds, **constants, **tile)

    walk(triton_kernels.chunk_states, 2, decay, states)
    launch(
        triton_kernels.entering_states,
        (n * _ceil_div(d, 16), 4, pictures),
        *inputs,
        decay,
        states,
        *sizes,
        **kinds,
        GROUPS=GROUPS,
        STRETCH=4,
        LANES=16,
    )
    if out.ndim == 5:
        walk(triton_kernels.chunk_outputs, 2, C, D, states, out, FIRST=0, ADD=False)
    else:
        for axis in range(2):
            walk(triton_kernels.chunk_outputs, 1, C, D, states, out, FIRST=axis, ADD=axis == 1)
    return out


def selective_scan_2d(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """See `diffmf_cli.scan.selective_scan_2d`. The kernels are float32; float64 goes to the torch backend."""
    arguments = (x, delta, A, B, C, D, delta_bias)
    if x.dtype == torch.float64 or x[0].numel() >= _LARGEST:
        return torch_scan.selective_scan_2d(*arguments)
    if torch.is_grad_enabled() and any(t.requires_grad for t in arguments):
        return triton_training.selective_scan_2d(*arguments)
    x, delta, B, C = (t.contiguous() for t in (x, delta, B, C))
    A, D, delta_bias = (t.float().contiguous() for t in (A, D, delta_bias))
    return scan_chunks(x, delta, A[None], B, C, D[None], delta_bias[None], torch.empty_like(x), len(x))
