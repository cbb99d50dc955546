"""Decoding, the model and encoding at the same time, in bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from diffmf_cli.errors import ImageError
from diffmf_cli.video.sink import Sink
from diffmf_cli.video.source import Frame, Source
from diffmf_cli.video.timing import synchronise

AHEAD = 4  # frames between two stages: enough to even out their times, little memory at 4K

Item = TypeVar("Item")
_END: Any = object()


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        frames: Fused so far.
        model_seconds: Spent in the model, preparation and colour included.
        shape: Of the fused frames.
    """

    frames: int = 0
    model_seconds: float = 0.0
    shape: tuple[int, ...] = ()


def fuse_stream(
    fuse: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ir: Source,
    vis: Source,
    sink: Sink,
    *,
    strict: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Fuses two streams frame by frame: each is decoded in a thread, the results are encoded in others.

    Args:
        fuse: Infrared and visible pixels to fused ones: `Fuser.fuse`.
        ir: Infrared stream.
        vis: Visible stream.
        sink: Where the results go; `opened` is called here.
        strict: Streams that do not end together are an error.
        report: Called after each frame.

    Raises:
        ImageError: A frame cannot be read, fused or written, or the streams hold none.
    """
    progress = Progress()
    with (
        sink.opened(),
        _writing(sink) as write,
        closing(prefetch(ir.frames())) as ir_frames,
        closing(prefetch(vis.frames())) as vis_frames,
    ):
        for ir_frame, vis_frame in synchronise(ir, vis, ir_frames, vis_frames, strict=strict):
            start = perf_counter()
            try:
                fused = fuse(ir_frame.pixels, vis_frame.pixels)
            except ImageError as error:
                raise ImageError(f"{vis.name}, {vis_frame.name}: {error}") from error
            progress.model_seconds += perf_counter() - start
            write(fused, vis_frame)
            progress.frames += 1
            progress.shape = fused.shape
            report(progress)
    return progress


def prefetch(items: Iterable[Item]) -> Generator[Item, None, None]:
    """The same items, made up to AHEAD in advance by a thread; `close` ends it."""
    iterator = iter(items)
    pool = ThreadPoolExecutor(1)
    try:
        pending = deque(pool.submit(next, iterator, _END) for _ in range(AHEAD))
        while (item := pending.popleft().result()) is not _END:
            pending.append(pool.submit(next, iterator, _END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _writing(sink: Sink) -> Iterator[Callable[[np.ndarray, Frame], None]]:
    """A `write` that returns at once, up to AHEAD frames in advance; all are written where the block ends."""
    pending: deque[Future[None]] = deque()
    pool = ThreadPoolExecutor(sink.workers)

    def write(fused: np.ndarray, frame: Frame) -> None:
        while len(pending) >= AHEAD or (pending and pending[0].done()):
            pending.popleft().result()
        pending.append(pool.submit(sink.write, fused, frame))

    try:
        yield write
        for future in pending:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)
