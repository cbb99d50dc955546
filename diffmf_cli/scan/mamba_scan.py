"""The scan through the CUDA kernel of the package mamba-ssm, where it is installed.

The kernel walks one sequence, forward: the four orders are laid out as four copies of the picture.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import softplus

from diffmf_cli.scan.recurrence import start_states

NAME = "mamba-ssm"
WRITES_OUT = False


@cache
def _missing() -> str | None:
    try:
        # The compiled extension, not the package: newer releases install without it.
        import selective_scan_cuda  # noqa: F401
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # noqa: F401
    except Exception as error:  # a broken build raises anything, from ImportError to OSError
        return f"mamba-ssm does not import ({error}); install the extra: pip install 'diffmf[mamba]'"
    return None


def unavailable(device: torch.device) -> str | None:
    """A reason, or None where the compiled kernel imports and the device is CUDA."""
    if device.type != "cuda":
        return "mamba-ssm runs on CUDA only"
    return _missing()


def selective_scan_2d(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """See `diffmf_cli.scan.selective_scan_2d`."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    h, w = x.shape[1:3]

    def sequences(t: Tensor) -> Tensor:
        """`(B, H, W, m)` -> `(4 B, m, H W)`, one sequence an order."""
        rows, columns = t.permute(0, 3, 1, 2).flatten(2), t.permute(0, 3, 2, 1).flatten(2)
        return torch.cat([rows, rows.flip(-1), columns, columns.flip(-1)]).contiguous()

    # The kernel wants one dtype for its sequences and float32 for the parameters.
    dtype = x.dtype
    x, delta, A, B, C, D, delta_bias = (t.float() for t in (x, delta, A, B, C, D, delta_bias))
    C_sequences = sequences(C)
    y = selective_scan_fn(
        sequences(x),
        sequences(delta),
        A,
        sequences(B)[:, None],
        C_sequences[:, None],
        D=None,
        delta_bias=delta_bias,
        delta_softplus=True,
    )
    # It starts from zero; the start states' share decays beside it.
    dt = softplus(delta + delta_bias)
    forward, reverse = start_states(x, dt, A, B).unbind(1)
    starts = torch.cat([forward, reverse, forward, reverse])
    elapsed = sequences(dt).cumsum(-1)
    for n in range(A.shape[1]):
        decayed = torch.exp(A[:, n, None] * elapsed) * starts[..., n, None]
        y = y + C_sequences[:, n, None] * decayed
    rows, rows_back, columns, columns_back = y.chunk(4)
    rows, columns = rows + rows_back.flip(-1), columns + columns_back.flip(-1)
    total = rows.unflatten(-1, (h, w)).permute(0, 2, 3, 1) + columns.unflatten(-1, (w, h)).permute(0, 3, 2, 1)
    return (total + D * x).to(dtype)
