"""What each idea of the network is worth: small networks without it, trained from scratch, all else equal.

    python benchmarks/ablation.py --data DATA --weights runs/ablation --seconds 300 --json ablation.json

Every variant is the network of `diffmf_cli.model.network` with one part taken out or exchanged here, trained
by the recipe of `lite` on smaller crops, with the first seed; the whole network with every seed, to know what
a seed changes. Runs of one seed see the same crops in the same order and start from the same weights where a
part is the same. On CUDA all runs train at once, each a captured graph on a stream of its own: one alone
would leave most of a large GPU idle. With `--seconds` the first steps are timed, and all runs get as many as
fit.

Weights of a seed are kept in a file, and trained once: a second call validates them, on any device. Figures
are means over the middle of the held-out pairs, all cut to one size, from the averaged weights.
"""

import argparse
import copy
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from diffmf_cli.metrics.functional import evaluate
from diffmf_cli.model import network
from diffmf_cli.model.network import (
    ChannelExchange,
    Config,
    Conv3x3,
    Decoder,
    DifferenceGuidedExtraction,
    DiffMF,
    SpatialExchange,
    _last,
)
from diffmf_cli.training import loop
from diffmf_cli.training.data import CropSampler, Pairs
from diffmf_cli.training.losses import fusion_loss
from diffmf_cli.training.recipe import Data, Recipe, read_recipe

ROOT = Path(__file__).parents[1]
FIGURES = ["EN", "SD", "SCD", "VIF", "Qabf", "SSIM", "SCD.worst", "VIF.worst", "Qabf.worst", "SSIM.worst"]
FIRST_STEPS = 6  # of one run at a time: eager ones and the capture, which no other thread may disturb
EAGER_STEPS = 3
TIMED_STEPS = 50  # of all runs together, to know their pace; the schedule's warm-up does not know its end
VALIDATION_BATCH = 8  # on CUDA; a CPU is faster with one picture at a time


