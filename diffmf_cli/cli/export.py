"""`diffmf export`: a checkpoint as a program for other runtimes."""

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

import diffmf_cli
from diffmf_cli.cli import options
from diffmf_cli.cli.output import exit_at_once_on_interrupt, out
from diffmf_cli.errors import DiffmfError, UsageError, check_choice
from diffmf_cli.threads import limit_threads

HELP = """
Write a model as one file that runs without diffmf: ONNX, or a torch.export program.

[bold]Examples[/bold]

  diffmf export -m lite                            writes lite.onnx
  diffmf export -m base -o out/base.onnx --json    facts as JSON on stdout
  diffmf export -m lite -o lite.pt2                for torch.export.load

[dim]The file takes IR and the luma of VIS, float32 (1, 1, H, W) in [0, 1], of any size, and gives the same:
see docs/export.md. It is compared with the model before it gets its name; a .pt2 takes half a minute.[/dim]
"""
_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
_PACKAGES = ("onnx", "onnxruntime")
_FILE = "File"


def export(
    model: options.ModelOption = "base",
    output: Annotated[
        Path | None,
        options.option(
            "--output",
            "-o",
            metavar="OUT",
            help="The file, .onnx or .pt2; else the model's name in this folder.",
            panel=_FILE,
        ),
    ] = None,
    format: Annotated[
        str,
        options.option(
            "--format",
            metavar="auto|onnx|torch",
            help="auto goes by the end of OUT, and is onnx without one.",
            panel=_FILE,
        ),
    ] = "auto",
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            envvar="DIFFMF_CHECK",
            show_envvar=False,
            metavar="",
            help="Compare the file's results with the model's own.",
            rich_help_panel=_FILE,
        ),
    ] = True,
    overwrite: options.OverwriteOption = False,
    task: options.TaskOption = "auto",
    threads: options.ThreadsOption = None,
    offline: options.OfflineOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Writes and checks; the help text is `HELP`."""
    out.configure(json=json, quiet=quiet, verbose=verbose)
    limit_threads(threads)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    begin = perf_counter()
    # Every mistake that can be found without torch is found first: importing it alone takes seconds.
    from diffmf_cli.images.write import check_place, write_atomically
    from diffmf_cli.model.catalogue import check_task, find_weights

    target, format = _target(model, output, format)
    check_place(target, overwrite)
    path = find_weights(model)
    metadata = check_task(model, path, task)
    _check_packages(format, check)
    facts = {
        "name": path.stem,
        "task": metadata.get("task", "unknown"),
        "version": metadata.get("version", "0"),
        "config": metadata["config"],
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "diffmf": diffmf_cli.__version__,
    }

    difference = None
    with exit_at_once_on_interrupt(), out.status("Loading the model") as doing:
        from diffmf_cli.model import export as exporting
        from diffmf_cli.model.checkpoint import load_checkpoint

        network, _ = load_checkpoint(path)
        doing(f"Making {target.suffix}")
        content = (exporting.to_onnx if format == "onnx" else exporting.to_torch)(network, facts)
        if check:
            doing("Comparing")
            difference = exporting.largest_difference(network, content, format)
            if not difference <= exporting.TOLERANCE:  # NaN is not
                raise DiffmfError(
                    f"{target} is not written: its results differ by {difference:.1e} from those of {path}, "
                    f"more than {exporting.TOLERANCE:.0e}; please report it"
                )
    write_atomically(target, content, overwrite)
    out.record(
        {
            "type": "export",
            "output": str(target),
            "format": format,
            "bytes": len(content),
            "model": facts,
            "difference": difference,
            "seconds": round(perf_counter() - begin, 3),
            "notices": out.notices,
        }
    )
    checked = "not compared" if difference is None else f"at most {difference:.1e} from the original"
    out.talk(f"{target}: {path.stem}, {len(content) / 1e6:.1f} MB, {checked}")


def _target(model: str, output: Path | None, format: str) -> tuple[Path, str]:
    """The file and its format, `onnx` or `torch`."""
    check_choice("format", format, ("auto", *_SUFFIXES))
    if output is None:
        format = "onnx" if format == "auto" else format
        return Path(f"{Path(model).stem}{_SUFFIXES[format]}"), format
    if output.is_dir():
        raise UsageError(f"{output} is a folder: name a file in it")
    named = next((name for name, suffix in _SUFFIXES.items() if suffix == output.suffix.lower()), None)
    if named is None:
        raise UsageError(f"{output}: name it with .onnx, or .pt2 for a torch.export program")
    if format not in ("auto", named):
        raise UsageError(f"{output} is not named as --format {format}: change one of them")
    return output, named


def _check_packages(format: str, check: bool) -> None:
    """Refuses ONNX where its packages are missing, before slow work."""
    needed = _PACKAGES if check else _PACKAGES[:1]
    missing = [name for name in needed if find_spec(name) is None]
    if format == "onnx" and missing:
        raise UsageError(f"ONNX needs {' and '.join(missing)}: pip install 'diffmf[export]'")
