"""Which slice of a medical volume is read: the option `--slice`."""

from diffmf_cli.errors import UsageError


def choose_slice(count: int, wanted: int | None) -> tuple[int, tuple[str, ...]]:
    """The index of a slice, and a notice where nobody chose.

    Args:
        count: Slices of the volume.
        wanted: From 1 on; None for the middle one.

    Raises:
        UsageError: The volume has no such slice. The message lacks the file's name.
    """
    if wanted is None:
        middle = count // 2
        notice = f"holds {count} slices: number {middle + 1} is read, choose with --slice"
        return middle, (notice,) if count > 1 else ()
    if not 1 <= wanted <= count:
        raise UsageError(f"has no slice {wanted}: it has {count}, give --slice 1 to {count}")
    return wanted - 1, ()
