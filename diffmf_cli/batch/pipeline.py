"""The engine of one device: threads that read, one that runs the network, threads that write."""

import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePath
from queue import Empty, SimpleQueue

import numpy as np

from diffmf_cli.alignment.choice import GEO, NONE, parse_align
from diffmf_cli.alignment.coordinates import by_coordinates, differing_places
from diffmf_cli.batch import locations
from diffmf_cli.batch.job import Job, Outcome, Settings
from diffmf_cli.errors import DiffmfError, UsageError
from diffmf_cli.fusion.files import encode_fused, read_pair
from diffmf_cli.fusion.fuser import Fuser, Prepared, prepare
from diffmf_cli.images.opencv import cv2
from diffmf_cli.images.range import IntensityRange
from diffmf_cli.images.raw import RawLayout
from diffmf_cli.images.read import Image

MOST_PIXELS = 2**25  # decoded pictures on their way: 24 bytes a pixel, about 0.8 GB
_MOST_THREADS = 8  # that read, and as many that write: more would wait for the interpreter
_BATCH_PIXELS = 2**22
_LARGEST_BATCH = 32
_GRACE = 1.5  # seconds that writers get at the end of an interrupted run


def load_fuser(settings: Settings) -> Fuser:
    """The model of a batch."""
    return Fuser.load(
        settings.model,
        device=settings.device,
        precision=settings.precision,
        scan_backend=settings.scan_backend,
        tile=settings.tile,
        task=settings.task,
    )


