"""One intensity range for a whole set, so that its pictures stay comparable: `--ir-range set:1,99`."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from diffmf_cli.batch import locations
from diffmf_cli.errors import DiffmfError
from diffmf_cli.images.range import IntensityRange
from diffmf_cli.images.raw import RawLayout
from diffmf_cli.images.read import read_image


def range_of_set(pictures: Iterable[str], wanted: IntensityRange, raw: RawLayout | None = None) -> str:
    """The range `LO,HI` that `set:` means for infrared pictures; unreadable ones do not count.

    Args:
        pictures: Paths or URLs, each read once, a few at a time.
        wanted: The parsed option.
        raw: How files without a header lie.
    """
    try:
        found = wanted.over(_readable(pictures, raw))
    except DiffmfError:
        return "auto"  # there is no readable one; each will be reported
    # A constant set becomes black.
    return f"{found.low!r},{float(max(found.high, np.nextafter(found.low, np.inf)))!r}"


def _readable(pictures: Iterable[str], raw: RawLayout | None) -> Iterator[np.ndarray]:
    threads = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, "range") as pool:
        reading: deque[Future[np.ndarray | None]] = deque()
        for picture in pictures:
            reading.append(pool.submit(_read, picture, raw))
            if len(reading) > 2 * threads and (pixels := reading.popleft().result()) is not None:
                yield pixels
        yield from (pixels for future in reading if (pixels := future.result()) is not None)


def _read(picture: str, raw: RawLayout | None) -> np.ndarray | None:
    try:
        source = locations.source_of(picture)
        return read_image(source, picture, raw).pixels
    except DiffmfError:
        return None
