"""How well `diffmf batch` keeps the device busy, and that its memory does not grow.

    python benchmarks/batch.py                      # null model, 1,000 pairs; then lite, 60 pairs
    python benchmarks/batch.py --pairs 5000 --models null
    python benchmarks/batch.py --models base --model-pairs 20 --rounds 5
    python benchmarks/batch.py --models base --model-pairs 2000 --batch-sizes 1 0 --gpus 0,1 --rounds 2

Pairs of one size are rendered into a temporary folder. The null model copies the visible luma, so what is
left is reading, colour and writing: as fast as a model can be fed. Its line `one by one` is the same work
without threads, and `waiting` is the null model with a pause in it, as long as the work of one pair: a device
that works elsewhere, such as a GPU. Where all overlaps, a run with pauses lasts as long as its pauses.

For a real model each round times, in turn, the network alone on prepared pairs, and the whole run with files;
`run / model` is the ratio of the best of each, of which `--limit` makes the exit code; `CPU` is the ratio
of the processor times of all threads, which other programs disturb less. `model busy` is the part of the run
in which the network worked: what is missing to 100 % is waiting for pictures. Memory is the resident set of
the process after a tenth of the run, and the most until its end. With `--gpus` the same pairs also go through
one process for each GPU, first through one of them, then through all; `against one` is the ratio.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as diffmf_cli sets it

from diffmf_cli.batch import locations
from diffmf_cli.batch.engine import Engine, run_jobs
from diffmf_cli.batch.job import Job, Settings
from diffmf_cli.batch.pipeline import Pipeline, load_fuser
from diffmf_cli.batch.processes import ProcessEngine
from diffmf_cli.batch.summary import Summary
from diffmf_cli.batch.table import Naming, table_of_folders
from diffmf_cli.fusion.files import encode_fused, read_pair
from diffmf_cli.fusion.fuser import Fuser, prepare


def render(folder: Path, count: int, width: int, height: int) -> None:
    """Pairs with the texture, and so about the file size, of pictures from a camera."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    smooth = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 8) * 300
    fine = rng.normal(0, 3, (height, width)).astype(np.float32)
    for name in ("ir", "vis"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        hot = np.exp(-((x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2) / 2000)
        shift = int(rng.integers(0, width))
        ir = 90 + 150 * hot + np.roll(smooth, shift, 1) + fine
        base = 100 + 40 * np.sin(x / 37 + index) + np.roll(smooth, -shift, 1) + np.roll(fine, shift, 1)
        vis = np.stack([base + 30, base, base - 20 + y / 20], 2)
        for name, pixels in (("ir", ir), ("vis", vis)):
            cv2.imwrite(str(folder / name / f"{index:05}.png"), pixels.clip(0, 255).astype(np.uint8))


def resident_megabytes() -> float:
    """The memory of this process, now."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGESIZE") / 2**20


class NullFuser(Fuser):
    """A model that copies the visible luma, after a pause."""

    def __init__(self, pause: float = 0.0) -> None:
        self.device, self.precision, self._pause = "cpu", "fp32", pause

    def run(self, pairs):
        """The visible lumas."""
        time.sleep(self._pause * len(pairs))
        return [pair.vis for pair in pairs]


def run(jobs: list[Job], engine: Engine) -> dict:
    """One run of an engine over all jobs, with the memory that it needed in this process."""
    summary, memory = Summary(), []
    summary.start()
    worked = time.process_time()
    for outcome in run_jobs(iter(jobs), lambda: engine, lambda job: False):
        if outcome.status != "done":
            sys.exit(f"{outcome.job.key}: {outcome.message}")
        summary.add(outcome)
        memory.append(resident_megabytes())
    tenth = max(1, len(memory) // 10)
    return {
        "pairs": summary.total,
        "seconds": summary.seconds,
        "cpu_seconds": time.process_time() - worked,
        "model_seconds": summary.model_seconds,
        "megabytes_after_tenth": max(memory[:tenth]),
        "megabytes_peak": max(memory),
    }


def one_by_one(jobs: list[Job], fuser: Fuser, settings: Settings) -> dict:
    """The same work without threads."""
    start = time.perf_counter()
    for job in jobs:
        ir, vis = read_pair(Path(job.ir), Path(job.vis), (job.ir, job.vis))
        pair = prepare(ir.pixels, vis.pixels)
        fused = fuser.restore(pair, fuser.run([pair])[0])
        data, _ = encode_fused(fused, vis, ".png", settings.quality)
        locations.write(job.output, data, True)
    return {"pairs": len(jobs), "seconds": time.perf_counter() - start}


def model_alone(jobs: list[Job], fuser: Fuser) -> tuple[float, float]:
    """Seconds, and processor seconds, of the network alone: pictures are in memory, results are dropped."""
    images = [read_pair(Path(job.ir), Path(job.vis), (job.ir, job.vis)) for job in jobs]
    pairs = [prepare(ir.pixels, vis.pixels) for ir, vis in images]
    fuser.run(pairs[:1])
    start, worked = time.perf_counter(), time.process_time()
    for pair in pairs:
        fuser.run([pair])
    return time.perf_counter() - start, time.process_time() - worked


def against_model(jobs: list[Job], fuser: Fuser, settings: Settings, rounds: int) -> dict:
    """The best run of several, and its ratio to the best time of the network alone."""
    alone, runs = [], []
    for _ in range(rounds):
        # In a thread, as in a run: a process whose main thread has worked too waits in another way.
        with ThreadPoolExecutor(1) as thread:
            alone.append(thread.submit(model_alone, jobs, fuser).result())
        runs.append(run(jobs, Pipeline(fuser, settings)))
    best = min(runs, key=lambda row: row["seconds"])
    seconds, worked = (min(column) for column in zip(*alone, strict=True))
    return {
        **best,
        "alone_seconds": seconds,
        "run_to_model": best["seconds"] / seconds,
        "cpu_to_model": min(row["cpu_seconds"] for row in runs) / worked,
        "rounds": [(row["seconds"], times[0]) for row, times in zip(runs, alone, strict=True)],
    }


def on_gpus(jobs: list[Job], devices: list[str], settings: Settings, rounds: int) -> list[dict]:
    """The best runs with a process for the first GPU, and with one for each; their start is not timed."""
    rows = []
    for some in (devices[:1], devices):
        runs = [run(jobs, ProcessEngine(some, settings)) for _ in range(rounds)]
        best = min(runs, key=lambda row: row["seconds"])
        what = f"{settings.model}, {len(some)} GPU process{'es' if some[1:] else ''}"
        against = rows[0]["seconds"] / best["seconds"] if rows else 1.0
        rows.append({**best, "what": what, "against_one": against})
        del rows[-1]["model_seconds"]  # of several devices at a time
    return rows


def main() -> None:
    """Renders the pairs and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["null", "lite"], help="null, names or paths")
    parser.add_argument("--pairs", type=int, default=1000, help="of the null model")
    parser.add_argument("--model-pairs", type=int, default=60, help="of a real model")
    parser.add_argument("--size", default="640x480", metavar="WxH")
    parser.add_argument("--rounds", type=int, default=3, help="of a real model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[0], help="0 is automatic")
    parser.add_argument("--gpus", metavar="0,1", help="also one process for each of these")
    parser.add_argument("--limit", type=float, help="fail where the best run / model is above")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    settings = Settings("null", device=options.device, overwrite=True)
    rows: list[dict] = []

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = max(
            options.pairs if "null" in options.models else 0,
            options.model_pairs if set(options.models) - {"null"} else 0,
        )
        render(folder, count, width, height)
        jobs = table_of_folders(str(folder / "ir"), str(folder / "vis"), Naming(str(folder / "out"))).jobs
        for model in options.models:
            if model == "null":
                some = jobs[: options.pairs]
                rows.append({"what": "null, one by one", **one_by_one(some[:200], NullFuser(), settings)})
                rows.append({"what": "null", **run(some, Pipeline(NullFuser(), settings))})
                pause = rows[-2]["seconds"] / rows[-2]["pairs"]
                waiting = run(some[:200], Pipeline(NullFuser(pause), settings))
                rows.append({"what": f"null, waiting {1000 * pause:.0f} ms", **waiting})
                rows[-1]["run_to_model"] = rows[-1]["seconds"] / rows[-1]["model_seconds"]
                continue
            some = jobs[: options.model_pairs]
            fuser = load_fuser(replace(settings, model=model))
            for size in options.batch_sizes:
                at_once = f", {size} at once" if size else ""
                figures = against_model(some, fuser, replace(settings, batch_size=size), options.rounds)
                rows.append({"what": f"{model} on {fuser.device}{at_once}", **figures})
            if options.gpus:
                del fuser
                devices = [f"cuda:{gpu}" for gpu in options.gpus.split(",")]
                rows += on_gpus(some, devices, replace(settings, model=model), options.rounds)

    table = Table(title=f"diffmf batch, {options.size}, {os.cpu_count()} cores")
    titles = (
        "run",
        "pairs",
        "pairs/s",
        "seconds",
        "model alone",
        "run / model",
        "CPU",
        "model busy",
        "against one",
        "MB after a tenth",
        "MB at most",
    )
    for title in titles:
        table.add_column(title, justify="right")
    for row in rows:
        figures = (row.get(key) for key in ("alone_seconds", "run_to_model", "cpu_to_model"))
        busy = f"{100 * row['model_seconds'] / row['seconds']:.0f} %" if "model_seconds" in row else ""
        ratio = f"{row['against_one']:.2f}" if "against_one" in row else ""
        memory = (row.get(key) for key in ("megabytes_after_tenth", "megabytes_peak"))
        table.add_row(
            row["what"],
            str(row["pairs"]),
            f"{row['pairs'] / row['seconds']:.2f}",
            f"{row['seconds']:.2f}",
            *("" if figure is None else f"{figure:.2f}" for figure in figures),
            busy,
            ratio,
            *("" if figure is None else f"{figure:.0f}" for figure in memory),
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    ratios = [row["run_to_model"] for row in rows if "alone_seconds" in row]
    if options.limit and ratios and min(ratios) > options.limit:
        sys.exit(f"a run takes {min(ratios):.2f} times the model's own time, more than {options.limit:.2f}")


if __name__ == "__main__":
    main()
