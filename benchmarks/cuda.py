"""The network and its scan on a CUDA device: time, memory, launches, and how far from the device's limits.

    python benchmarks/cuda.py [--models base lite] [--precisions fp16 fp32] [--pairs IR VIS] [--json FILE]

Pictures lie on the device; a time is the median of repeated calls in a steady state, copies into and out of
the captured graph included. Limits are measured in the same run: a large copy, bytes read plus bytes written,
and a large matrix product. `floor` is the larger of two times: operations over that product's rate, and the
bytes of all tensors that the launches take, each once a launch, over the copy's; those do not count of which
a launch reads two pixels. The scan alone stands against that floor of its launches, against its inputs and
its result moved once, and, where mamba-ssm is installed, against its `selective_scan_fn` between VMamba's
cross-scan and cross-merge, from maps in the layout that these want.
With two folders of pictures, each pair goes through every model and precision, and its fused luma in 8 bits
is held against that of the network's plain operations in float32.
"""

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

import diffmf_cli
from diffmf_cli import scan
from diffmf_cli.fusion.fuser import prepare
from diffmf_cli.images.pairs import pair_folders
from diffmf_cli.images.read import read_image
from diffmf_cli.scan import mamba_scan, resident_scan, torch_scan, triton_scan

CASES = [(1, 640, 480), (8, 640, 480), (1, 1280, 1024)]
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
DEVICE = torch.device("cuda")
AT_TWO_PIXELS = {"entering_states": {"x_ptr", "delta_ptr", "B_ptr"}}  # next to nothing of these moves
torch.backends.cudnn.allow_tf32 = False  # plain float32 is what the rest is held against


def milliseconds(run, calls=20, turns=9):
    """Median time of a call."""
    for _ in range(3):
        run()
    times = []
    for _ in range(turns):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / calls)
    return statistics.median(times)


