"""Two revisions side by side on one machine, whatever else it is doing.

    git worktree add ../before REVISION
    python benchmarks/revisions.py ../before . [--models lite base] [--size 640x480] [--runs 15] [--json FILE]

Each revision is a process that stays; they take turns, picture by picture, so that both meet the same load.
Read the ratio, of the best turns and of the CPU time of all threads. A turn is `Fuser.fuse` of a coloured
pair. The weights are those of the first revision. Fails if the fused lumas differ by more than 1e-4.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

TOLERANCE = 1e-4
CHILD = """
import sys, time
import cv2, numpy as np
import diffmf_cli
from diffmf_cli.fusion.fuser import prepare

weights, width, height, result = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
random = np.random.default_rng(0)
coarse = random.integers(0, 255, (height // 8 + 1, width // 8 + 1, 4), np.uint8)
picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
ir, vis = picture[..., 0].copy(), picture[..., 1:].copy()
model = diffmf_cli.load_model(weights)
np.save(result, model.run([prepare(ir, vis)])[0])
model.fuse(ir, vis)
print(flush=True)
for _ in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    model.fuse(ir, vis)
    print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)
"""


def measure(trees: list[Path], model: str, size: str, runs: int, folder: Path) -> dict:
    """Best seconds of each tree in turns, and how far the pictures differ."""
    results = [folder / f"{i}.npy" for i in range(len(trees))]
    weights = str(trees[0] / "weights" / f"{model}.safetensors")
    children = []
    for tree, result in zip(trees, results, strict=True):
        command = [sys.executable, "-c", CHILD, weights, *size.split("x"), str(result)]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tree, bufsize=1
        )
        children.append(child)
    for child in children:
        if not child.stdout.readline():
            sys.exit(f"{model}: a revision failed; its message stands above")
    turns = np.empty((runs, len(trees), 2))
    for run in range(runs):
        for i, child in enumerate(children):
            child.stdin.write("\n")
            turns[run, i] = [float(word) for word in child.stdout.readline().split()]
    for child in children:
        child.communicate()
    first, second = (np.load(result) for result in results)
    return {
        "model": model,
        "size": size,
        "seconds": turns[..., 0].min(0).tolist(),
        "cpu_seconds": turns[..., 1].min(0).tolist(),
        "difference": float(np.abs(first - second).max()),
    }


def main() -> None:
    """Runs all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trees", nargs=2, type=Path, metavar="TREE", help="the old and the new one")
    parser.add_argument("--models", nargs="+", default=["lite", "base"])
    parser.add_argument("--size", default="640x480", metavar="WxH")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    table = Table(title=f"{options.size}, best of {options.runs} turns")
    for title in ("model", "old s", "new s", "ratio", "old CPU s", "new CPU s", "ratio", "difference"):
        table.add_column(title, justify="right")
    trees = [tree.resolve() for tree in options.trees]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            row = measure(trees, model, options.size, options.runs, Path(folder))
            rows.append(row)
            cells = []
            for old, new in (row["seconds"], row["cpu_seconds"]):
                cells += [f"{old:.3f}", f"{new:.3f}", f"{new / old:.2f}"]
            table.add_row(model, *cells, f"{row['difference']:.1e}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if max(row["difference"] for row in rows) > TOLERANCE:
        sys.exit(f"the pictures differ by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
