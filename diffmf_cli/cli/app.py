"""The `diffmf` command: its sub-commands, and one run from arguments to exit code."""

import io
import logging
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from typing import Annotated, Any

import typer

import diffmf_cli
from diffmf_cli.cli import (
    align,
    batch,
    errors,
    evaluate,
    export,
    fuse,
    info,
    publish,
    train,
    video,
    volume,
    weights,
)
from diffmf_cli.cli.output import out

HELP = """
Fuse infrared and visible pictures with DIFF-MF.

[bold]Examples[/bold]

  diffmf fuse ir.png vis.png                  writes vis_fused.png beside vis.png
  diffmf fuse ir.tiff vis.jpg -o fused.png    16-bit and float thermal pictures work as they are
  diffmf batch ir/ vis/ -o fused/             folders of pairs
  diffmf evaluate --ir ir/ --vis vi/ --fused out/ --baselines      metrics of a folder of results
  diffmf info                                 what a bug report needs

[dim]Each command has its own help: diffmf fuse --help[/dim]
"""

app = typer.Typer(
    help=HELP,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)
app.command("fuse", help=fuse.HELP)(fuse.fuse)
app.command("video", help=video.HELP)(video.video)
app.command("volume", help=volume.HELP)(volume.volume)
app.command("batch", help=batch.HELP)(batch.batch)
app.command("align", help=align.HELP)(align.align)
app.command("evaluate", help=evaluate.HELP)(evaluate.evaluate)
app.command("export", help=export.HELP)(export.export)
app.command("train", help=train.HELP)(train.train)
app.command("download-weights", help=weights.HELP)(weights.download_weights)
app.command("publish-weights", help=publish.HELP)(publish.publish_weights)
app.command("info", help=info.HELP)(info.info)


def _version(asked: bool) -> None:
    if asked:
        out.show(f"diffmf {diffmf_cli.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        with redirect_stdout(io.StringIO()) as text:
            context.get_help()
        out.show(text.getvalue())
        raise typer.Exit(2)


@cache
def _command() -> Callable[..., Any]:
    """All sub-commands, made once a process: where many lines run in one, this took most of a short one."""
    return typer.main.get_command(app)


def run(args: list[str]) -> int:
    """Runs one command line and returns its exit code.

    Args:
        args: the words after `diffmf`.
    """
    # Known before parsing, so that a mistake in the options is reported in the form that was asked for.
    out.configure(json="--json" in args or os.environ.get("DIFFMF_JSON", "0").lower() in ("1", "true", "yes"))
    library = logging.getLogger("diffmf_cli")
    library.addHandler(out)
    name = args[0] if args and args[0] in {command.name for command in app.registered_commands} else None
    try:
        code = _command()(args, prog_name="diffmf", standalone_mode=False)
    except Exception as error:
        return errors.report(error, f"diffmf {name}" if name else "diffmf")
    finally:
        library.removeHandler(out)
    if code == 130:
        out.interrupted()
    return code or 0