def replayed(run, calls=10):
    """Median time of one of several calls in a CUDA graph, as a network has them: without starting either."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            run()
    return milliseconds(graph.replay, calls=4) / calls


def limits():
    """Bytes a second of a copy, and operations a second of a product by type of its operands."""
    a = torch.rand(2**28, device=DEVICE)
    b = torch.empty_like(a)
    copied = 8e3 * a.numel() / milliseconds(lambda: b.copy_(a), calls=5)
    del a, b
    rates = {}
    for name, dtype in TYPES.items():
        a, b = (torch.randn(8192, 8192, device=DEVICE).to(dtype) for _ in range(2))
        rates[name] = 2e3 * 8192**3 / milliseconds(lambda a=a, b=b: a @ b, calls=3, turns=5)
    return copied, rates


def pictures(batch, width, height):
    """Infrared and visible pictures with structure at every scale."""
    g = torch.Generator().manual_seed(0)
    made = []
    for _ in range(2):
        total = 0.05 * torch.randn(batch, 1, height, width, generator=g)
        for cells in (2, 5, 17, 60):
            coarse = torch.rand(batch, 1, cells, cells, generator=g)
            total += torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") / 4
        made.append(total.clamp(0, 1).to(DEVICE))
    return made


def counted(run):
    """Launches of our kernels, and the bytes of the tensors that they take."""
    from diffmf_cli.model.cuda import inference  # imports triton

    seen = []
    real, resident = triton_scan.launch, resident_scan.scan

    def counting(kernel, grid, *arguments, **constants):
        skipped = AT_TWO_PIXELS.get(kernel.fn.__name__, ())
        moved = [
            t
            for name, t in zip(kernel.arg_names, arguments, strict=False)
            if torch.is_tensor(t) and name not in skipped
        ]
        seen.append(sum({t.data_ptr(): t.numel() * t.element_size() for t in moved}.values()))
        real(kernel, grid, *arguments, **constants)

    def counting_resident(x, delta, A, B, C, D, bias, out, shared, memory):
        ran = resident(x, delta, A, B, C, D, bias, out, shared, memory)
        if ran:
            exchanged = next(reversed(memory.values()))  # written and read
            seen.append(sum(t.numel() * t.element_size() for t in (x, delta, B, C, out, *2 * exchanged)))
        return ran

    triton_scan.launch = inference.launch = counting
    resident_scan.scan = counting_resident
    try:
        run()
    finally:
        triton_scan.launch = inference.launch = real
        resident_scan.scan = resident
    return len(seen), sum(seen)


def model_row(name, precision, case, copied, rates):
    """One model in one precision on pictures of one size."""
    fuser = diffmf_cli.load_model(name, device="cuda", precision=precision)
    network, fused = fuser._network, fuser._fused_kernels
    if fused is None:
        sys.exit("the fused kernels do not run here: triton or CUDA is missing")
    batch, width, height = case
    ir, vis = pictures(batch, width, height)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            plain = network(ir, vis)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_reserved()
        for _ in range(3):
            result = fused(ir, vis)
        peak = torch.cuda.max_memory_reserved() - before
        time = milliseconds(lambda: fused(ir, vis))
        launches, moved = counted(lambda: fused.launch_all(torch.stack([ir[:, 0], vis[:, 0]])))
        grey = ((result * 255).round() - (plain * 255).round()).abs().max().item()
        plain_time = milliseconds(lambda: network(ir, vis), calls=2, turns=3)
    operations = counter.get_total_flops()
    floor = 1e3 * max(operations / rates[precision], moved / copied)
    return {
        "model": name,
        "precision": precision,
        "batch": batch,
        "size": f"{width}x{height}",
        "milliseconds": time,
        "frames_per_second": batch / time * 1e3,
        "plain_fp32_milliseconds": plain_time,
        "launches": launches,
        "megabytes": peak / 2**20,
        "gflop": operations / 1e9,
        "moved_megabytes": moved / 2**20,
        "floor_milliseconds": floor,
        "share_of_floor": floor / time,
        "grey_levels_from_fp32": grey,
    }


def pair_row(name, precision, folders):
    """How far one model in one precision is from plain float32 operations, over all pairs of two folders."""
    fuser = diffmf_cli.load_model(name, device="cuda", precision=precision)
    network, fused = fuser._network, fuser._fused_kernels
    pairs = pair_folders(*folders).pairs
    furthest, worst, levels, differing, by_two, pixels = 0.0, "", 0, 0, 0, 0
    for pair in pairs:
        prepared = prepare(read_image(pair.ir).pixels, read_image(pair.vis).pixels)
        ir, vis = (torch.from_numpy(t)[None, None].to(DEVICE) for t in (prepared.ir, prepared.vis))
        with torch.no_grad():
            result, plain = fused(ir, vis), network(ir, vis)
        apart = ((result * 255).round() - (plain * 255).round()).abs()
        difference = (result - plain).abs().max().item()
        if difference > furthest:
            furthest, worst = difference, pair.key
        levels = max(levels, int(apart.max()))
        differing += int((apart > 0).sum())
        by_two += int((apart > 1).sum())
        pixels += apart.numel()
    return {
        "model": name,
        "precision": precision,
        "pairs": len(pairs),
        "largest_difference": furthest,
        "worst_pair": worst,
        "grey_levels": levels,
        "pixels_two_levels_apart": by_two,
        "percent_of_pixels_that_differ": 100 * differing / pixels,
    }


def vmamba(x, delta, A, B, C, D, bias):
    """The four orders as VMamba (Liu et al. 2024) has them: copies, mamba-ssm's scan of each, their sum.

    Without the states from which our orders start, and without the copies that maps with channels last need.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    maps, h, w, _ = x.shape
    channels_first = [t.permute(0, 3, 1, 2).contiguous() for t in (x, delta, B, C)]

    def orders(t):
        both = torch.stack([t.flatten(2), t.transpose(2, 3).flatten(2)], 1)
        return torch.cat([both, both.flip(-1)], 1).flatten(0, 1)

    def run():
        values, steps, b, c = map(orders, channels_first)
        y = selective_scan_fn(
            values, steps, A, b[:, None], c[:, None], D=D, delta_bias=bias, delta_softplus=True
        )
        y = y.unflatten(0, (maps, 4))
        y = y[:, :2] + y[:, 2:].flip(-1)
        return y[:, 0] + y[:, 1].unflatten(-1, (w, h)).transpose(2, 3).flatten(2)

    return run