class NoDifference(DifferenceGuidedExtraction):
    """Each modality through its own block alone."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        del self.shared_conv, self.shared, self.spread, self.guide

    def forward(self, ir: Tensor, vis: Tensor) -> tuple[Tensor, Tensor]:
        """As the whole block."""
        return self.ir(ir), self.vis(vis)


class UnsignedDifference(DifferenceGuidedExtraction):
    """Guided by where and how much the modalities differ, not by which one has more."""

    def forward(self, ir: Tensor, vis: Tensor) -> tuple[Tensor, Tensor]:
        """As the whole block."""
        shared_ir, shared_vis = self.shared(_last(self.shared_conv, torch.cat([ir, vis]))).chunk(2)
        difference = _last(self.spread, (shared_ir - shared_vis).abs())
        return self._guided(self.ir(ir), difference, "ir"), self._guided(self.vis(vis), difference, "vis")


class NoSwap(ChannelExchange):
    """Each modality is read with its own B and C."""

    def _project(self, features: dict[str, Tensor], rows: slice) -> dict[str, tuple[Tensor, ...]]:
        projected = super()._project(features, rows)  # whose B and C `forward` swaps, which undoes this
        other = dict(zip(features, reversed(features), strict=True))
        return {m: (z, x, *projected[other[m]][2:4], w) for m, (z, x, _, _, w) in projected.items()}


class NoOmega(ChannelExchange):
    """Both results come in with weight 1."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        del self.omega

    def _omega(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {m: torch.full_like(t[:, 0, 0], 0.5) for m, t in features.items()}  # `forward` doubles it


class OneLayout(SpatialExchange):
    """One of the three layouts."""

    def __init__(self, config: Config, layout: str) -> None:
        super().__init__(config)
        for name in {"column", "row", "stack"} - {layout}:
            delattr(self, name)
        self.layout = layout
        self.linear = nn.Linear(2 * config.width, config.width)

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        """As the whole block."""
        if self.layout == "column":
            both = self.column(torch.stack([ir, vis], 3).flatten(2, 3)).unflatten(2, (-1, 2)).flatten(3)
        elif self.layout == "row":
            both = torch.cat(self.row(torch.cat([ir, vis], 2)).chunk(2, 2), -1)
        else:
            both = self.stack(torch.cat([ir, vis], -1))
        result: Tensor = self.linear(both)
        return result


class OneLevel(DiffMF):
    """Spatial exchange at full feature resolution only."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        del self.spatial_exchange["middle"], self.spatial_exchange["low"]
        self.decoder.reduce = nn.Conv2d(config.width, config.width, 1)

    def exchange(self, ir: Tensor, vis: Tensor) -> Tensor:
        """`(B, C, h, w)` instead of three times as many channels."""
        ir, vis = ir.permute(0, 2, 3, 1).contiguous(), vis.permute(0, 2, 3, 1).contiguous()
        for stage in self.extraction:
            ir, vis = stage(ir, vis)
        high: Tensor = self.spatial_exchange["high"](*self.channel_exchange(ir, vis))
        return high.permute(0, 3, 1, 2)


class NoDetail(Decoder):
    """All that the decoder knows comes from a quarter of the picture's sides."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.merge = Conv3x3(width // 4, width // 4)

    def forward(self, x: Tensor, ir_detail: Tensor, vis_detail: Tensor) -> Tensor:
        """As the whole decoder."""
        nothing = x.new_empty(len(x), 0, *ir_detail.shape[2:])
        return super().forward(x, nothing, nothing)


def exchanged(**parts: Callable[[Config], nn.Module]) -> Callable[[Config], DiffMF]:
    """The network with some of its parts made by others."""

    def network(config: Config) -> DiffMF:
        model = DiffMF(config)
        for name, part in parts.items():
            whole = getattr(model, name)
            if isinstance(whole, nn.ModuleList):
                setattr(model, name, nn.ModuleList(part(config) for _ in whole))
            elif isinstance(whole, nn.ModuleDict):
                setattr(model, name, nn.ModuleDict({key: part(config) for key in whole}))
            else:
                setattr(model, name, part(config))
        return model

    return network


def one_layout(layout: str) -> Callable[[Config], DiffMF]:
    """The network with one layout in the spatial exchange."""
    return exchanged(spatial_exchange=lambda config: OneLayout(config, layout))


VARIANTS: dict[str, Callable[[Config], DiffMF]] = {
    "whole": DiffMF,
    "no Diff": exchanged(extraction=NoDifference),
    "unsigned Diff": exchanged(extraction=UnsignedDifference),
    "no B/C swap": exchanged(channel_exchange=NoSwap),
    "no omega": exchanged(channel_exchange=NoOmega),
    "column scan only": one_layout("column"),
    "row scan only": one_layout("row"),
    "concat scan only": one_layout("stack"),
    "high level only": OneLevel,
    "no f0 skip": exchanged(decoder=lambda config: NoDetail(config.width)),
    "d_state 4": lambda config: DiffMF(replace(config, d_state=4)),
    "d_state 8": lambda config: DiffMF(replace(config, d_state=8)),
}


def configuration(recipe: Recipe) -> Config:
    """Of the whole network."""
    return replace(loop.SIZES[recipe.model.size], **recipe.model.change)


def begin(variant: str, seed: int, config: Config) -> DiffMF:
    """A variant, with the whole network's weights of this seed in all parts that they share."""
    torch.manual_seed(seed)
    shared = DiffMF(config).state_dict()
    model = VARIANTS[variant](config)
    own = model.state_dict()
    same = {n: t for n, t in shared.items() if n in own and own[n].shape == t.shape}
    model.load_state_dict(same, strict=False)
    return model


class Run(loop.Trainer):
    """Training of one variant with one seed."""

    def __init__(self, variant: str, recipe: Recipe, device: torch.device) -> None:
        self.variant, self.seed = variant, recipe.optimization.seed
        super().__init__(recipe, Path(), device, report=lambda event: None)
        self._eager_left = EAGER_STEPS
        self.values = torch.full((1,), math.nan)  # loss and its terms of the last step
        self.done = None
        if device.type == "cuda":
            self.done = torch.cuda.Event(blocking=True)
            torch.cuda.synchronize()  # the weights were made on another stream than steps run on

    def _network(self) -> DiffMF:
        model = begin(self.variant, self.seed, configuration(self.recipe))
        return model.to(self.device, memory_format=torch.channels_last)

    def advance(self, until: int, deadline: float) -> None:
        """Trains to a step, or to a moment if that comes first."""
        with torch.cuda.stream(self._side):  # does nothing on a CPU, where it is None
            while self.step < until and time.monotonic() < deadline:
                self.values = self._run_step()
                self.step += 1
                if self.done is not None:  # a thread sleeps until then, instead of waiting at full speed
                    self.done.record()
                    self.done.synchronize()


def advance(runs: list[Run], until: int, deadline: float) -> None:
    """All runs: at once on CUDA, in turn on a CPU."""
    on_cuda = runs[0].device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize()
    with ThreadPoolExecutor(len(runs) if on_cuda else 1) as pool:
        list(pool.map(lambda run: run.advance(until, deadline), runs))


def prepare(variant: str, recipe: Recipe, steps: int, device: torch.device) -> Run:
    """A run after its first steps, ready to go on beside others."""
    run = Run(variant, recipe, device)
    try:
        run.advance(steps, math.inf)
    except RuntimeError as error:
        print(f"{variant}: its step cannot be captured ({error}); it runs eagerly", flush=True)
        run = Run(variant, recipe, device)
        run._eager_left = sys.maxsize
        run.advance(steps, math.inf)
    return run


def train(
    wanted: list[tuple[str, int]],
    recipe: Recipe,
    steps: int | None,
    seconds: float,
    device: torch.device,
    tell: Callable[[str], None],
) -> list[Run]:
    """Trains variants with their seeds for `steps`, or for as many as the seconds from now on allow."""
    deadline = math.inf if steps else time.monotonic() + seconds
    pairs = loop.load_pairs(recipe.folders)
    share_pictures(pairs, recipe, device)
    runs = []
    for variant, seed in wanted:
        seeded = replace(recipe, optimization=replace(recipe.optimization, seed=seed))
        runs.append(prepare(variant, seeded, min(FIRST_STEPS, steps or FIRST_STEPS), device))
    memory = f", {torch.cuda.memory_reserved() / 2**30:.1f} GiB" if device.type == "cuda" else ""
    tell(f"{len(runs)} runs, {len(runs[0].train_pairs.names)} training pairs{memory}")
    if not steps:
        begin, before = time.monotonic(), runs[0].step
        advance(runs, before + TIMED_STEPS, deadline)
        now = time.monotonic()
        pace = (now - begin) / TIMED_STEPS
        steps = runs[0].step + max(0, int(0.97 * (deadline - now) / pace))
        tell(f"{1000 * pace:.1f} ms for a step of all: {steps} steps")
    for run in runs:
        run.recipe = replace(run.recipe, optimization=replace(run.recipe.optimization, steps=steps))
    for mark in range(1, 11):
        advance(runs, max(runs[0].step, steps * mark // 10), deadline)
        losses = " ".join(f"{float(run.values[0]):.1f}" for run in runs)
        tell(f"step {min(run.step for run in runs)} of {steps}: {losses}")
    return runs


@torch.no_grad()
def validate(model: DiffMF, ir: Tensor, vis: Tensor, recipe: Recipe) -> dict[str, float]:
    """Loss and mean figures over pairs, `(N, 1, H, W)` in 0..255."""
    sums = dict.fromkeys(["loss", *FIGURES], 0.0)
    for part in torch.arange(len(ir)).split(VALIDATION_BATCH if ir.is_cuda else 1):
        sources = ir[part], vis[part]
        fused = model(*(t / 255 for t in sources))
        loss, _ = fusion_loss(fused, *(t / 255 for t in sources), recipe.loss)
        sums["loss"] += float(loss) * len(part)
        values = evaluate(*sources, (fused * 255).round(), "EN,SD,SCD,VIF,Qabf,SSIM")
        for key in FIGURES:
            sums[key] += float(values[key].sum())
    return {key: value / len(ir) for key, value in sums.items()}


def middles(pictures: list[np.ndarray], device: torch.device) -> Tensor:
    """Cut to the size that all of them have: `(N, 1, H, W)` float32 in 0..255."""
    h, w = (min(p.shape[axis] for p in pictures) for axis in (0, 1))
    cut = []
    for picture in pictures:
        top, left = (picture.shape[0] - h) // 2, (picture.shape[1] - w) // 2
        cut.append(torch.from_numpy(picture[top : top + h, left : left + w].copy()))
    return torch.stack(cut)[:, None].float().to(device)


def markdown(results: list[dict]) -> str:
    """One row a variant, means over its seeds; the last row is what the seed alone changes.

    That is the standard deviation between runs of one variant, pooled over variants.
    """
    columns = ["loss", *FIGURES]
    head = ["variant", "parameters", "steps", "seeds", *(c.replace(".worst", " w") for c in columns)]
    rows = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    variances: dict[str, list[float]] = {c: [] for c in columns}
    for variant in dict.fromkeys(r["variant"] for r in results):
        same = [r for r in results if r["variant"] == variant]
        steps = sorted({r["steps"] for r in same})
        row = [variant, f"{same[0]['parameters']:,}", "/".join(map(str, steps)), str(len(same))]
        for c in columns:
            values = [r[c] for r in same]
            row.append(f"{statistics.fmean(values):.{1 if c == 'SD' else 2 if c == 'loss' else 3}f}")
            if len(same) > 1:
                variances[c].append(statistics.variance(values))
        rows.append(row)
    if variances["loss"]:
        spread = [math.sqrt(statistics.fmean(variances[c])) for c in columns]
        rows.append(["spread of a seed", "", "", "", *(f"{s:.2g}" for s in spread)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def share_pictures(pairs: Pairs, recipe: Recipe, device: torch.device) -> None:
    """Lets all runs take pictures that are read once and lie on the device once."""
    train_pairs, _ = pairs.split(recipe.data.hold_out, recipe.data.hold_together)
    first = CropSampler(train_pairs, recipe.data, device, 0)

    def sampler(pairs: Pairs, data: Data, device: torch.device, seed: int) -> CropSampler:
        own = copy.copy(first)
        own.random = np.random.default_rng(seed)
        own.noise = torch.Generator(device).manual_seed(seed)
        return own

    loop.load_pairs = lambda folders: pairs
    loop.CropSampler = sampler


def main() -> int:
    """Trains, validates, prints a table."""
    start = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of roadscene/train and msrs/train")
    parser.add_argument("--weights", type=Path, required=True, help="folder of what is trained")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=float, default=300.0, help="of training and its preparation")
    budget.add_argument("--steps", type=int, help="of each run, however long they take")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, metavar="VARIANT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pairs", type=int, help="validate on the first so many")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"

    def tell(what: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {what}", flush=True)

    recipe = read_recipe(ROOT / "weights" / "lite.toml").located(options.data)
    recipe = replace(
        recipe,
        model=replace(recipe.model, change={"width": options.width}),
        data=replace(recipe.data, crop=options.crop, batch=options.batch),
    )
    files = {seed: options.weights / f"seed{seed}.pt" for seed in options.seeds}
    if not all(path.exists() for path in files.values()):
        wanted = [(variant, options.seeds[0]) for variant in options.variants]
        wanted += [("whole", seed) for seed in options.seeds[1:]]
        runs = train(wanted, recipe, options.steps, options.seconds, device, tell)
        options.weights.mkdir(parents=True, exist_ok=True)
        for seed, path in files.items():
            same = {run.variant: run for run in runs if run.seed == seed}
            states = {
                variant: {
                    "steps": run.step,
                    "weights": {k: t.cpu() for k, t in run.averaged.state_dict().items()},
                }
                for variant, run in same.items()
            }
            about = {"device": name, "torch": str(torch.__version__), "recipe": runs[0].recipe.to_dict()}
            torch.save(about | {"runs": states}, path)
        tell(f"weights in {options.weights}")
        del runs

    network._by_kernels = lambda picture: False  # on a CPU they would stand in for the whole network
    _, held_out = loop.load_pairs(recipe.folders).split(recipe.data.hold_out, recipe.data.hold_together)
    ir, vis = (middles(pictures[: options.pairs], device) for pictures in (held_out.ir, held_out.vis))
    tell(f"validation on {len(ir)} pairs of {ir.shape[3]}x{ir.shape[2]}")
    results: list[dict] = []
    for seed, path in files.items():
        trained = torch.load(path, weights_only=True)
        about = {key: value for key, value in trained.items() if key != "runs"}
        for variant, run in trained["runs"].items():
            model = begin(variant, seed, configuration(recipe))
            model.load_state_dict(run["weights"])
            figures = validate(model.to(device, memory_format=torch.channels_last), ir, vis, recipe)
            parameters = sum(p.numel() for p in model.parameters())
            row = {"variant": variant, "seed": seed, "steps": run["steps"], "parameters": parameters}
            results.append(row | figures)
            if options.json:
                report = about | {"held_out": held_out.names[: len(ir)], "runs": results}
                options.json.write_text(json.dumps(report, indent=1) + "\n")
            tell(f"{variant}, seed {seed}: loss {figures['loss']:.2f}")
    print(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
