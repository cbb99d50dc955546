import threading
import time
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pytest

from diffmf_cli.errors import ImageError
from diffmf_cli.video.pipeline import AHEAD, fuse_stream
from diffmf_cli.video.sink import Sink
from diffmf_cli.video.source import Frame, Source

STEP = 0.01


class Stream(Source):
    """Frames that take a while to decode, and that are counted."""

    def __init__(self, name, count, breaks_at=None):
        super().__init__(name, [], Fraction(25), count, False)
        self.decoded, self._breaks_at = 0, breaks_at

    def _decode(self, step):
        for number in range(self.count):
            if number == self._breaks_at:
                raise ImageError(f"{self.name} breaks")
            time.sleep(STEP)
            self.decoded += 1
            yield Frame(np.full((2, 2), number, np.uint8), number / self.fps, number, f"frame_{number}")


class List(Sink):
    """Keeps what it gets."""

    def __init__(self, breaks_at=None, pace=STEP):
        self._pace = pace
        self.written, self.ended, self._breaks_at = [], None, breaks_at

    def check(self):
        """Nothing to check."""

    @contextmanager
    def opened(self):
        try:
            yield
            self.ended = "whole"
        except BaseException as error:
            self.ended = type(error)
            raise

    def write(self, fused, frame):
        if frame.number == self._breaks_at:
            raise ImageError("the sink breaks")
        time.sleep(self._pace)
        self.written.append((int(fused[0, 0]), frame.number))


def slow_sum(ir, vis):
    time.sleep(STEP)
    return ir + vis


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_stages_overlap_and_keep_the_order():
    sink = List()
    start = time.perf_counter()
    progress = fuse_stream(slow_sum, Stream("ir", 50), Stream("vis", 50), sink)
    seconds = time.perf_counter() - start
    assert sink.written == [(2 * n, n) for n in range(50)]
    assert sink.ended == "whole"
    assert (progress.frames, progress.shape) == (50, (2, 2))
    assert progress.model_seconds >= 50 * STEP
    # One after the other would be four steps a frame.
    assert seconds < 50 * STEP * 3


@pytest.mark.parametrize("slow", ["model", "sink"])
def test_memory_is_bounded(slow):
    """Whichever stage is slow, only so many frames are on their way."""
    ir, vis, sink = Stream("ir", 24), Stream("vis", 24), List(pace=3 * STEP if slow == "sink" else 0)
    most = 0

    def watch(progress):
        nonlocal most
        most = max(most, vis.decoded - len(sink.written))
        time.sleep(3 * STEP if slow == "model" else 0)

    fuse_stream(lambda ir, vis: vis, ir, vis, sink, report=watch)
    assert AHEAD <= most <= 2 * AHEAD + 3


@pytest.mark.parametrize("stage", ["ir", "vis", "model", "sink", "report", "interrupt"])
def test_a_failure_anywhere_ends_everything(stage):
    ir, vis = (Stream(name, 30, 9 if stage == name else None) for name in ("ir", "vis"))
    sink = List(9 if stage == "sink" else None)

    def model(ir, vis):
        if stage == "model" and ir[0, 0] == 9:
            raise ImageError("the model breaks")
        return ir + vis

    def report(progress):
        if progress.frames == 9 and stage in ("report", "interrupt"):
            raise KeyboardInterrupt if stage == "interrupt" else ImageError("the report breaks")

    with pytest.raises(KeyboardInterrupt if stage == "interrupt" else ImageError) as caught:
        fuse_stream(model, ir, vis, sink, report=report)
    if stage == "model":
        assert str(caught.value) == "vis, frame_9: the model breaks"
    elif stage != "interrupt":
        assert f"{stage} breaks" in str(caught.value)
    assert sink.ended is caught.type
    assert len(sink.written) < 20
