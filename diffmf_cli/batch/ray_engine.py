"""The engine of a Ray cluster: actors that each hold a pipeline, fed with jobs, not with pictures.

Actors read and write the files themselves, so all machines need to see them: a shared file system, or URLs.
"""

import os
import threading
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

from diffmf_cli.batch.job import Job, Outcome, Settings
from diffmf_cli.batch.processes import ATTEMPTS
from diffmf_cli.errors import DiffmfError, UsageError

_RESTARTS = 3
_CONTROL = "control"  # calls that do not wait behind jobs


class _Fusing:
    """The actor: one device's pipeline on some machine of the cluster."""

    def __init__(self, settings: Settings) -> None:
        from diffmf_cli.batch.pipeline import Pipeline, load_fuser

        self._pipeline = Pipeline(load_fuser(settings), settings)

    def depth(self) -> int:
        return self._pipeline.depth

    def pid(self) -> int:
        return os.getpid()

    def fuse(self, job: Job) -> Outcome:
        return self._pipeline.submit(job).result()

    def close(self) -> None:
        self._pipeline.close()


class RayEngine:
    """Fuses jobs on a Ray cluster; see `diffmf_cli.batch.engine.Engine`.

    Joins the cluster that `RAY_ADDRESS` names, or starts one on this machine. Each worker takes one GPU where
    the cluster has any. Ray starts a worker again that died, and its jobs are given out once more.
    """

    def __init__(self, settings: Settings, *, workers: int | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError("--engine ray needs Ray: pip install 'diffmf[ray]'") from None
        self._ray: Any = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            local = {} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False}
            try:
                self._ray.init(log_to_driver=False, logging_level="ERROR", **local)
            except Exception as error:
                address = os.environ.get("RAY_ADDRESS", "a local cluster")
                reason = " ".join(str(error).split())[:200]
                raise DiffmfError(f"Ray: {address} cannot be joined ({reason}): check RAY_ADDRESS") from None
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if settings.device in ("auto", "cuda") else 0
        count = workers or gpus or len(ray.nodes())
        actor = self._ray.remote(concurrency_groups={_CONTROL: 1})(_Fusing).options(
            num_gpus=1 if gpus else 0, num_cpus=1, max_restarts=_RESTARTS, max_concurrency=64
        )
        self._workers: list[Any] = [actor.remote(settings) for _ in range(count)]
        try:
            depths = ray.get([worker.depth.remote() for worker in self._workers])
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise DiffmfError(f"Ray: no worker could load the model ({reason})") from None
        self.depth = sum(depths)
        self._load = [0] * count
        self._down: set[int] = set()
        self._given: dict[Any, Future[Outcome]] = {}
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, job: Job) -> "Future[Outcome]":
        """Takes a job; whatever goes wrong with it is in its outcome."""
        future: Future[Outcome] = Future()
        self._assign(job, future)
        return future

    def close(self) -> None:
        """Ends the workers, and the cluster where it was started here.

        Results that are being written are finished and told, within a grace period.
        """
        with self._lock:
            self._closed = True
        closing = [worker.close.options(concurrency_group=_CONTROL).remote() for worker in self._workers]
        self._ray.wait(closing, num_returns=len(closing), timeout=2)
        given = dict(self._given)
        if given:
            told, _ = self._ray.wait(list(given), num_returns=len(given), timeout=0.2)
            wait([given[answer] for answer in told], timeout=1)
        for worker in self._workers:
            self._ray.kill(worker)
        if self._ours:
            self._ray.shutdown()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        found: list[int] = self._ray.get([worker.pid.remote() for worker in self._workers])
        return found

    def _assign(self, job: Job, future: "Future[Outcome]") -> None:
        with self._lock:
            up = [index for index in range(len(self._load)) if index not in self._down]
            index = min(up or self._down, key=self._load.__getitem__)
            self._load[index] += 1
        # With retries Ray waits for a worker that is being started again.
        method = self._workers[index].fuse.options(max_task_retries=0 if up else _RESTARTS)
        answer = method.remote(job)
        self._given[answer] = future
        answer.future().add_done_callback(lambda done: self._answered(index, job, answer, done))

    def _answered(self, index: int, job: Job, answer: Any, done: "Future[Outcome]") -> None:
        future = self._given[answer]
        with self._lock:
            self._load[index] -= 1
        error = done.exception()
        if error is None:
            future.set_result(done.result())
        elif not self._closed:
            self._retry(index, job, future, error)
        del self._given[answer]

    def _retry(self, index: int, job: Job, future: "Future[Outcome]", error: BaseException) -> None:
        self._leave_out(index)
        if job.attempt < ATTEMPTS:
            self._assign(replace(job, attempt=job.attempt + 1), future)
        else:
            reason = " ".join(str(error).split())[:200]
            future.set_result(Outcome(job, "failed", "worker", f"its Ray worker died: {reason}"))

    def _leave_out(self, index: int) -> None:
        """Gives a worker that died no jobs until it answers again."""
        with self._lock:
            if index in self._down:
                return
            self._down.add(index)

        def answered(ping: "Future[int]") -> None:
            if ping.exception() is None:
                with self._lock:
                    self._down.discard(index)

        ping = self._workers[index].pid.options(max_task_retries=_RESTARTS).remote()
        ping.future().add_done_callback(answered)
