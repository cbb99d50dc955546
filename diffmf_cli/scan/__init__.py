"""The selective scan over a picture, as one function with interchangeable backends.

`selective_scan_2d` is what the network calls. Which backend computes it is chosen at run time: the fastest
that the device can run, or the one that `using(...)` or the environment variable `DIFFMF_SCAN` names.

A backend is a module of this package with `NAME`, `unavailable(device)` (a reason, or None) and
`selective_scan_2d(...)`, which takes `out` where `WRITES_OUT` is true. All of them compute the same thing and
are held to `reference` in float64.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from diffmf_cli.errors import UsageError, check_choice

if TYPE_CHECKING:
    import torch

# Name -> module, in the order of preference: `auto` takes the first that can run on the device.
_MODULES = {
    "triton": "triton_scan",
    "mamba-ssm": "mamba_scan",
    "numba": "numba_scan",
    "torch": "torch_scan",
    "reference": "reference",
}
EXPORT = "export"  # the backend of traced programs: `using` takes it, and nobody else names it
_loaded: dict[str, ModuleType] = {}
_forced: ContextVar[str] = ContextVar("scan_backend", default="auto")


def names() -> list[str]:
    """Names that `--scan-backend` and `DIFFMF_SCAN` take."""
    return ["auto", *_MODULES]


def _module(name: str) -> ModuleType:
    if name not in _loaded:
        module = "exportable" if name == EXPORT else _MODULES[name]
        _loaded[name] = import_module(f"{__name__}.{module}")
    return _loaded[name]


def requested() -> str:
    """The backend asked for by `using`, else by `DIFFMF_SCAN`, else `auto`."""
    name = _forced.get()
    if name == "auto":
        name = os.environ.get("DIFFMF_SCAN") or "auto"
        check_choice("scan backend", name, names())
    return name


@contextmanager
def using(name: str) -> Iterator[None]:
    """Forces one backend within the block, also `EXPORT`; `auto` leaves the choice as it is.

    Raises:
        UsageError: for a name that no backend has.
    """
    if name != EXPORT:
        check_choice("scan backend", name, names())
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def available(device: "torch.device | str" = "cpu") -> dict[str, str | None]:
    """Backend -> None where it can run on the device, else the reason why not."""
    import torch

    return {name: _module(name).unavailable(torch.device(device)) for name in _MODULES}


def choose(device: "torch.device | str") -> str:
    """The backend that a scan on this device runs with.

    Raises:
        UsageError: if the backend asked for is unknown or cannot run there.
    """
    import torch

    device = torch.device(device)
    name = requested()
    if name == "auto":
        return next(n for n in _MODULES if _module(n).unavailable(device) is None)
    reason = _module(name).unavailable(device)
    if reason is not None:
        raise UsageError(f"scan backend '{name}' cannot be used on {device}: {reason}")
    return name


def selective_scan_2d(
    x: "torch.Tensor",
    delta: "torch.Tensor",
    A: "torch.Tensor",
    B: "torch.Tensor",
    C: "torch.Tensor",
    D: "torch.Tensor",
    delta_bias: "torch.Tensor",
    out: "torch.Tensor | None" = None,
) -> "torch.Tensor":
    """Selective scan (S6) along four raster orders of a picture, summed.

    The orders are rows, rows reversed, columns, columns reversed, each one sequence that wraps around at the
    end of a line. With `dt = softplus(delta + delta_bias)`::

        s_t = exp(dt_t A) s_{t-1} + dt_t B_t x_t        (state (d, n), one per order)
        y_t = C_t . (sum of the four states at t) + D x_t

    The recurrence is that of Mamba (Gu & Dao 2023, eq. 2 with the simplified discretisation of B); four
    orders that share their parameters are VMamba's SS2D with one group. Ours: an order does not start from
    zero but from the state that an endless run of its first token would have left, so that a constant picture
    gives a constant result. Differentiable in every argument.

    Args:
        x: `(B, H, W, d)` values.
        delta: `(B, H, W, d)` step sizes before bias and softplus.
        A: `(d, n)` decay rates, negative.
        B: `(B, H, W, n)` input weights.
        C: `(B, H, W, n)` output weights.
        D: `(d,)` skip.
        delta_bias: `(d,)` added to `delta`.
        out: where the result goes, for large pictures outside of training; may be `delta`, whose values then
            are gone.

    Returns:
        `(B, H, W, d)` in the dtype of `x`; the state is float32 or wider whatever the inputs are.
    """
    backend = _module(choose(x.device))
    arguments = (x, delta, A, B, C, D, delta_bias)
    if out is not None and backend.WRITES_OUT:
        backend.selective_scan_2d(*arguments, out)
        return out
    result: torch.Tensor = backend.selective_scan_2d(*arguments)
    return result if out is None else out.copy_(result)
