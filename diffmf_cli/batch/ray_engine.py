"""The engine of a Ray cluster: actors that each hold a pipeline, fed with jobs, not with pictures.

Actors read and write the files themselves, so all machines need to see them: a shared file system, or URLs.
"""

import os
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from diffmf_cli.batch.job import Job, Outcome, Settings
from diffmf_cli.batch.processes import ATTEMPTS
from diffmf_cli.errors import DiffmfError, UsageError


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
                ray.init(log_to_driver=False, logging_level="ERROR", **local)
            except Exception as error:
                address = os.environ.get("RAY_ADDRESS", "a local cluster")
                reason = " ".join(str(error).split())[:200]
                raise DiffmfError(f"Ray: {address} cannot be joined ({reason}): check RAY_ADDRESS") from None
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if settings.device in ("auto", "cuda") else 0
        count = workers or gpus or len(ray.nodes())
        actor = ray.remote(_Fusing).options(
            num_gpus=1 if gpus else 0, num_cpus=1, max_restarts=3, max_concurrency=64
        )
        self._workers = [actor.remote(settings) for _ in range(count)]
        try:
            depths = ray.get([worker.depth.remote() for worker in self._workers])
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise DiffmfError(f"Ray: no worker could load the model ({reason})") from None
        self.depth = sum(depths)
        self._load = [0] * count
        self._lock = threading.Lock()

    def submit(self, job: Job) -> "Future[Outcome]":
        """Takes a job; whatever goes wrong with it is in its outcome."""
        future: Future[Outcome] = Future()
        self._assign(job, future)
        return future

    def close(self) -> None:
        """Ends the workers, and the cluster where it was started here."""
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
            index = min(range(len(self._load)), key=self._load.__getitem__)
            self._load[index] += 1
        answer = self._workers[index].fuse.remote(job).future()
        answer.add_done_callback(lambda answer: self._answered(index, job, future, answer))

    def _answered(self, index: int, job: Job, future: "Future[Outcome]", answer: "Future[Outcome]") -> None:
        with self._lock:
            self._load[index] -= 1
        error = answer.exception()
        if error is None:
            future.set_result(answer.result())
        elif job.attempt < ATTEMPTS and isinstance(error, self._ray.exceptions.RayError):
            self._assign(replace(job, attempt=job.attempt + 1), future)
        else:
            reason = " ".join(str(error).split())[:200]
            future.set_result(Outcome(job, "failed", "worker", f"its Ray worker died: {reason}"))
