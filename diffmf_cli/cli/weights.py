"""`diffmf download-weights`: which checkpoints there are, whether they are whole, and more of them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffmf_cli.cli import options
from diffmf_cli.cli.output import out
from diffmf_cli.errors import UsageError, WeightsError
from diffmf_cli.model.catalogue import (
    DOWNLOADED,
    SHIPPED,
    TASKS,
    Entry,
    catalogue,
    check,
    downloaded_folder,
    find_weights,
    read_catalogue,
    unknown_model,
)

if TYPE_CHECKING:
    from diffmf_cli.model.hub import Repository

HELP = """
Download, list and check weights. Those that are shipped with diffmf need no download.

[bold]Examples[/bold]

diffmf download-weights --list                     what there is, and where
diffmf download-weights --check                    whether it is whole
diffmf download-weights medical --repo ORG/NAME    from the Hub
diffmf download-weights --all --repo ORG/NAME@v2 --dest weights/

[dim]-m NAME is looked for in this order: $DIFFMF_WEIGHTS (a folder or a file), shipped weights,
downloaded ones in $HF_HOME/diffmf, the repository $DIFFMF_HUB_REPO.
HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are honoured.[/dim]
"""
_SOURCE = "Repository"


def download_weights(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", show_default=False, help="One checkpoint.")
    ] = None,
    everything: Annotated[
        bool, options.flag("--all", help="Every checkpoint of the repository.", panel=_SOURCE)
    ] = False,
    repo: options.RepoOption = None,
    dest: Annotated[
        Path | None,
        options.option(
            "--dest", metavar="DIR", help="Put them here; $HF_HOME/diffmf by default.", panel=_SOURCE
        ),
    ] = None,
    overwrite: Annotated[
        bool, options.flag("--overwrite", help="Replace other files of these names in DIR.", panel=_SOURCE)
    ] = False,
    offline: Annotated[
        bool, options.flag("--offline", help="Only from the cache of earlier downloads.", panel=_SOURCE)
    ] = False,
    listing: Annotated[
        bool, typer.Option("--list", metavar="", help="List what is here, and in the repository.")
    ] = False,
    checking: Annotated[
        bool, typer.Option("--check", metavar="", help="Compare sizes and checksums of what is here.")
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Lists, checks or downloads; the help text is `HELP`."""
    out.configure(json=json, quiet=quiet, verbose=verbose)
    if everything and name is not None:
        raise UsageError(f"--all and {name} contradict each other: give one")
    if dest is not None and dest.exists() and not dest.is_dir():
        raise UsageError(f"{dest} is a file: name a folder for --dest")
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if repo is not None and not listing and not checking:
        rows = _download(name, everything, repo, dest, overwrite)
    else:
        if dest is not None and not listing and not checking:
            raise UsageError(f"--dest {dest} needs --repo ORG/NAME: shipped weights stay where they are")
        rows = _local(name, dest, repo if listing else None, checked=checking)
    out.record({"type": "weights", "weights": rows})
    out.show(table(rows))
    if repo is None and not listing and not checking:
        out.talk("These are on this machine: nothing had to be downloaded.")


def _local(name: str | None, folder: Path | None, repo: str | None, *, checked: bool) -> list[dict[str, Any]]:
    """What is on this machine, and after it what only the repository has."""
    entries = catalogue() if folder is None else read_catalogue(folder, str(folder))
    bad = []
    rows = []
    for entry in entries:
        if name in (None, entry.name):
            rows.append(describe(entry, checked=checked))
            if rows[-1]["state"] not in ("present", "whole"):
                fix = "reinstall diffmf" if entry.place == SHIPPED else "download it again"
                bad.append(f"{entry.name} ({rows[-1]['state']}): {fix}")
    if bad:
        raise WeightsError(f"weights missing or damaged: {', '.join(bad)}")
    if repo is not None:
        from diffmf_cli.model import hub

        with out.status(f"Asking {repo}"):
            offered, _ = hub.remote_catalogue(hub.Repository.parse(repo))
        here = {row["sha256"] for row in rows}
        entries += offered
        rows += [
            describe(e, checked=False) for e in offered if name in (None, e.name) and e.sha256 not in here
        ]
    if not rows and name is not None:
        if folder is None and repo is None:
            find_weights(
                name
            )  # raises, with a guess at what was meant, unless it is a file of the user's own
            raise UsageError(f"{name} is not in the catalogue: see diffmf download-weights --list")
        raise unknown_model(name, "known", [entry.name for entry in entries])
    return rows


