"""`--engine ray` on a local cluster of two workers: takes about half a minute.

Needs `pip install ray`; skipped without.
"""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from diffmf_cli.batch.pipeline import Pipeline, load_fuser

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    """A local cluster that lives as long as these tests."""
    # The workers import the package from the checkout.
    root = str(Path(__file__).resolve().parents[2])
    ray.init(
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": root}},
    )
    yield
    ray.shutdown()


def files(jobs):
    return {job.key: Path(job.output).read_bytes() for job in jobs}


def test_same_bytes_as_the_local_engine_even_if_a_worker_dies(cluster, settings, jobs, finish):
    from diffmf_cli.batch.ray_engine import RayEngine

    finish(Pipeline(load_fuser(settings), settings), jobs)
    expected = files(jobs)
    for job in jobs:
        Path(job.output).unlink()

    engine = RayEngine(settings, workers=2)
    first, second = engine.pids
    assert first != second
    # A stopped process keeps its jobs, so that its death is sure to lose some.
    os.kill(first, signal.SIGSTOP)

    def kill():
        time.sleep(1)
        os.kill(first, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcomes = finish(engine, jobs)
    killer.join()
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert max(outcome.job.attempt for outcome in outcomes.values()) == 2
    assert files(jobs) == expected
    assert ray.is_initialized()  # a cluster that was there before stays


def test_what_was_written_is_told_before_it_ends(cluster, settings, jobs):
    from diffmf_cli.batch.ray_engine import RayEngine

    engine, told = RayEngine(settings, workers=2), []
    for job in jobs:
        engine.submit(job).add_done_callback(lambda outcome: told.append(outcome.result().job.output))
    deadline = time.monotonic() + 120
    while not any(Path(job.output).exists() for job in jobs):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 3
    assert sorted(told) == [job.output for job in jobs if Path(job.output).exists()]
    assert {path.name for path in Path(jobs[0].output).parent.iterdir()} == {Path(name).name for name in told}


def test_the_command(cluster, cli, make_pairs, tiny_model, tmp_path):
    ir, vis = make_pairs(3)
    (vis / "001.png").write_bytes(b"broken")
    options = ("-m", tiny_model, "--engine", "ray", "--workers", "2")
    result = cli("batch", ir, vis, "-o", tmp_path / "out", *options)
    assert result.code == 1
    assert "001.png is not a picture" in result.err
    assert len(list((tmp_path / "out").glob("*_fused.png"))) == 2


def test_a_model_that_cannot_be_loaded(cluster, settings, tmp_path):
    from dataclasses import replace

    from diffmf_cli.batch.ray_engine import RayEngine
    from diffmf_cli.errors import DiffmfError

    (tmp_path / "no.safetensors").write_bytes(b"")
    with pytest.raises(DiffmfError, match=r"no\.safetensors"):
        RayEngine(replace(settings, model=str(tmp_path / "no.safetensors")), workers=1)
