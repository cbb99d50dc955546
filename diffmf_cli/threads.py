"""Threads that each work alone on a part of a picture, instead of all together on every operation; how many.

Within such a thread torch uses no further threads: a part stays in the cache of its core, and nobody waits
for the others after each operation, which on a busy machine costs more than the work.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from threading import Barrier, Lock, current_thread
from typing import Any, TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")
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


def on_threads(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """`work` of each part, in their order, on as many threads as torch uses, in the caller's torch modes.

    Args:
        work: called in any thread and order; a call from within another runs where it is.
        parts: what to call it with.
    """
    import torch

    count = torch.get_num_threads()
    if count == 1 or len(parts) == 1 or current_thread().name.startswith(_NAME):
        return [work(part) for part in parts]
    results: list[Any] = [None] * len(parts)
    left = iter(range(len(parts)))  # a thread takes the next when it is free
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
            for i in left:
                results[i] = work(parts[i])

    with _starting:
        pool = _pool(count)
    futures = [pool.submit(run) for _ in range(min(count, len(parts)))]
    try:
        for future in futures:
            future.result()
    finally:  # no part of this call may begin when it fails
        for _ in left:
            pass
        for future in futures:
            future.cancel()
    return results
