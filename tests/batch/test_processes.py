"""A process for each device: the code of several GPUs, run on two processes of the CPU."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from diffmf_cli.batch.pipeline import Pipeline, load_fuser
from diffmf_cli.batch.processes import ProcessEngine
from diffmf_cli.errors import WeightsError


def files(jobs):
    return {job.key: Path(job.output).read_bytes() for job in jobs}


def test_same_bytes_as_one_process_even_if_a_worker_dies(settings, jobs, finish):
    finish(Pipeline(load_fuser(settings), settings), jobs)
    expected = files(jobs)
    for job in jobs:
        Path(job.output).unlink()

    engine = ProcessEngine(["cpu", "cpu"], settings)
    assert engine.depth >= 2
    first, second = engine.pids
    assert first != second
    outcomes = {}
    # A stopped process keeps its jobs, so that its death is sure to lose some.
    os.kill(first, signal.SIGSTOP)

    def kill():
        time.sleep(0.5)
        os.kill(first, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcomes = finish(engine, jobs)
    killer.join()
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert max(outcome.job.attempt for outcome in outcomes.values()) == 2
    assert files(jobs) == expected
    for pid in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_what_was_written_is_told_before_it_ends(settings, jobs):
    engine, told = ProcessEngine(["cpu", "cpu"], settings), []

    def tell(outcome):  # keeps the thread that listens, so that the next answers wait in the connection
        if not told:
            time.sleep(0.5)
        told.append(outcome.result())

    for job in jobs:
        engine.submit(job).add_done_callback(tell)
    deadline = time.monotonic() + 30
    while not all(Path(job.output).exists() for job in jobs):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    engine.close()
    assert sorted(outcome.job.key for outcome in told) == [job.key for job in jobs]


def test_a_model_that_cannot_be_loaded(settings, tmp_path):
    from dataclasses import replace

    (tmp_path / "no.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"no\.safetensors"):
        ProcessEngine(["cpu"], replace(settings, model=str(tmp_path / "no.safetensors")))
