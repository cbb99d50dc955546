"""Errors that a user can act on, each with the exit code that the command line returns.

A message is one line that names the file or value at fault and the fix.
"""


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
