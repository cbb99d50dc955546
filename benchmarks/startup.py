"""How long a user waits for an answer: help, version, the list of weights, and a cold `fuse` by phases.

    python benchmarks/startup.py [--runs 7] [--model base]

Prints the median of wall-clock seconds of fresh processes; files are in the disk cache, as on a second use.
Fails if `--help` or `--version` take longer than their target.
"""

import argparse
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


def timed(args: list[str]) -> tuple[float, str]:
    """Wall-clock seconds and stdout of one run."""
    start = time.perf_counter()
    done = subprocess.run([*COMMAND, *args], stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - start, done.stdout


def main() -> None:
    """Runs all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--model", default="base")
    options = parser.parse_args()

    slow = []
    for args in (["--help"], ["--version"], ["download-weights", "--list"]):
        timed(args)
        seconds = statistics.median(timed(args)[0] for _ in range(options.runs))
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
    phases = [json.loads(stdout)["seconds"] for _, stdout in runs]
    total = statistics.median(seconds for seconds, _ in runs)
    split = ", ".join(f"{name} {statistics.median(p[name] for p in phases):.2f}" for name in phases[0])
    print(f"diffmf fuse, 640x480, cold           {total:6.3f} s ({split})")
    if slow:
        sys.exit(f"slower than {TARGET} s: {', '.join(slow)}")


if __name__ == "__main__":
    main()