def automatic_batch_size(device: str, shape: tuple[int, ...]) -> int:
    """Pairs of one size that go through the network at once: on CUDA a power of two, elsewhere one."""
    most = min(_LARGEST_BATCH, _BATCH_PIXELS // (shape[0] * shape[1])) if "cuda" in device else 1
    return _power_of_two(max(1, most))


def _power_of_two(count: int) -> int:
    """The largest that is not above `count`."""
    return 1 << (count.bit_length() - 1)


@dataclass(eq=False)
class _Item:
    """A job on its way; `step` is the reason for its failure if it fails where it is."""

    job: Job
    future: "Future[Outcome]"
    step: str = "unreadable"
    seconds: dict[str, float] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    pair: Prepared | None = None
    vis: Image | None = None
    fused: np.ndarray | None = None
    pixels: int = 0


class Pipeline:
    """Fuses jobs on one device; see `diffmf_cli.batch.engine.Engine`.

    While the network works on one pair, the next ones are read and the last ones are written. On CUDA pairs
    of one size that wait at the same time go through the network together.
    """

    def __init__(self, fuser: Fuser, settings: Settings, *, threads: int | None = None) -> None:
        count = min(_MOST_THREADS, threads or os.cpu_count() or 1)
        cv2.setNumThreads(1)  # of OpenCV: beside as many pictures as there are threads more would only wait
        largest = settings.batch_size or automatic_batch_size(fuser.device, (1, 1))
        self.depth = 4 * count + 2 * largest
        self._fuser, self._settings = fuser, settings
        self._span = IntensityRange.parse(settings.ir_range)
        self._align = parse_align(settings.align, settings.fov_ratio)
        self._raw = RawLayout.parse(settings.raw) if settings.raw else None
        self._room = PixelRoom(MOST_PIXELS)
        self._ready: SimpleQueue[_Item | None] = SimpleQueue()
        self._stopped = threading.Event()
        self._readers = ThreadPoolExecutor(count, "read")
        self._writers = ThreadPoolExecutor(count, "write")
        self._writing: set[_Item] = set()
        self._device = threading.Thread(target=self._run_network, name="network", daemon=True)
        self._device.start()

    def submit(self, job: Job) -> "Future[Outcome]":
        """Takes a job; whatever goes wrong with it is in its outcome."""
        item = _Item(job, Future())
        self._readers.submit(self._guarded, self._read, item)
        return item.future

    def close(self) -> None:
        """Ends; results that are being written are finished and told, within a grace period."""
        self._stopped.set()
        self._room.close()
        self._ready.put(None)
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._writers.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + _GRACE
        while self._writing and time.monotonic() < deadline:
            time.sleep(0.01)

    def _read(self, item: _Item) -> None:
        start = time.perf_counter()
        settings, job = self._settings, item.job
        sources = locations.source_of(job.ir), locations.source_of(job.vis)
        ir, vis = read_pair(*sources, (job.ir, job.vis), self._raw)
        item.notices += [*ir.notes, *vis.notes]
        if self._align == NONE:
            item.notices += differing_places(ir, vis)
        pixels = vis.pixels.shape[0] * vis.pixels.shape[1]
        if not self._room.take(pixels):
            return
        item.pixels = pixels
        item.step = "unsuitable"
        self._span.check_unit(ir.unit, job.ir)
        item.pair = prepare(
            ir.pixels,
            vis.pixels,
            color=settings.color,
            ir_range=self._span,
            stretch=settings.stretch,
            dtype=None if settings.depth == "auto" else f"uint{settings.depth}",
            align=by_coordinates(ir, vis) if self._align == GEO else self._align,
            outside=settings.outside,
            fov_ratio=settings.fov_ratio,
            names=(job.ir, job.vis),
        )
        item.notices += item.pair.notices
        item.vis = vis.part(*item.pair.shown)
        item.step = "unusable"
        item.seconds["read"] = time.perf_counter() - start
        self._ready.put(item)

    def _run_network(self) -> None:
        """The thread of the device: takes what is ready, and waits for more only when there is nothing."""
        buckets = Buckets()
        while not self._stopped.is_set():
            for item in self._arrivals(wait=not buckets):
                assert item.pair is not None
                buckets.add(item.pair.vis.shape, item)
            if buckets and not self._stopped.is_set():
                self._fuse(buckets.take(self._batch_size))

    def _arrivals(self, wait: bool) -> Iterator[_Item]:
        try:
            while True:
                item = self._ready.get(block=wait)
                if item is None:
                    return
                yield item
                wait = False
        except Empty:
            return

    def _batch_size(self, shape: tuple[int, ...]) -> int:
        if self._settings.batch_size:
            return self._settings.batch_size
        return automatic_batch_size(self._fuser.device, shape)

    def _fuse(self, items: list[_Item]) -> None:
        start = time.perf_counter()
        try:
            results = self._fuser.run([item.pair for item in items if item.pair is not None])
        except Exception as error:
            if len(items) > 1:  # one of them may be to blame
                for item in items:
                    self._fuse([item])
            else:
                self._fail(items[0], error)
            return
        spent = (time.perf_counter() - start) / len(items)
        for item, fused in zip(items, results, strict=True):
            item.seconds["model"] = spent
            item.fused = fused
            try:
                self._writers.submit(self._guarded, self._write, item)
            except RuntimeError:  # closed meanwhile
                return

    def _write(self, item: _Item) -> None:
        start = time.perf_counter()
        pair, vis, fused = item.pair, item.vis, item.fused
        assert pair is not None
        assert vis is not None
        assert fused is not None
        item.pair = item.vis = item.fused = None
        pixels = self._fuser.restore(pair, fused)
        item.step = "unwritable"
        settings, output = self._settings, item.job.output
        data, losses = encode_fused(pixels, vis, PurePath(output).suffix, settings.quality)
        item.notices += losses
        self._writing.add(item)  # until its outcome is told, for which `close` waits too
        try:
            if self._stopped.is_set():
                return
            locations.write(output, data, settings.overwrite or item.job.attempt > 1)
            item.seconds["write"] = time.perf_counter() - start
            height, width = pixels.shape[:2]
            outcome = Outcome(
                item.job,
                "done",
                width=width,
                height=height,
                seconds=item.seconds,
                notices=tuple(item.notices),
            )
            self._finish(item, outcome)
        finally:
            self._writing.discard(item)

    def _guarded(self, step: Callable[[_Item], None], item: _Item) -> None:
        try:
            step(item)
        except Exception as error:
            self._fail(item, error)

    def _fail(self, item: _Item, error: Exception) -> None:
        self._finish(item, failure(item.job, error, item.step, tuple(item.notices)))

    def _finish(self, item: _Item, outcome: Outcome) -> None:
        item.pair = item.vis = item.fused = None
        self._room.give_back(item.pixels)
        item.pixels = 0
        item.future.set_result(outcome)


class Buckets:
    """Things that wait, by the shape that they must have in common to be taken together."""

    def __init__(self) -> None:
        self._by_shape: dict[tuple[int, ...], deque[tuple[int, _Item]]] = {}
        self._arrived = 0

    def __bool__(self) -> bool:
        return bool(self._by_shape)

    def add(self, shape: tuple[int, ...], item: _Item) -> None:
        """Lets one more wait."""
        self._by_shape.setdefault(shape, deque()).append((self._arrived, item))
        self._arrived += 1

    def take(self, size: Callable[[tuple[int, ...]], int]) -> list[_Item]:
        """`size(shape)` of one shape that has so many, else a power of two of the one that waits longest.

        Powers of two, because for each number of pictures a GPU's launches are captured once more.
        """
        full = [shape for shape, waiting in self._by_shape.items() if len(waiting) >= size(shape)]
        shape = min(full or self._by_shape, key=lambda shape: self._by_shape[shape][0][0])
        waiting = self._by_shape[shape]
        count = size(shape) if full else _power_of_two(len(waiting))
        taken = [waiting.popleft()[1] for _ in range(count)]
        if not waiting:
            del self._by_shape[shape]
        return taken


class PixelRoom:
    """Keeps the number of pixels in memory bounded, whatever the size of the pictures."""

    def __init__(self, most: int) -> None:
        self._most, self._taken, self._closed = most, 0, False
        self._changed = threading.Condition()

    def take(self, pixels: int) -> bool:
        """Waits until there is room; one picture that is larger than all room is taken alone.

        Returns:
            False where the room is closed.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._taken == 0 or self._taken + pixels <= self._most
            )
            if not self._closed:
                self._taken += pixels
            return not self._closed

    def give_back(self, pixels: int) -> None:
        """Makes room."""
        with self._changed:
            self._taken -= pixels
            self._changed.notify_all()

    def close(self) -> None:
        """Lets nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def failure(job: Job, error: Exception, reason: str, notices: tuple[str, ...] = ()) -> Outcome:
    """The outcome of a job that raised an error."""
    details = ""
    if isinstance(error, DiffmfError):
        message = str(error)
        reason = "unsuitable" if isinstance(error, UsageError) else reason
    elif isinstance(error, MemoryError):
        message = "out of memory; use a smaller --tile, such as 256"
    elif isinstance(error, OSError) and error.strerror:
        message = f"{error.filename or job.output}: {error.strerror}"
    else:
        reason, details = "bug", "".join(traceback.format_exception(error))
        message = f"this is a bug in diffmf ({type(error).__name__}: {error}); please report it"
    return Outcome(job, "failed", reason, " ".join(message.split("\n")), details, notices=notices)
