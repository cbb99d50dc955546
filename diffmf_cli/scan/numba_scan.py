"""The scan on a CPU at the speed of its caches.

A task takes 16 channels of one picture through all four orders: decay and input are computed once into a
buffer that stays in the core's cache, and the picture is read and written once. Tasks run on threads of their
own, without the interpreter lock and without shared sums, so that the result does not depend on their number.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from diffmf_cli.scan import torch_scan
from diffmf_cli.scan.recurrence import scan_with, start_states
from diffmf_cli.threads import on_threads

NAME = "numba"
WRITES_OUT = True


@cache
def _missing() -> str | None:
    try:
        import diffmf_cli.scan.numba_kernels  # noqa: F401
    except Exception as error:  # numba raises more than ImportError, where it finds no folder for its cache
        return f"numba does not work here ({error}): install it, or set NUMBA_CACHE_DIR to a folder of yours"
    return None


def unavailable(device: torch.device) -> str | None:
    """A reason, or None where numba is installed and the device is a CPU."""
    if device.type != "cpu":
        return "numba runs on the CPU only"
    return _missing()


def _run(task: Callable[[int, int], None], batch: int, channels: int) -> None:
    """Calls `task(picture, first channel)` for all pictures and blocks of channels."""
    from diffmf_cli.scan.numba_kernels import LANES

    jobs = [(i, first) for i in range(batch) for first in range(0, channels, LANES)]
    on_threads(lambda job: task(*job), jobs)


def _numpy(t: Tensor) -> np.ndarray:
    """`(B, H, W, m)` -> `(B, H * W, m)` float32, contiguous."""
    return t.detach().to(torch.float32).contiguous().flatten(1, 2).numpy()


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, start: Tensor) -> Tensor:
        from diffmf_cli.scan.numba_kernels import recurrence_task

        ctx.save_for_backward(a, b, start)
        batch, h, w, m = a.shape
        total = torch.empty(a.shape, dtype=torch.float32)
        na, nb, nt = _numpy(a), _numpy(b), _numpy(total)
        ns = start.detach().contiguous().numpy()
        _run(lambda i, first: recurrence_task(na[i], nb[i], ns[i], h, w, first, nt[i]), batch, m)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from diffmf_cli.scan.numba_kernels import recurrence_backward_task

        a, b, start = ctx.saved_tensors
        batch, h, w, m = a.shape
        grad_a, grad_b = (torch.empty(a.shape, dtype=torch.float32) for _ in range(2))
        grad_start = torch.zeros(start.shape, dtype=torch.float32)
        na, nb, ng, nga, ngb = (_numpy(t) for t in (a, b, grads[0], grad_a, grad_b))
        ns, ngs = start.contiguous().numpy(), grad_start.numpy()

        def task(i: int, first: int) -> None:
            recurrence_backward_task(na[i], nb[i], ns[i], ng[i], h, w, first, nga[i], ngb[i], ngs[i])

        _run(task, batch, m)
        return grad_a, grad_b, grad_start


def recurrence(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """Sum of the four orders' states, float32; see `diffmf_cli.scan.recurrence.scan_with`."""
    result: Tensor = _Recurrence.apply(a, b, start)
    return result


def selective_scan_2d(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """See `diffmf_cli.scan.selective_scan_2d`. The kernels are float32; float64 goes to the torch backend."""
    arguments = (x, delta, A, B, C, D, delta_bias)
    result = None
    if any(t.dtype == torch.float64 for t in arguments):
        result = torch_scan.selective_scan_2d(*arguments)
    elif torch.is_grad_enabled() and any(t.requires_grad for t in arguments):
        result = scan_with(recurrence, *arguments)
    if result is not None:
        return result if out is None else out.copy_(result)
    from diffmf_cli.scan.numba_kernels import scan_task

    batch, h, w, d = x.shape
    corners = [t[:, :: max(1, h - 1), :: max(1, w - 1)].float() for t in (x, delta, B)]
    dt = softplus(corners[1] + delta_bias.float())
    starts = start_states(corners[0], dt, A.float(), corners[2]).contiguous().numpy()
    nx, nd, nB, nC = (_numpy(t) for t in (x, delta, B, C))
    nA, nD, bias = (t.detach().to(torch.float32).contiguous().numpy() for t in (A, D, delta_bias))
    # A task has read its channels whole before it writes them, so `out` may be `delta`; with more states it
    # reads them again for each.
    direct = out is not None and out.dtype == torch.float32 and out.is_contiguous() and A.shape[1] == 1
    y = out if out is not None and direct else torch.empty(x.shape, dtype=torch.float32)
    ny = _numpy(y)
    _run(
        lambda i, first: scan_task(nx[i], nd[i], nA, nB[i], nC[i], nD, bias, starts[i], h, w, first, ny[i]),
        batch,
        d,
    )
    if out is None:
        return y.to(x.dtype)
    return out if direct else out.copy_(y)