def scan_rows(copied):
    """One row for each type and number of maps, of the size that a picture of 640x480 has."""
    h, w, d = 124, 164, 96
    for dtype in (torch.float32, torch.float16):
        for maps in (1, 2, 4, 8, 16):
            torch.manual_seed(0)
            x, delta = (torch.randn(maps, h, w, d, device=DEVICE).to(dtype) for _ in range(2))
            B, C = (torch.randn(maps, h, w, 1, device=DEVICE).to(dtype) for _ in range(2))
            A = -torch.exp(0.3 * torch.randn(d, 1, device=DEVICE))
            D, bias = torch.ones(d, device=DEVICE), torch.randn(d, device=DEVICE) - 4
            arguments = (x, delta, A, B, C, D, bias)
            moved = sum(t.numel() * t.element_size() for t in (x, delta, B, C, x))
            parameters = A[None], B, C, D[None], bias[None]
            launched = x, delta, *parameters, torch.empty_like(x), maps, resident_scan.Memory()
            with torch.no_grad():
                time = replayed(lambda a=launched: triton_scan.scan_tiles(*a))
                _, by_launches = counted(lambda a=launched: triton_scan.scan_tiles(*a))
                mamba = None
                if mamba_scan.unavailable(DEVICE) is None:
                    mamba = replayed(vmamba(*arguments))
                last = [t[-1:].double() for t in (x, delta, B, C)]
                exact = torch_scan.selective_scan_2d(
                    *last[:2], A.double(), *last[2:], D.double(), bias.double()
                )
                error = ((launched[7][-1:] - exact).abs().max() / exact.abs().max()).item()
            floor = 1e3 * moved / copied
            yield {
                "type": str(dtype).removeprefix("torch."),
                "maps": maps,
                "microseconds": 1e3 * time,
                "floor_microseconds": 1e3 * floor,
                "share_of_floor": floor / time,
                "launches_floor_microseconds": 1e6 * by_launches / copied,
                "share_of_launches_floor": 1e3 * by_launches / copied / time,
                "mamba_ssm_microseconds": None if mamba is None else 1e3 * mamba,
                "times_faster": None if mamba is None else mamba / time,
                "relative_error": error,
            }


def show(console, title, rows):
    """A table of rows as they come; returns them."""
    table, kept = Table(title=title), []
    for row in rows:
        if not kept:
            for column in row:
                table.add_column(column.replace("_", " "), justify="right")
        kept.append(row)
        table.add_row(
            *("-" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values())
        )
    console.print(table)
    return kept


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["base", "lite"], help="names or paths")
    parser.add_argument("--precisions", nargs="+", default=["fp16", "fp32"], choices=list(TYPES))
    parser.add_argument("--pairs", nargs=2, type=Path, metavar=("IR", "VIS"), help="folders of pictures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device")
    if reason := triton_scan.unavailable(DEVICE):
        sys.exit(reason)
    console = Console(width=220)
    copied, rates = limits()
    card = torch.cuda.get_device_name()
    products = ", ".join(f"{name} {rate / 1e12:.0f} TFLOP/s" for name, rate in rates.items())
    console.print(f"{card}, torch {torch.__version__}: copy {copied / 1e9:.0f} GB/s, products {products}")
    result = {"card": card, "torch": torch.__version__, "copy": copied, "products": rates}
    with scan.using("triton"):
        result["scan"] = show(console, "selective_scan_2d, 124x164x96, state size 1", scan_rows(copied))
        kinds = list(itertools.product(options.models, options.precisions))
        rows = (model_row(*kind, case, copied, rates) for kind in kinds for case in CASES)
        result["model"] = show(console, "network", rows)
        if options.pairs:
            rows = (pair_row(*kind, options.pairs) for kind in kinds)
            result["pairs"] = show(console, "difference from plain float32", rows)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
