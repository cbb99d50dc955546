"""Time and peak memory of the network by picture size, scan backend and tile.

    python benchmarks/model.py [--model lite] [--sizes 640x480] [--backends numba torch] [--tiles auto 0]

Each line of the table is a process of its own, which loads the weights, fuses once to warm up and then
takes the best of `--runs`. Memory is the most that the process ever held (on CUDA: that torch allocated),
and what of it came with the picture. Growth compares time and memory for each megapixel with those of the
smallest size: 1 is linear, less is better than that. Roofline is the share of the time in which this
machine does nothing but compute or move at its best: fp32 on a CPU only, see benchmarks/roofline.py.
`--limit` sets the exit code: 1 if a peak is above so many megabytes.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

SIZES = ["320x240", "640x480", "1280x1024", "2048x1536", "4096x3072"]


def peak_megabytes() -> float:
    """The most memory that this process ever held; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def one(options: argparse.Namespace) -> dict:
    """Measures the one combination of the options in this process."""
    import torch

    import diffmf_cli

    width, height = (int(side) for side in options.sizes[0].split("x"))
    y, x = np.mgrid[:height, :width]
    ir = (96 + 64 * np.sin(x / 37) * np.cos(y / 23)).astype(np.uint8)
    vis = ((x + y) * 255 // (width + height)).astype(np.uint8)
    del x, y
    model = diffmf_cli.load_model(
        options.model,
        device=options.device,
        precision=options.precision,
        scan_backend=options.backends[0],
        tile=options.tiles[0],
    )
    small = slice(0, 64), slice(0, 64)
    model.fuse(ir[small], vis[small])  # compiles and allocates what any size needs
    cuda = model.device.startswith("cuda")
    before = torch.cuda.memory_allocated() / 2**20 if cuda else peak_megabytes()
    seconds = []
    for _ in range(options.runs + 1):
        start = time.perf_counter()
        model.fuse(ir, vis)
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else peak_megabytes()
    return {
        "model": options.model,
        "device": torch.cuda.get_device_name() if cuda else model.device,
        "precision": model.precision,
        "backend": model.scan_backend,
        "tile": options.tiles[0],
        "width": width,
        "height": height,
        "threads": torch.get_num_threads(),
        "seconds": min(seconds[1:] or seconds),
        "first_seconds": seconds[0],
        "peak_megabytes": peak,
        "picture_megabytes": peak - before,
    }


def pixels_of(size: str) -> int:
    """Of `WxH`."""
    width, height = (int(side) for side in size.split("x"))
    return width * height


def growth(row: dict, first: dict) -> dict:
    """Time and memory for each megapixel, and over those of the smallest size."""

    def per_megapixel(row: dict, key: str) -> float:
        return row[key] / (row["width"] * row["height"] / 1e6)

    keys = {"seconds": "seconds", "picture_megabytes": "memory"}
    each = {f"{name}_per_megapixel": per_megapixel(row, key) for key, name in keys.items()}
    # A small picture may need no memory beyond what loading took.
    ratios = {
        f"{name}_growth": per_megapixel(row, key) / per_megapixel(first, key) if first[key] > 0 else None
        for key, name in keys.items()
    }
    return {**each, **ratios}


def cells(size: str, tile: str, row: dict) -> list[str]:
    """A line of the table."""
    per_megapixel = [f"{row['seconds_per_megapixel']:.2f}", f"{row['memory_per_megapixel']:.0f}"]
    for i, ratio in enumerate((row["seconds_growth"], row["memory_growth"])):
        per_megapixel[i] += "" if ratio is None else f", {ratio:.2f}x"
    share = f"{row['roofline']:.0%}" if "roofline" in row else ""
    seconds, peak = f"{row['seconds']:.2f}", f"{row['peak_megabytes']:.0f}"
    return [size, row["backend"], tile, seconds, peak, *per_megapixel, share]


def roofline(model: str, sizes: list[str]) -> dict:
    """What benchmarks/roofline.py finds; in a process of its own, for a child inherits its parent's peak."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        script = Path(__file__).with_name("roofline.py")
        command = [sys.executable, str(script), "--model", model, "--json", file.name, "--sizes", *sizes]
        subprocess.run(command, check=True)
        return json.load(file)


def main() -> None:
    """Runs all combinations, each in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="base", help="name or path")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="WxH")
    parser.add_argument("--backends", nargs="+", default=["auto"])
    parser.add_argument("--tiles", nargs="+", default=["auto"])
    parser.add_argument("--runs", type=int, default=3, help="after the first; 0 counts the first")
    parser.add_argument("--limit", type=float, metavar="MB", help="fail above this peak")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(one(options)))
        return

    table = Table(title=f"DIFF-MF '{options.model}' on {platform.processor() or platform.machine()}")
    titles = (
        "size",
        "backend",
        "tile",
        "seconds",
        "peak MB",
        "s / MP, growth",
        "MB / MP, growth",
        "roofline",
    )
    for title in titles:
        table.add_column(title, justify="right")
    shared = ["--model", options.model, "--device", options.device, "--precision", options.precision]
    shared += ["--runs", str(options.runs), "--child"]
    environment = {"GOMP_SPINCOUNT": "20000", **os.environ}  # as diffmf_cli sets it
    limits = roofline(options.model, options.sizes)
    rows = []
    with Live(table, console=Console(), vertical_overflow="visible"):
        for backend in options.backends:
            for tile in options.tiles:
                first = None
                for size in sorted(options.sizes, key=pixels_of):
                    chosen = ["--sizes", size, "--backends", backend, "--tiles", tile]
                    command = [sys.executable, __file__, *shared, *chosen]
                    done = subprocess.run(
                        command, stdout=subprocess.PIPE, text=True, check=False, env=environment
                    )
                    if done.returncode:
                        table.add_row(size, backend, tile, "failed")
                        continue
                    row = json.loads(done.stdout)
                    first = first or row
                    row |= growth(row, first)
                    if row["device"] == "cpu" and row["precision"] == "fp32":
                        row["bound"] = limits["sizes"][size]
                        least = max(row["bound"]["computing"], row["bound"]["moving"])
                        row["roofline"] = least / row["seconds"]
                    rows.append(row)
                    table.add_row(*cells(size, tile, row))
    if options.json:
        options.json.write_text(json.dumps({"machine": limits["machine"], "rows": rows}, indent=1) + "\n")
    if len(rows) < len(options.backends) * len(options.tiles) * len(options.sizes):
        sys.exit("a combination failed; its message stands above")
    peak = max(row["peak_megabytes"] for row in rows)
    if options.limit and peak > options.limit:
        sys.exit(f"peak of {peak:.0f} MB, more than {options.limit:.0f}")


if __name__ == "__main__":
    main()
