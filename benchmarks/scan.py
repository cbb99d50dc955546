"""The backends of the selective scan side by side, by size, forward and in training.

    python benchmarks/scan.py [--device cuda] [--sizes 60x80 120x160] [--json scan.json]

All backends that can run on the device take turns in one run on the same tensors, and the best of the turns
counts; a ratio is time over that of the first backend. Sizes are those of the feature maps, a quarter of the
picture's sides: 120x160 belongs to a picture of 480x640. Fails if a backend strays from the others.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as diffmf_cli sets it, before torch is imported

import torch
from rich.console import Console
from rich.table import Table

from diffmf_cli import scan

TOLERANCE = 1e-4  # largest difference over the largest value


def arguments(size, channels, d_state, batch, device):
    """What a scan gets inside the network, on the device."""
    h, w = size
    torch.manual_seed(0)
    made = (
        torch.randn(batch, h, w, channels),
        torch.randn(batch, h, w, channels),
        -torch.exp(0.3 * torch.randn(channels, d_state)),
        torch.randn(batch, h, w, d_state),
        torch.randn(batch, h, w, d_state),
        torch.ones(channels),
        torch.randn(channels) - 4,
    )
    return [t.to(device) for t in made]


def timed(run, device):
    """Seconds of one call, and its result."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def forward(inputs):
    """As in inference."""
    with torch.inference_mode():
        return scan.selective_scan_2d(*inputs)


def training(inputs):
    """Forward and backward; the gradient of the values."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    scan.selective_scan_2d(*leaves).sum().backward()
    return leaves[0].grad


def measure(mode, inputs, backends, runs, device):
    """Backend -> best seconds; every backend once to warm up, then in turns."""
    best, results = {}, {}
    for turn in range(runs + 1):
        for name in backends:
            with scan.using(name):
                seconds, results[name] = timed(lambda: mode(inputs), device)
            if turn:
                best[name] = min(seconds, best.get(name, seconds))
    expected = results[backends[0]]
    for name in backends[1:]:
        error = ((results[name] - expected).abs().max() / expected.abs().max()).item()
        if error > TOLERANCE:
            sys.exit(f"{name} differs from {backends[0]} by {error:.1e} in {mode.__name__}")
    return best


def main() -> None:
    """Runs all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", nargs="+", default=["30x40", "60x80", "120x160", "240x320"])
    parser.add_argument("--channels", type=int, default=96)
    parser.add_argument("--d-state", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--reference", action="store_true", help="the sequential oracle too (very slow)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()

    device = torch.device(options.device)
    available = scan.available(device)
    backends = [n for n, why in available.items() if why is None and (n != "reference" or options.reference)]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    where = f"{where or device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    table = Table(title=f"Scan of {options.channels} channels, state {options.d_state}\n{where}")
    for title in ("size", "mode", *(f"{name} ms" for name in backends)):
        table.add_column(title, justify="right")
    rows = []
    for size in options.sizes:
        h, w = (int(side) for side in size.split("x"))
        inputs = arguments((h, w), options.channels, options.d_state, options.batch, device)
        for mode in (forward, training):
            best = measure(mode, inputs, backends, options.runs, device)
            rows.append({"height": h, "width": w, "mode": mode.__name__, "seconds": best})
            first = best[backends[0]]
            cells = [f"{1e3 * s:.2f} ({s / first:.1f}x)" for s in best.values()]
            table.add_row(size, mode.__name__, *cells)
    Console().print(table)
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key not in ("json", "sizes")}
        options.json.write_text(json.dumps({"machine": where, **settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
