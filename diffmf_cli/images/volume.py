"""Medical volumes: what they are made of, and which slices are meant by `--slice` and `--slices`."""

import re
from dataclasses import dataclass

import numpy as np

from diffmf_cli.errors import UsageError


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume, slice by slice.

    Attributes:
        slices: `(N, H, W)` float32 from the feet on, the front of the body at the top, its right side at the
            right.
        window: The values that become black and white.
        affine: `(4, 4)`: indices to the right, to the front and to the head become millimetres.
        space: What the millimetres count from, as NIfTI numbers it.
    """

    slices: np.ndarray
    window: tuple[float, float]
    affine: np.ndarray
    space: int


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


def parse_slices(text: str) -> tuple[int, int] | None:
    """Reads `all` as None, `FIRST-LAST` or one number; slices count from 1, and the last one is meant too.

    Raises:
        UsageError: The text has another form.
    """
    if text.strip().lower() == "all":
        return None
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text.strip())
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last:
        raise UsageError(f"slices '{text}' are not understood: use all, or FIRST-LAST such as 40-60")
    return first, last
