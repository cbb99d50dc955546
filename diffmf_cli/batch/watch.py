"""Folders that fill while a camera runs: pairs as they become whole."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from diffmf_cli.batch import locations
from diffmf_cli.batch.job import Job
from diffmf_cli.batch.table import PairTable

_Stamps = tuple[tuple[Any, ...] | None, ...]


def watch_jobs(
    scan: Callable[[], PairTable], *, interval: float, until_idle: float | None = None
) -> Iterator[Job | None]:
    """Jobs of folders that are looked at again and again.

    A pair is taken when size and time of both files have not changed from one look to the next. It is taken
    again when its files change later and its result is still missing, as after a pause of the writer.

    Args:
        scan: Looks at the folders.
        interval: Seconds between looks.
        until_idle: End when nothing new has come for so many seconds; never without it.

    Yields:
        Jobs; None while there is nothing new, at which the caller has something else to do, or waits.
    """
    seen: dict[str, _Stamps] = {}
    given: dict[str, _Stamps] = {}
    last_new = time.monotonic()
    while True:
        looked = time.monotonic()
        now: dict[str, _Stamps] = {}
        for job in scan().jobs:
            if job.name in given and locations.exists(job.output):
                continue
            stamps = now[job.name] = (locations.stamp(job.ir), locations.stamp(job.vis))
            whole = all(stamp is not None and stamp[0] for stamp in stamps)
            if whole and seen.get(job.name) == stamps != given.get(job.name):
                given[job.name] = stamps
                last_new = time.monotonic()
                yield job
        if now != seen:
            last_new = time.monotonic()  # something is being written
        seen = now
        while time.monotonic() < looked + interval:
            if until_idle is not None and time.monotonic() > last_new + until_idle:
                return
            yield None
