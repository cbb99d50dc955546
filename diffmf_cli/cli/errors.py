"""Which message and exit code each exception class ends the run with."""

import re
import traceback

import typer

from diffmf_cli.cli.output import out
from diffmf_cli.errors import DiffmfError


def report(error: Exception, command: str) -> int:
    """Says in one line what went wrong and returns the exit code.

    Args:
        error: what escaped from the command.
        command: the command line's name for it, such as `diffmf fuse`.
    """
    kind, message, exit_code = type(error).__name__, str(error), 1
    if isinstance(error, DiffmfError):
        exit_code = error.exit_code
    elif isinstance(error, typer.TyperException):
        exit_code = error.exit_code
        kind = "UsageError"
        sentence = re.sub(r"\s+", " ", error.format_message()).rstrip(".")
        message = f"{sentence} (see {command} --help)"
    elif isinstance(error, MemoryError):
        message = "out of memory; use a smaller --tile, such as 256"
    elif isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        if out.verbose:
            traceback.print_exception(error)
            hint = "please report it with the traceback above"
        else:
            hint = "run again with -v (or DIFFMF_DEBUG=1) for the traceback, and please report it"
        kind, message = "Bug", f"this is a bug in diffmf ({kind}: {message}); {hint}"
    out.error(kind, message, exit_code)
    return exit_code
