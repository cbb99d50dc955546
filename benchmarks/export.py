"""An exported ONNX file in onnxruntime, our CPU path and plain torch, in turns on the same pictures.

    diffmf export -m lite && python benchmarks/export.py lite.onnx [--sizes 640x480] [--threads 1]

All get the same number of threads (`--threads`); plain torch is what `--scan-backend torch` runs. Read the
ratios, onnxruntime's over each: of the best turns, and of the CPU time of all threads, which other programs
disturb less. Fails if the results differ by more than 1e-5.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table

from diffmf_cli import scan
from diffmf_cli.model.catalogue import find_weights
from diffmf_cli.model.checkpoint import load_checkpoint
from diffmf_cli.model.cpu.inference import CpuInference

TOLERANCE = 1e-5


def measure(ways: dict, runs: int) -> dict:
    """Name -> best wall-clock and CPU seconds; every way once to warm up, then in turns."""
    best = {}
    for turn in range(runs + 1):
        for name, run in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            if turn:
                best[name] = tuple(map(min, spent, best.get(name, spent)))
    return best


def main() -> None:
    """Runs all sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="made by `diffmf export`")
    parser.add_argument("--model", help="name or path; else the name of the file")
    parser.add_argument("--sizes", nargs="+", default=["320x240", "640x480", "1280x1024"], metavar="WxH")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    given = parser.parse_args()

    torch.set_num_threads(given.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given.threads
    session = onnxruntime.InferenceSession(given.file, options, providers=["CPUExecutionProvider"])
    network, _ = load_checkpoint(find_weights(given.model or Path(given.file).stem))
    kernels = CpuInference(network)
    random = np.random.default_rng(0)
    table = Table(title=f"{given.file}, {given.threads} threads, onnxruntime {onnxruntime.__version__}")
    titles = "size", "diffmf s", "torch s", "onnxruntime s", "to diffmf", "CPU time", "to torch", "CPU time"
    for title in titles:
        table.add_column(title, justify="right")
    rows = []
    for size in given.sizes:
        width, height = (int(side) for side in size.split("x"))
        ir, vis = (random.random((1, 1, height, width), dtype=np.float32) for _ in range(2))
        results = {}

        def ours(name, run, ir=ir, vis=vis, results=results):
            with torch.inference_mode(), scan.using("torch"):
                results[name] = run(torch.from_numpy(ir), torch.from_numpy(vis)).numpy()

        def theirs(ir=ir, vis=vis, results=results):
            results["onnxruntime"] = session.run(None, {"ir": ir, "vis": vis})[0]

        ways = {name: partial(ours, name, run) for name, run in (("diffmf", kernels), ("torch", network))}
        ways["onnxruntime"] = theirs
        best = measure(ways, given.runs)
        difference = float(np.abs(results["diffmf"] - results["onnxruntime"]).max())
        if difference > TOLERANCE:
            sys.exit(f"the results differ by {difference:.1e} at {size}")
        ratios = [
            theirs / ours
            for way in ("diffmf", "torch")
            for ours, theirs in zip(best[way], best["onnxruntime"], strict=True)
        ]
        rows.append({"size": size, "seconds": best, "difference": difference})
        seconds = [f"{best[name][0]:.3f}" for name in best]
        table.add_row(size, *seconds, *(f"{ratio:.2f}" for ratio in ratios))
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps({"threads": given.threads, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
