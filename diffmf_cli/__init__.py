"""DIFF-MF infrared and visible image fusion.

    import diffmf_cli

    model = diffmf_cli.load_model("base", device="auto")
    fused = model.fuse(ir, vis)  # numpy arrays; the result has the shape and dtype of `vis`

The command `diffmf` is this API with files around it. Importing the package imports neither torch nor numpy:
they come in with the first call.
"""

import os
from typing import TYPE_CHECKING, Any

from diffmf_cli.errors import DiffmfError, ImageError, UsageError, WeightsError

if TYPE_CHECKING:
    import numpy as np

    from diffmf_cli.fusion.fuser import Fuser

# Threads that wait for each other spin only briefly before they sleep: beside one busy process a fusion took
# 10 s instead of 2 s. OpenMP reads this when torch is imported; a program that has imported it keeps its own.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")

__version__ = "0.1.0"
__all__ = ["DiffmfError", "ImageError", "UsageError", "WeightsError", "__version__", "fuse", "load_model"]


def load_model(
    name_or_path: str = "base",
    *,
    device: str = "auto",
    precision: str = "auto",
    scan_backend: str = "auto",
    tile: str | int = "auto",
    task: str = "auto",
) -> "Fuser":
    """Loads a checkpoint once, ready to fuse any number of pairs.

    Args:
        name_or_path: a checkpoint that `diffmf download-weights --list` names, or a `.safetensors` file.
        device: `auto` (CUDA, else MPS, else CPU), `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `fp32`, `bf16` or `fp16` for convolutions and matrix products; `auto` is fp16 on CUDA
            with the `triton` scan, fp32 elsewhere.
        scan_backend: `auto` or a name that `diffmf info` lists.
        tile: about how many pixels a side the full-resolution stages work on at once; `auto` chooses by
            picture size, 0 is the whole picture. Less needs less memory and gives the same result.
        task: `ir-vis` or `medical` refuses weights for anything else; `auto` takes what the name stands for.

    Raises:
        UsageError: for a value that has no meaning here, such as `cuda` where there is none.
        WeightsError: if the checkpoint is missing, damaged, or of another architecture or task.
    """
    from diffmf_cli.fusion.fuser import Fuser

    return Fuser.load(
        name_or_path, device=device, precision=precision, scan_backend=scan_backend, tile=tile, task=task
    )


def fuse(ir: "np.ndarray", vis: "np.ndarray", *, model: str = "base", **options: Any) -> "np.ndarray":
    """Fuses one pair; for several, `load_model` once and call its `fuse`.

    Args:
        ir: infrared picture, `(H, W)`, `(H, W, 1)` or `(H, W, 3)`; uint8, uint16, or float in [0, 1].
        vis: visible picture, the same forms, RGB order.
        model: as `name_or_path` of `load_model`.
        **options: those of `load_model` and of `Fuser.fuse`.

    Returns:
        The fused picture in the shape and dtype of `vis`.
    """
    loading = {
        key: options.pop(key)
        for key in ("device", "precision", "scan_backend", "tile", "task")
        if key in options
    }
    return load_model(model, **loading).fuse(ir, vis, **options)
