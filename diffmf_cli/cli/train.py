"""`diffmf train`: weights of one's own, from a recipe."""

from pathlib import Path
from typing import Annotated, Any

from diffmf_cli.cli.options import (
    DeviceOption,
    JsonOption,
    QuietOption,
    ScanBackendOption,
    VerboseOption,
    flag,
    option,
)
from diffmf_cli.cli.output import out

_RUN = "Run"

HELP = """
Train weights from a recipe, or go on with a run.

[bold]Examples[/bold]

  diffmf train --config weights/base.toml --data DATA --out runs/base
  diffmf train --config weights/lite.toml --data DATA --out runs/lite --minutes 60

DATA holds the folders that the recipe names, each with ir/ and vi/ (or vis/). A run that was
stopped, by the time budget or by Ctrl-C, goes on where it ended when the same line is given again.
"""


def _line(event: dict[str, Any]) -> str:
    kind = event["type"]
    if kind == "start":
        return (
            f"{event['pairs']} pairs to train on, {event['held_out']} held out; {event['steps']} steps "
            f"on {event['device']}, scan {event['scan']}"
        )
    if kind == "step":
        terms = {k: v for k, v in event.items() if k not in ("type", "step", "loss", "rate", "seconds")}
        named = "  ".join(f"{k} {v:.4f}" for k, v in terms.items())
        return f"step {event['step']:6d}  {event['seconds']:7.1f} s  loss {event['loss']:.4f}  {named}"
    if kind == "validation":
        figures = "  ".join(f"{k} {v:.3f}" for k, v in event.items() if k not in ("type", "step"))
        return f"held out  {figures}"
    return f"saved in {event['folder']}"


def train(
    config: Annotated[Path, option("--config", metavar="FILE.toml", help="The recipe.", panel=_RUN)],
    folder: Annotated[
        Path, option("--out", metavar="DIR", help="Folder of the run; kept and resumed.", panel=_RUN)
    ],
    data: Annotated[
        Path | None,
        option("--data", metavar="DIR", help="Where the recipe's pairs are; else beside it.", panel=_RUN),
    ] = None,
    start: Annotated[
        str | None,
        option("--start", metavar="NAME|PATH", help="Begin with these weights, not random ones.", panel=_RUN),
    ] = None,
    minutes: Annotated[
        float | None, option("--minutes", min=0.0, help="Stop and save after this time.", panel=_RUN)
    ] = None,
    compiled: Annotated[
        bool, flag("--compile", help="On CUDA: half the time a step, after two minutes.", panel=_RUN)
    ] = False,
    device: DeviceOption = "auto",
    scan_backend: ScanBackendOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """See HELP."""
    out.configure(json=as_json, quiet=quiet, verbose=verbose)
    from diffmf_cli.model.catalogue import find_weights
    from diffmf_cli.training.recipe import read_recipe

    recipe = read_recipe(config).located(data or config.parent)
    begin = None if start is None else find_weights(start)

    from diffmf_cli import scan
    from diffmf_cli.fusion.device import resolve_device
    from diffmf_cli.training.loop import train as run

    def report(event: dict[str, Any]) -> None:
        out.record(event)
        out.talk(_line(event))

    with scan.using(scan_backend):
        path = run(recipe, folder, resolve_device(device), report, minutes, begin, compiled)
    out.talk(f"Weights: {path}")