def _download(
    name: str | None, everything: bool, repo: str, dest: Path | None, overwrite: bool
) -> list[dict[str, Any]]:
    from diffmf_cli.model import hub

    with out.status(f"Asking {repo}") as doing:
        offered, repository = hub.remote_catalogue(hub.Repository.parse(repo))
        names = [entry.name for entry in offered]
        if name is None and not everything:
            raise UsageError(f"{repo} has {', '.join(names)}: name one, or give --all")
        if name is not None and name not in names:
            raise unknown_model(name, f"{repo} has", names)
        return [
            _download_one(entry, repository, dest, overwrite, doing)
            for entry in offered
            if name in (None, entry.name)
        ]


def _download_one(
    entry: Entry,
    repository: "Repository",
    dest: Path | None,
    overwrite: bool,
    doing: Callable[[str], None],
) -> dict[str, Any]:
    from dataclasses import replace

    from diffmf_cli.model import hub

    shipped = next((e for e in catalogue() if (e.name, e.place) == (entry.name, SHIPPED) and e.path), None)
    if dest is None and shipped is not None and shipped.sha256 == entry.sha256:
        out.talk(f"{entry.name}: shipped with diffmf, nothing had to be downloaded")
        return describe(shipped, checked=False)

    moved = 0

    def report(done: int, total: int) -> None:
        nonlocal moved
        before, moved = moved, done
        line = f"{entry.name}: {done / 1e6:.1f} of {total / 1e6:.1f} MB"
        if sys.stderr is not None and sys.stderr.isatty():
            doing(line)
        elif total and done * 10 // total > before * 10 // total:
            out.talk(line)

    folder = dest or downloaded_folder()
    path = hub.download_entry(entry, repository, folder, overwrite=overwrite or dest is None, report=report)
    if not moved:
        out.talk(f"{entry.name}: was there already, or in the cache")
    if dest is None and shipped is not None:
        out.talk(
            f"-m {entry.name} still means the shipped version {shipped.version}: use -m {path} for this one"
        )
    place = DOWNLOADED if dest is None else str(dest)
    return describe(replace(entry, place=place, path=path), checked=True)


def describe(entry: Entry, *, checked: bool) -> dict[str, Any]:
    """One checkpoint for a table or a JSON record; `checked` compares its checksum, which reads the file."""
    state = "missing" if entry.path is None else "present"
    if checked:
        state = check(entry) or "whole"
    return {
        **entry.row(),
        "takes": TASKS[entry.task].format(ir="the first", vis="the second") if entry.task in TASKS else None,
        "state": state,
        "place": entry.place,
        "path": str(entry.path) if entry.path else None,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """What `describe` gave, for eyes: up to three lines a checkpoint."""
    width = max((len(row["name"]) for row in rows), default=0)
    lines = []
    for row in rows:
        facts = f"{row['task']}, version {row['version']}, {row['bytes'] / 1e6:.1f} MB, {row['state']}"
        lines.append(f"{row['name']:{width}}  {facts}: {row['description']}")
        if row["takes"]:
            lines.append(f"{'':{width}}  takes {row['takes']}")
        lines.append(f"{'':{width}}  {row['place']}: {row['path'] or 'no file'}")
    return "\n".join(lines)
