"""What the network must compute and move, and how fast this machine could: the bound that times are held to.

    python benchmarks/roofline.py [--model base] [--sizes 640x480] [--json FILE]

**Operations**: a multiply-add is two. Counted are all convolutions and matrix products of the plain
network, by torch's counter, and 12 for each token, inner channel and state of a selective scan: four
orders, each with a multiplication and two additions. Norms and activations are left out.

**Bytes**, float32: both pictures and the result once, the weights once, and for each block of the network
(stem, VSS block, guided extraction, channel and spatial exchange, decoder) its inputs once and its outputs
once. What a block keeps inside is free, so no implementation that goes block by block moves less.

Both are counted on a small picture and scaled with the padded pixels, in which the network is linear.

**Rates** are measured here, with torch's threads: a float32 matrix product of 2048 a side, and a copy of
256 MB, of which reading and writing count. The bound is the longer of operations over rate and bytes over
rate.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from diffmf_cli import scan
from diffmf_cli.model import network as blocks
from diffmf_cli.model.catalogue import find_weights
from diffmf_cli.model.checkpoint import load_checkpoint

BLOCKS = (
    blocks.Stem,
    blocks.VSSBlock,
    blocks.DifferenceGuidedExtraction,
    blocks.ChannelExchange,
    blocks.SpatialExchange,
    blocks.Decoder,
)
COUNTED = 128 - 2 * blocks.MARGIN  # pixels a side, of a picture that needs no more padding than the margin


def best(run, turns=5):
    """Least seconds of a call."""
    seconds = []
    for _ in range(turns):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def rates() -> dict:
    """Operations and bytes a second of this machine."""
    a, b = (torch.rand(2048, 2048) for _ in range(2))
    product = torch.empty(2048, 2048)
    source, copy = torch.rand(2**26), torch.empty(2**26)
    return {
        "flops_per_second": 2 * 2048**3 / best(lambda: torch.mm(a, b, out=product)),
        "bytes_per_second": 2 * source.nbytes / best(lambda: copy.copy_(source)),
    }


def tensors(values):
    """All tensors in arguments or results."""
    return [t for t in (values if isinstance(values, tuple) else (values,)) if isinstance(t, torch.Tensor)]


def per_padded_pixel(model: str) -> dict:
    """Operations and bytes of feature maps for each padded pixel, and the bytes of the weights."""
    network, _ = load_checkpoint(find_weights(model))
    network.requires_grad_(False)
    counts = {"bytes": 0, "scan": 0}

    def block(_module, inputs, output):
        counts["bytes"] += sum(t.nbytes for t in (*tensors(inputs), *tensors(output)))

    def scanned(module, inputs):
        tokens = inputs[0][..., 0].numel()
        counts["scan"] += 12 * tokens * module.scan.inner * module.scan.d_state

    for module in network.modules():
        if isinstance(module, BLOCKS):
            module.register_forward_hook(block)
        if isinstance(module, blocks.VSSBlock):
            module.register_forward_pre_hook(scanned)
    picture = torch.rand(1, 1, COUNTED, COUNTED)
    # With gradients enabled the network runs plain torch operations, which the counter sees.
    with torch.enable_grad(), scan.using("torch"), FlopCounterMode(display=False) as counter:
        network(picture, picture.clone())
    pixels = (COUNTED + 2 * blocks.MARGIN) ** 2
    return {
        "flops": (counter.get_total_flops() + counts["scan"]) / pixels,
        "bytes": counts["bytes"] / pixels,
        "weights": sum(p.nbytes for p in network.parameters()),
    }


def bound(work: dict, machine: dict, width: int, height: int) -> dict:
    """What a picture of that size takes at least on this machine."""
    padded = 1
    for side in (width, height):
        padded *= -(-(side + 2 * blocks.MARGIN) // blocks.MULTIPLE) * blocks.MULTIPLE
    flops = work["flops"] * padded
    moved = work["bytes"] * padded + work["weights"] + 3 * 4 * width * height
    computing, moving = flops / machine["flops_per_second"], moved / machine["bytes_per_second"]
    return {"flops": flops, "bytes": moved, "computing": computing, "moving": moving}


def main() -> None:
    """Prints the bound of one size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="base", help="name or path")
    parser.add_argument("--sizes", nargs="+", default=["640x480"], metavar="WxH")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    machine, work = rates(), per_padded_pixel(options.model)
    flops, moved = machine["flops_per_second"] / 1e9, machine["bytes_per_second"] / 1e9
    print(f"{torch.get_num_threads()} threads: {flops:.0f} GFLOP/s in products, {moved:.1f} GB/s in copies")
    sizes = {}
    for size in options.sizes:
        sizes[size] = found = bound(work, machine, *map(int, size.split("x")))
        print(
            f"{options.model} at {size}: {found['flops'] / 1e9:.1f} GFLOP in {found['computing']:.3f} s, "
            f"{found['bytes'] / 1e6:.0f} MB in {found['moving']:.3f} s"
        )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "sizes": sizes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
