"""The scan on a CUDA device with our own Triton kernels: no layout copies, nothing to compile at install."""

from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from diffmf_cli.scan import resident_scan, torch_scan, triton_training

NAME = "triton"
WRITES_OUT = False
STRETCH = 16
TILE = 8, 8
TILE_OF_MANY = 4, 8
TILES = 2, 1
SEGMENT = 32  # lines
_LARGEST = 2**31  # the kernels count a picture's values in 32 bits


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Runs a Triton kernel: every launch goes through here."""
    kernel[grid](*arguments, **constants)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@cache
def _missing() -> str | None:
    try:
        triton = import_module("triton")
        if not hasattr(import_module("triton.language"), "gather"):
            return f"triton {triton.__version__} is older than 3.3, which comes with torch 2.7"
        import diffmf_cli.scan.triton_kernels  # noqa: F401
    except Exception as error:  # a triton of another torch raises anything
        return f"triton does not import ({error}); it comes with the CUDA builds of torch"
    return None


def unavailable(device: torch.device) -> str | None:
    """A reason, or None where Triton is installed and the device is CUDA."""
    if device.type != "cuda":
        return "triton runs on CUDA only"
    return _missing()


@lru_cache(16)
def _memory_of(device: torch.device, stream: int) -> resident_scan.Memory:
    return resident_scan.Memory()


def _memory(device: torch.device) -> resident_scan.Memory | None:
    """That of the stream's launches, which follow each other; a captured launch has its own."""
    if device.type != "cuda" or torch.compiler.is_compiling():  # which takes Triton's kernels as they are
        return None
    if torch.cuda.is_current_stream_capturing():
        return resident_scan.Memory()
    return _memory_of(device, torch.cuda.current_stream(device).cuda_stream)


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
    memory: resident_scan.Memory | None,
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
        memory: of this place: see `resident_scan.Memory`; None for the Triton kernels.

    Returns:
        `out`.
    """
    if memory is not None and resident_scan.scan(x, delta, A, B, C, D, delta_bias, out, shared, memory):
        return out
    from diffmf_cli.scan import triton_kernels

    pictures, h, w, d = x.shape
    sets, _, n = A.shape
    height, width = TILE if n == 1 else TILE_OF_MANY
    across, down = TILES
    lanes = 32 // (across * down)
    groups = _ceil_div(h, down * height) * _ceil_div(w, across * width)
    rows, columns = h * _ceil_div(w, across * width), w * _ceil_div(h, down * height)
    segments = _ceil_div(rows, SEGMENT) + _ceil_div(columns, SEGMENT)

    def empty(*shape: int) -> Tensor:
        return torch.empty(pictures, *shape, d, device=x.device, dtype=torch.float32)

    lines = empty(n, rows + columns), empty(2, n, rows + columns)  # decay and states
    chained = *lines, empty(n, segments), empty(2, n, segments)
    inputs = x, delta, delta if delta_bias is None else delta_bias, A, B
    sizes = h, w, sets, shared
    kinds = {"d": d, "N": n, "SOFTPLUS": delta_bias is not None, "num_warps": 1}
    tiles = {"HEIGHT": height, "WIDTH": width, "ACROSS": across, "DOWN": down}
    chain = {"d": d, "N": n, "SEGMENT": SEGMENT, "num_warps": 1}
    grid = groups * _ceil_div(d, lanes), pictures
    by_segment = segments * _ceil_div(d, 32), pictures * n
    launch(triton_kernels.tile_states, grid, *inputs, *lines, *sizes, **kinds, **tiles)
    launch(triton_kernels.segment_states, by_segment, *chained, rows, columns, **chain)
    chain |= {"SOFTPLUS": delta_bias is not None, "STRETCH": STRETCH}
    launch(triton_kernels.entering_states, by_segment, *inputs, *chained, rows, columns, *sizes, **chain)
    launch(triton_kernels.tile_outputs, grid, *inputs, C, D, lines[1], out, *sizes, **kinds, **tiles)
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
    parameters = A[None], B, C, D[None], delta_bias[None]
    return scan_tiles(x, delta, *parameters, torch.empty_like(x), len(x), _memory(x.device))
