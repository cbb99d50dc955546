"""Which device the network runs on."""

import re
from typing import TYPE_CHECKING

from diffmf_cli.errors import UsageError

if TYPE_CHECKING:
    import torch


def check_device_name(name: str) -> None:
    """Refuses what no machine has, without importing torch.

    Raises:
        UsageError: unless `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", name):
        raise UsageError(f"unknown device '{name}': use auto, cpu, cuda, cuda:N or mps")


def devices() -> dict[str, str]:
    """Devices that can be used here, best first, each with its name."""
    import torch

    found = {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return {**found, "cpu": f"{torch.get_num_threads()} threads"}


def resolve_device(name: str) -> "torch.device":
    """The device that a name means here; `auto` is the best one.

    Raises:
        UsageError: if there is no such device, here or anywhere.
    """
    import torch

    check_device_name(name)
    found = list(devices())
    if name == "auto":
        return torch.device(found[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in found:
        why = ""
        if name.startswith("cuda") and torch.version.cuda is None:
            why = f" (torch {torch.__version__} is built without CUDA)"
        raise UsageError(f"no device '{name}' here{why}: use one of {', '.join(found)}, or auto")
    return torch.device(wanted)
