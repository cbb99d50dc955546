"""A small set of pairs, and the same jobs for every engine."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from diffmf_cli.batch.engine import run_jobs
from diffmf_cli.batch.job import Job, Outcome, Settings
from diffmf_cli.batch.table import Naming, table_of_folders


@pytest.fixture(autouse=True)
def _use_one_thread(one_thread: None) -> None:
    """For all tests of this folder."""


@pytest.fixture
def make_pairs(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """A function that writes pairs of different content; 48x64 and 32x40 in turn."""

    def make(count: int, start: int = 0) -> tuple[Path, Path]:
        for index in range(start, start + count):
            rng = np.random.default_rng(index)
            height, width = ((48, 64), (32, 40))[index % 2]
            y, x = np.mgrid[:height, :width]
            ir = 60 + 180 * np.exp(-((x - rng.uniform(0, width)) ** 2 + (y - height / 2) ** 2) / 50)
            vis = rng.uniform(20, 220, 3) + (x + y)[..., None] / 3 + rng.normal(0, 4, (height, width, 3))
            for folder, pixels in (("ir", ir), ("vis", vis)):
                (tmp_path / folder).mkdir(exist_ok=True)
                path = tmp_path / folder / f"{index:03}.png"
                cv2.imwrite(str(path), pixels.clip(0, 255).astype(np.uint8))
        return tmp_path / "ir", tmp_path / "vis"

    return make


@pytest.fixture
def jobs(make_pairs, tmp_path: Path) -> list[Job]:
    """Eight jobs of two sizes."""
    ir, vis = make_pairs(8)
    return table_of_folders(str(ir), str(vis), Naming(str(tmp_path / "out"))).jobs


@pytest.fixture
def settings(tiny_model: Path) -> Settings:
    """Settings of the small model on the CPU, with the scan that needs no compilation."""
    return Settings(model=str(tiny_model), device="cpu", scan_backend="torch")


@pytest.fixture
def finish() -> Callable[..., dict[str, Outcome]]:
    """Runs all jobs on an engine and closes it; outcomes by key."""

    def call(engine, jobs, **options) -> dict[str, Outcome]:
        found = run_jobs(iter(jobs), lambda: engine, lambda job: False, **options)
        return {outcome.job.key: outcome for outcome in found}

    return call


@pytest.fixture
def alone(settings: Settings) -> Callable[[list[Job]], dict[str, np.ndarray]]:
    """What the API gives for each job, pair by pair."""

    def call(jobs: list[Job]) -> dict[str, np.ndarray]:
        from diffmf_cli.batch.pipeline import load_fuser
        from diffmf_cli.images.read import read_image

        fuser = load_fuser(settings)
        return {
            job.key: fuser.fuse(read_image(Path(job.ir)).pixels, read_image(Path(job.vis)).pixels)
            for job in jobs
        }

    return call
