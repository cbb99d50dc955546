"""What fuses jobs, whatever it runs on, and the loop that feeds it."""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from queue import Empty, Queue
from typing import Protocol

from diffmf_cli.batch.job import Job, Outcome

_POLL = 0.2  # seconds in which new jobs are noticed, and Ctrl-C


class Engine(Protocol):
    """Fuses jobs, several at once.

    Attributes:
        depth: Jobs that it should have at a time; more would only wait in memory.
    """

    depth: int

    def submit(self, job: Job) -> "Future[Outcome]":
        """Takes a job; whatever goes wrong with it is in its outcome."""

    def close(self) -> None:
        """Ends within two seconds, with jobs whose results are not yet being written left undone."""


def run_jobs(
    jobs: Iterator[Job | None],
    start: Callable[[], Engine],
    skip: Callable[[Job], bool],
    *,
    interrupted: Callable[[], bool] = lambda: False,
    fail_fast: bool = False,
) -> Iterator[Outcome]:
    """Runs jobs and yields their outcomes as they come, with a bounded number on their way.

    Args:
        jobs: The jobs; None says that there is none at the moment, but may be later.
        start: Makes the engine, when the first job needs it.
        skip: Whether a job's result is there already.
        interrupted: Whether Ctrl-C came; see `diffmf_cli.interrupt.held_interrupt`.
        fail_fast: Take no more jobs after a failure.

    Yields:
        Outcomes, and at an interrupt those that had come before it.

    Raises:
        KeyboardInterrupt: where Ctrl-C came.
    """
    engine: Engine | None = None
    # No SimpleQueue: a signal at the end of its wait makes Python 3.11 wait for ever.
    finished: Queue[Future[Outcome]] = Queue()
    pending, more = 0, True
    try:
        while more or pending:
            while more and (engine is None or pending < engine.depth) and not interrupted():
                job = next(jobs, _END)
                if isinstance(job, _End):
                    more = False
                elif job is None:
                    break
                elif skip(job):
                    yield Outcome(job, "skipped")
                else:
                    engine = engine or start()
                    engine.submit(job).add_done_callback(finished.put)
                    pending += 1
            if interrupted():
                raise KeyboardInterrupt
            if not (more or pending):
                break
            try:
                outcome = finished.get(timeout=_POLL).result()
            except Empty:
                continue
            pending -= 1
            more = more and not (fail_fast and outcome.status == "failed")
            yield outcome
    except KeyboardInterrupt:
        if engine is not None:
            engine.close()
            engine = None
        while not finished.empty():
            try:
                yield finished.get().result()
            except CancelledError:
                continue
        raise
    finally:
        if engine is not None:
            engine.close()


class _End:
    pass


_END = _End()
