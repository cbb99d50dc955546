"""Errors that a user can act on, each with the exit code that the command line returns.

A message is one line that names the file or value at fault and the fix.
"""

from collections.abc import Sequence
from difflib import get_close_matches


class DiffmfError(Exception):
    """A failure with a clear cause; anything else that escapes is a bug."""

    exit_code = 1


class UsageError(DiffmfError):
    """An option or argument that cannot be meant."""

    exit_code = 2


class WeightsError(DiffmfError):
    """A checkpoint that is missing, damaged or of another architecture or task."""

    exit_code = 3


class ImageError(DiffmfError):
    """A picture that cannot be read, written or fused."""


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Refuses a value that is not one of the known ones, with a guess at what was meant.

    Raises:
        UsageError: unless `value` is in `known`.
    """
    if value not in known:
        guess = get_close_matches(str(value), known, n=1)
        hint = f"did you mean '{guess[0]}'?" if guess else f"use {', '.join(known)}"
        raise UsageError(f"unknown {name} '{value}': {hint}")
