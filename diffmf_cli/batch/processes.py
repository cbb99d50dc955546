"""The engine of several GPUs: a process for each, which gets its next job when it has room for one.

Sizes differ, so a fixed share for each GPU would leave some idle. A process that dies is started again and
its jobs are given out once more.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection

from diffmf_cli.batch.job import Job, Outcome, Settings
from diffmf_cli.errors import DiffmfError

ATTEMPTS = 2  # a job that kills its worker twice is to blame
_RESTARTS = 3


class ProcessEngine:
    """Fuses jobs in one process for each device; see `diffmf_cli.batch.engine.Engine`."""

    def __init__(self, devices: Sequence[str], settings: Settings) -> None:
        self._lock = threading.Lock()
        self._closed = False
        threads = max(1, (os.cpu_count() or 1) // len(devices))
        self._workers = [_Worker(self, replace(settings, device=device), threads) for device in devices]
        self.depth = sum(worker.wait_until_ready() for worker in self._workers)

    def submit(self, job: Job) -> "Future[Outcome]":
        """Takes a job; whatever goes wrong with it is in its outcome."""
        future: Future[Outcome] = Future()
        self._assign(job, future)
        return future

    def close(self) -> None:
        """Ends; results that are being written are finished and told, within a grace period."""
        with self._lock:
            self._closed = True
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.process.join(2)
            worker.process.kill()
            worker.process.join(1)
            worker.listener.join(1)  # what a worker said before its end is still in the connection

    @property
    def pids(self) -> list[int | None]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def _assign(self, job: Job, future: "Future[Outcome]") -> None:
        with self._lock:
            alive = [worker for worker in self._workers if worker.usable]
            if alive:
                min(alive, key=lambda worker: len(worker.jobs)).give(job, future)
                return
        message = "no worker process is left: they died, perhaps for lack of memory; try fewer --gpus"
        future.set_result(Outcome(job, "failed", "worker", message))

    def _died(self, worker: "_Worker") -> None:
        with self._lock:
            if self._closed:
                return
            worker.process.join(1)  # or it would stay a zombie
            lost = list(worker.jobs.values())
            worker.jobs.clear()
            worker.restart()
        for job, future in lost:
            if job.attempt < ATTEMPTS:
                self._assign(replace(job, attempt=job.attempt + 1), future)
            else:
                message = (
                    f"the process that worked on it died {job.attempt} times, perhaps for lack of memory"
                )
                future.set_result(Outcome(job, "failed", "worker", message))


class _Worker:
    """The parent's side of one process."""

    def __init__(self, engine: ProcessEngine, settings: Settings, threads: int) -> None:
        self._engine, self._settings, self._threads = engine, settings, threads
        self._starts = 0
        self.usable = True
        self.jobs: dict[int, tuple[Job, Future[Outcome]]] = {}
        self._number = 0
        self.restart()

    def restart(self) -> None:
        if self._starts > _RESTARTS:
            self.usable = False
            return
        self._starts += 1
        self._ready: Future[int] = Future()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, self._settings, self._threads)
        self.process = context.Process(target=_work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()  # so that its death ends our reading
        self.listener = threading.Thread(
            target=self._listen, args=(self._connection, self._ready), daemon=True
        )
        self.listener.start()

    def wait_until_ready(self) -> int:
        """The depth of its pipeline, when its model is loaded."""
        return self._ready.result()

    def give(self, job: Job, future: "Future[Outcome]") -> None:
        self._number += 1
        self.jobs[self._number] = job, future
        with suppress(OSError):  # it died; the listener gives the job to another
            self._connection.send((self._number, job))

    def stop(self) -> None:
        with suppress(OSError):
            self._connection.send(None)

    def _listen(self, connection: Connection, ready: "Future[int]") -> None:
        try:
            first = connection.recv()
            if isinstance(first, Exception):
                ready.set_exception(first)
            else:
                ready.set_result(first)
            while True:
                number, outcome = connection.recv()
                self.jobs.pop(number)[1].set_result(outcome)
        except (EOFError, OSError):
            if not ready.done():
                ready.set_exception(
                    DiffmfError(f"the process for {self._settings.device} died while it loaded the model")
                )
            if ready.exception() is not None:
                self._starts = _RESTARTS + 1  # the next one would not load it either
            self._engine._died(self)


def _work(connection: Connection, settings: Settings, threads: int) -> None:
    """A worker process: jobs in, outcomes out, until the parent says so or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and tells
    from diffmf_cli.batch.pipeline import Pipeline, load_fuser

    try:
        pipeline = Pipeline(load_fuser(settings), settings, threads=threads)
    except Exception as error:
        connection.send(error if isinstance(error, DiffmfError) else DiffmfError(str(error)))
        return
    sending = threading.Lock()

    def answer(number: int, future: "Future[Outcome]") -> None:
        if not future.cancelled():
            with sending:
                connection.send((number, future.result()))

    try:
        connection.send(pipeline.depth)
        while (message := connection.recv()) is not None:
            number, job = message
            pipeline.submit(job).add_done_callback(partial(answer, number))
    except (EOFError, OSError):
        pass
    pipeline.close()
    os._exit(0)
