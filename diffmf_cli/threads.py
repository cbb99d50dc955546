"""Threads that each work alone on a part of a picture, instead of all together on every operation; how many.

Within such a thread torch uses no further threads: a part stays in the cache of its core, and nobody waits
for the others after each operation, which on a busy machine costs more than the work.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from threading import Barrier, Condition, Lock, current_thread
from typing import Any, TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")
Phase = tuple[Callable[[Any], Any], Sequence[Any]]  # work, and the parts to call it with
_NAME = "diffmf-part"
_starting = Lock()
# Where torch, the BLAS libraries of torch and numpy, numba and OpenCV read how many threads they may use.
_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


def limit_threads(count: int | None) -> None:
    """All that computes in parallel uses so many threads; None leaves it to the environment, else the cores.

    To be called before anything is imported that computes: libraries read it as they start, and so do
    processes that this one starts.
    """
    if count is not None:
        os.environ.update(dict.fromkeys(_VARIABLES, str(count)))


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    import torch

    pool = ThreadPoolExecutor(count, thread_name_prefix=_NAME)
    together = Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # the first call of a thread would overwrite what follows
        torch.set_num_threads(1)  # of this thread, and of those that start later: hence all start now
        torch.set_flush_denormal(True)  # also of this thread alone; such numbers are 100 times slower
        together.wait()

    for _ in range(count):
        pool.submit(start)
    together.wait()
    torch.set_num_threads(count)
    return pool


class _Lane:
    """Phases that follow each other, of which one is at work."""

    def __init__(self, phases: Iterable[Phase]) -> None:
        self.phases = iter(phases)
        self.parts: Iterator[Any] = iter(())
        self.undone = 0
        self.work: Callable[[Any], Any] | None = None

    def go_on(self) -> None:
        """To the next phase that has parts, or to the end, where there is no work."""
        self.work = None
        for work, parts in self.phases:
            if parts:
                self.work, self.parts, self.undone = work, iter(parts), len(parts)
                return


class _Lanes:
    """Lanes of which threads take parts."""

    def __init__(self, lanes: Sequence[Iterable[Phase]]) -> None:
        self.changed, self.stopped = Condition(Lock()), False
        self.lanes = [_Lane(lane) for lane in lanes]
        for lane in self.lanes:
            lane.go_on()

    def stop(self) -> None:
        """No part begins any more."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def work(self) -> None:
        """Takes parts, of the first lane that has one, until none is left."""
        with self.changed:
            while not self.stopped and any(lane.work for lane in self.lanes):
                found = next(((lane, part) for lane in self.lanes for part in lane.parts), None)
                if found is None:
                    self.changed.wait()
                    continue
                lane, part = found
                assert lane.work is not None
                self.changed.release()
                try:
                    lane.work(part)
                finally:
                    self.changed.acquire()
                lane.undone -= 1
                if not lane.undone:
                    lane.go_on()
                    self.changed.notify_all()


def on_threads(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """`work` of each part, in their order, on as many threads as torch uses, in the caller's torch modes.

    Args:
        work: called in any thread and order; a call from within another runs where it is.
        parts: what to call it with.
    """
    if len(parts) == 1:
        return [work(parts[0])]
    results: list[Any] = [None] * len(parts)

    def store(i: int) -> None:
        results[i] = work(parts[i])

    _run([[(store, range(len(parts)))]], len(parts))
    return results


def in_lanes(*lanes: Iterable[Phase]) -> None:
    """Runs the parts of several lanes of phases, like `on_threads` those of one phase.

    A phase, work and its parts, begins when the one before in its lane is done, which a lane that is a
    generator may rely on. A thread for which one lane has nothing works for the next instead of waiting.
    """
    _run(lanes)


def _run(lanes: Sequence[Iterable[Phase]], at_once: int | None = None) -> None:
    import torch

    count = torch.get_num_threads()
    if count == 1 or current_thread().name.startswith(_NAME):
        for lane in lanes:
            for work, parts in lane:
                for part in parts:
                    work(part)
        return
    left = _Lanes(lanes)
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None

    def run() -> None:
        with ExitStack() as modes:  # those that a thread is not in anyway: entering each takes a while
            if inference:
                modes.enter_context(torch.inference_mode())
            elif not grad:
                modes.enter_context(torch.no_grad())
            if autocast is not None:
                modes.enter_context(torch.autocast("cpu", autocast))
            try:
                left.work()
            except BaseException:
                left.stop()
                raise

    with _starting:
        pool = _pool(count)
    futures = [pool.submit(run) for _ in range(count if at_once is None else min(count, at_once))]
    try:
        for future in futures:
            future.result()
    finally:  # no part of this call may begin when it fails
        left.stop()
        for future in futures:
            future.cancel()
