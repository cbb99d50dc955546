"""How long a user waits for an answer: help, version, the list of weights, and a cold `fuse` by phases.

    python benchmarks/startup.py [--runs 7] [--model base] [--json FILE]

Prints the median of wall-clock seconds of fresh processes; files are in the disk cache, as on a second use.
The last line is the Python API in a process of its own, from its start to the first fused picture:
interpreter and imports, loading the weights, the first call, which also loads kernels and starts threads,
and a later call for comparison. Fails if `--help` or `--version` take longer than their target.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

TARGET = 0.3
COMMAND = [sys.executable, "-m", "diffmf_cli"]
# Until then the interpreter starts; time.time, because the clock has to be the parent's.
CHILD = """
import sys, time
import cv2, torch
from diffmf_cli.fusion.fuser import Fuser
marks = [time.time()]
ir, vis = (cv2.imread(name, cv2.IMREAD_UNCHANGED) for name in sys.argv[2:4])
marks.append(time.time())
model = Fuser.load(sys.argv[1])
for _ in range(3):
    marks.append(time.time())
    model.fuse(ir, vis)
marks.append(time.time())
print(*marks)
"""
PHASES = ("interpreter and imports", "read", "load", "first call", "second call", "later call")


def timed(args: list[str]) -> tuple[float, str]:
    """Wall-clock seconds and stdout of one run."""
    start = time.perf_counter()
    done = subprocess.run([*COMMAND, *args], stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - start, done.stdout


def api(model: str, ir: str, vis: str) -> list[float]:
    """Seconds of each of `PHASES`."""
    start = time.time()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, model, ir, vis], stdout=subprocess.PIPE, text=True, check=True
    )
    marks = [start, *map(float, done.stdout.split())]
    return [after - before for before, after in itertools.pairwise(marks)]


def main() -> None:
    """Runs all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--model", default="base")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()

    slow, figures = [], {}
    for args in (["--help"], ["--version"], ["download-weights", "--list"]):
        timed(args)
        seconds = statistics.median(timed(args)[0] for _ in range(options.runs))
        figures[" ".join(args)] = seconds
        print(f"diffmf {' '.join(args):26} {seconds:6.3f} s")
        if args[0] in ("--help", "--version") and seconds > TARGET:
            slow.append(args[0])

    with tempfile.TemporaryDirectory() as folder:
        y, x = np.mgrid[:480, :640]
        ir, vis, out = (str(Path(folder, name)) for name in ("ir.png", "vis.png", "out.png"))
        cv2.imwrite(ir, (y // 2).astype(np.uint8))
        cv2.imwrite(vis, np.dstack([x // 3, y // 2, (x + y) // 5]).astype(np.uint8))
        args = ["fuse", ir, vis, "-o", out, "-m", options.model, "--overwrite", "--json", "-q"]
        runs = [timed(args) for _ in range(min(3, options.runs))]
        calls = [api(options.model, ir, vis) for _ in range(min(3, options.runs))]
    phases = [json.loads(stdout)["seconds"] for _, stdout in runs]
    total = statistics.median(seconds for seconds, _ in runs)
    split = ", ".join(f"{name} {statistics.median(p[name] for p in phases):.2f}" for name in phases[0])
    print(f"diffmf fuse, 640x480, cold           {total:6.3f} s ({split})")
    phases_of_api = {name: statistics.median(seconds) for name, *seconds in zip(PHASES, *calls, strict=True)}
    first = sum(list(phases_of_api.values())[:4])
    split = ", ".join(f"{name} {seconds:.2f}" for name, seconds in phases_of_api.items())
    print(f"Python API, 640x480, to first result {first:6.3f} s ({split})")
    figures |= {"fuse": {"total": total, "runs": phases}, "api": {"first result": first, **phases_of_api}}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if slow:
        sys.exit(f"slower than {TARGET} s: {', '.join(slow)}")


if __name__ == "__main__":
    main()
