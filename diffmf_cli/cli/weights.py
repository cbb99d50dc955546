"""`diffmf download-weights`: which checkpoints there are, and whether they are whole."""

from typing import Annotated, Any

import typer

from diffmf_cli.cli import options
from diffmf_cli.cli.output import out
from diffmf_cli.errors import UsageError, WeightsError
from diffmf_cli.model.catalogue import Entry, catalogue, check, find_weights

HELP = """
List and check the weights. All of them are shipped with diffmf: nothing has to be downloaded.

[bold]Examples[/bold]

diffmf download-weights --list         what there is
diffmf download-weights --check        compares every file with its checksum
diffmf download-weights base --check   only one
"""


def download_weights(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", show_default=False, help="One checkpoint; else all.")
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", metavar="", help="List the checkpoints (the default).")
    ] = False,
    checking: Annotated[
        bool, typer.Option("--check", metavar="", help="Compare sizes and checksums.")
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Lists or checks the catalogue; the help text is `HELP`."""
    out.configure(json=json, quiet=quiet, verbose=verbose)
    if listing and checking:
        raise UsageError("--list and --check are two questions: ask one")
    entries = [entry for entry in catalogue() if name in (None, entry.name)]
    if not entries and name is not None:
        find_weights(name)  # raises, with a guess at what was meant, unless it is a file of the user's own
        raise UsageError(f"{name} is not in the catalogue: see diffmf download-weights --list")

    rows = [describe(entry, checked=checking) for entry in entries]
    if bad := [f"{row['name']} ({row['state']})" for row in rows if row["state"] not in ("present", "whole")]:
        raise WeightsError(f"weights missing or damaged: {', '.join(bad)}; reinstall diffmf")
    out.record({"type": "weights", "weights": rows})
    out.show(table(rows))
    if not listing and not checking:
        out.talk("These are shipped with diffmf: nothing had to be downloaded.")


def describe(entry: Entry, *, checked: bool) -> dict[str, Any]:
    """One checkpoint for a table or a JSON record; `checked` compares its checksum, which reads the file."""
    state = "missing" if entry.path is None else "present"
    if checked:
        state = check(entry) or "whole"
    return {
        "name": entry.name,
        "task": entry.task,
        "version": entry.version,
        "bytes": entry.bytes,
        "state": state,
        "path": str(entry.path) if entry.path else None,
        "description": entry.description,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """What `describe` gave, for eyes: two lines a checkpoint."""
    width = max((len(row["name"]) for row in rows), default=0)
    lines = []
    for row in rows:
        facts = f"{row['task']}, version {row['version']}, {row['bytes'] / 1e6:.1f} MB, {row['state']}"
        lines.append(f"{row['name']:{width}}  {facts}: {row['description']}")
        lines.append(f"{'':{width}}  {row['path'] or 'no file'}")
    return "\n".join(lines)
