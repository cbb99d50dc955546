"""`diffmf publish-weights`: checkpoints to a repository on the Hub, or to a folder that could be one."""

import hashlib
from pathlib import Path
from typing import Annotated

import typer

import diffmf_cli
from diffmf_cli.cli import options
from diffmf_cli.cli.output import out
from diffmf_cli.errors import UsageError

HELP = """
Publish weights in a repository on the Hub, from which diffmf download-weights takes them.

[bold]Examples[/bold]

diffmf publish-weights --repo ORG/NAME --dry-run    only writes ./NAME
diffmf publish-weights --repo ORG/NAME              the shipped weights
diffmf publish-weights runs/mine/mine.safetensors --repo ORG/NAME

[dim]The repository holds weights, catalogue.json, config.json and a model card. Uploading needs a token
with write access: `hf auth login`, or HF_TOKEN. Where there is no repository, a public one is made.[/dim]
"""
_PANEL = "Repository"


def publish_weights(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME|PATH", show_default=False, help="Else all shipped weights."),
    ] = None,
    repo: options.RepoOption = None,
    dry_run: Annotated[
        bool, options.flag("--dry-run", help="Write the folder, upload nothing.", panel=_PANEL)
    ] = False,
    dest: Annotated[
        Path | None,
        options.option("--dest", metavar="DIR", help="Where --dry-run writes it; else ./NAME.", panel=_PANEL),
    ] = None,
    overwrite: Annotated[
        bool, options.flag("--overwrite", help="Replace files in DIR.", panel=_PANEL)
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Prepares the repository's files, then writes or uploads them; the help text is `HELP`."""
    out.configure(json=json, quiet=quiet, verbose=verbose)
    if repo is None:
        raise UsageError("no repository: give --repo ORG/NAME")
    if dest is not None and not dry_run:
        raise UsageError(f"--dest {dest} is for --dry-run: add it, or leave out --dest")

    with out.status("Checking the weights") as doing:
        from diffmf_cli.images.write import write_atomically
        from diffmf_cli.model import hub
        from diffmf_cli.model.card import hub_files

        repository = hub.Repository.parse(repo)
        if not dry_run:
            hub.check_can_upload()
        folder = dest or Path(repository.name.partition("/")[2])
        files = hub_files(names or [], repository.name)
        commit = None
        if dry_run:
            there = [name for name in files if (folder / name).exists()]
            if there and not overwrite:
                raise UsageError(f"{folder / there[0]} exists: choose another --dest, or --overwrite")
            for name, content in files.items():
                write_atomically(folder / name, content, overwrite)
        else:
            doing(f"Uploading to {repository}")
            commit = hub.upload(files, repository, f"diffmf {diffmf_cli.__version__}")

    out.record(
        {
            "type": "publish",
            "repository": str(repository),
            "folder": str(folder) if dry_run else None,
            "commit": commit,
            "files": [
                {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in files.items()
            ],
        }
    )
    out.show("\n".join(f"{len(content):>10}  {name}" for name, content in files.items()))
    out.talk(f"{folder}: nothing was uploaded" if dry_run else f"{repository}: {commit}")
