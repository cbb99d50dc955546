"""`diffmf info`: what a bug report needs."""

import os
import platform
import sys
from importlib import metadata
from typing import Any

import diffmf_cli
from diffmf_cli.cli import options, weights
from diffmf_cli.cli.output import exit_at_once_on_interrupt, out
from diffmf_cli.errors import DiffmfError
from diffmf_cli.model.catalogue import catalogue

HELP = """
Show versions, devices, scan backends and weights: what a bug report needs.

[bold]Examples[/bold]

diffmf info          for people
diffmf info --json   for programs
"""
_PACKAGES = (
    "torch",
    "numba",
    "triton",
    "mamba-ssm",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "safetensors",
    "huggingface_hub",
    "onnx",
    "onnxruntime",
    "flyr",
    "dji-thermal-cli",
    "rasterio",
    "pydicom",
    "nibabel",
)


def info(
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Gathers and shows it all; the help text is `HELP`."""
    out.configure(json=json, quiet=quiet, verbose=verbose)
    with exit_at_once_on_interrupt(), out.status("Looking at this machine"):
        facts = _facts()
    out.record(facts)
    out.show(_page(facts))


def _facts() -> dict[str, Any]:
    import torch

    from diffmf_cli import scan
    from diffmf_cli.fusion.device import devices

    found = devices()
    best = next(iter(found))
    try:
        checkpoints: list[dict[str, Any]] | str = [weights.describe(e, checked=True) for e in catalogue()]
    except DiffmfError as error:
        checkpoints = str(error)  # what is broken is what a bug report is about
    try:
        chosen = scan.choose(best)
    except DiffmfError as error:
        chosen = str(error)
    return {
        "type": "info",
        "diffmf": diffmf_cli.__version__,
        "installed_in": os.path.dirname(diffmf_cli.__file__),
        "python": platform.python_version(),
        "executable": sys.executable,
        "os": platform.platform(),
        "cpu": {"cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "packages": {name: _version(name) for name in _PACKAGES},
        "cuda": torch.version.cuda,
        "devices": found,
        "scan": {
            "requested": os.environ.get("DIFFMF_SCAN") or "auto",
            "chosen": chosen,
            "unavailable": scan.available(best),
        },
        "weights": checkpoints,
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith("DIFFMF_")},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _page(facts: dict[str, Any]) -> str:
    scan = facts["scan"]
    asked = "fastest that can run" if scan["requested"] == "auto" else "asked for"
    lines = [
        f"diffmf    {facts['diffmf']} in {facts['installed_in']}",
        f"python    {facts['python']} ({facts['executable']})",
        f"system    {facts['os']}, {facts['cpu']['cores']} cores, {facts['cpu']['threads']} threads",
        "packages  " + ", ".join(f"{k} {v}" for k, v in facts["packages"].items() if v),
        "devices   " + ", ".join(f"{k} ({v})" for k, v in facts["devices"].items()),
        f"scan      {scan['chosen']} ({asked} on {next(iter(facts['devices']))})",
    ]
    lines += [f"          {name}: {reason or 'can run'}" for name, reason in scan["unavailable"].items()]
    found = facts["weights"]
    table = found if isinstance(found, str) else weights.table(found)
    lines += [f"{'weights' if i == 0 else '':10}{line}" for i, line in enumerate(table.splitlines())]
    lines += [
        f"{'setting' if i == 0 else '':10}{k}={v}" for i, (k, v) in enumerate(facts["environment"].items())
    ]
    return "\n".join(lines)
