"""The training loop: a time budget, exact resume, a moving average, validation figures and sample pictures.

A run is a folder: `<name>.safetensors` (the averaged weights, ready to use), `state.pt` (what a resume needs
besides), `log.jsonl` (one line for each event) and `samples/` (validation pictures: IR, VIS, fused).
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffmf_cli import scan
from diffmf_cli.errors import DiffmfError, UsageError
from diffmf_cli.images.opencv import cv2
from diffmf_cli.interrupt import held_interrupt
from diffmf_cli.metrics.functional import evaluate
from diffmf_cli.model.checkpoint import load_checkpoint, save_checkpoint
from diffmf_cli.model.network import SIZES, DiffMF
from diffmf_cli.training.data import CropSampler, load_pairs
from diffmf_cli.training.losses import fusion_loss
from diffmf_cli.training.recipe import Recipe

Report = Callable[[dict[str, Any]], None]
_EAGER_STEPS = 5  # before the step is captured as a CUDA graph: kernels compile, buffers are allocated
_LOG_EVERY = 100
_SAMPLES = 6


class Trainer:
    """One run of a recipe in a folder; goes on where the folder's `state.pt` ends."""

    def __init__(
        self, recipe: Recipe, folder: Path, device: torch.device, report: Report, compiled: bool = False
    ) -> None:
        self.recipe, self.folder, self.device = recipe, folder, device
        options = recipe.optimization
        torch.manual_seed(options.seed)
        self.model = self._network()
        self.averaged = self._network().requires_grad_(False)
        self.averaged.load_state_dict(self.model.state_dict())
        cuda = device.type == "cuda"
        # Tensors, so that a captured step reads new values: learning rate, and the newest weights' share
        # in the average (large at first, or the average would remember the random start).
        self.rate = torch.tensor(options.learning_rate, device=device)
        self.share = torch.tensor(1.0, device=device)
        self.optimizer = torch.optim.AdamW(
            self._groups(), lr=self.rate if cuda else options.learning_rate, capturable=cuda, fused=cuda
        )
        self.train_pairs, self.held_out = load_pairs(recipe.folders).split(
            recipe.data.hold_out, recipe.data.hold_together
        )
        self.sampler = CropSampler(self.train_pairs, recipe.data, device, options.seed)
        self.step, self.seconds = 0, 0.0
        self._report = report
        self._graph: torch.cuda.CUDAGraph | None = None
        self._eager_left = _EAGER_STEPS
        self._side = torch.cuda.Stream(device) if cuda else None
        self._fuse: Callable[..., Any] = self.model.fuse_padded
        self._loss: Callable[..., Any] = fusion_loss
        if compiled:
            if not cuda:
                raise UsageError(f"--compile is for CUDA, not for {device}: leave it out")
            torch.compiler.assume_constant_result(scan.choose)  # it looks at the environment
            scan.choose(device)
            # This way of joining reductions fails for some sizes of a batch (torch 2.11: "16 v.s. 1").
            joined = "triton.mix_order_reduction"
            off: dict[str, Any] = {joined: False} if joined in torch._inductor.list_options() else {}
            self._fuse, self._loss = (
                torch.compile(part, fullgraph=True, dynamic=False, options=off)
                for part in (self._fuse, self._loss)
            )

    def _network(self) -> DiffMF:
        try:
            config = replace(SIZES[self.recipe.model.size], **self.recipe.model.change)
        except ValueError as error:
            raise UsageError(f"the recipe's model: {error}") from None
        return DiffMF(config).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _groups(self) -> list[dict[str, Any]]:
        """No decay for gains, biases, norms and the state space parameters: all that is not a matrix."""
        matrices = [p for n, p in self.model.named_parameters() if p.ndim > 1 and "A_log" not in n]
        chosen = {id(p) for p in matrices}
        others = [p for p in self.model.parameters() if id(p) not in chosen]
        decay = self.recipe.optimization.weight_decay
        return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]

    def _scheduled_rate(self) -> float:
        o = self.recipe.optimization
        if self.step < o.warm_up:
            return o.learning_rate * (self.step + 1) / o.warm_up
        done = (self.step - o.warm_up) / max(1, o.steps - o.warm_up)
        return o.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def _update(self, where: Tensor, vary: Tensor) -> Tensor:
        """Forward, backward, optimizer and average; returns `(1 + terms,)`: the loss and its terms."""
        options = self.recipe.optimization
        seen_ir, seen_vis, ir, vis = self.sampler.cut(where, vary)
        # A captured graph must not reuse casts of weights that were made outside of it.
        cast = (
            torch.autocast("cuda", torch.bfloat16, cache_enabled=False)
            if self.device.type == "cuda"
            else nullcontext()
        )
        with cast:
            fused = self._fuse(seen_ir, seen_vis)
        loss, terms = self._loss(fused.float(), ir, vis, self.recipe.loss)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), options.clip)
        self.optimizer.step()
        with torch.no_grad():
            averaged: list[Tensor] = list(self.averaged.parameters())
            newest: list[Tensor] = list(self.model.parameters())
            change = torch._foreach_sub(newest, averaged)
            torch._foreach_mul_(change, self.share)
            torch._foreach_add_(averaged, change)
        self._terms = list(terms)
        return torch.stack([loss.detach(), *(t.detach() for t in terms.values())])

    def _run_step(self) -> Tensor:
        where, vary = (torch.from_numpy(a) for a in self.sampler.draw(self.recipe.data.batch))
        rate = self._scheduled_rate()
        self.share.fill_(1 - min(self.recipe.optimization.average, (1 + self.step) / (10 + self.step)))
        if self._side is None:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            return self._update(where.to(self.device), vary.to(self.device))
        self.rate.fill_(rate)
        if self._graph is None:
            self._inputs = where.to(self.device), vary.to(self.device)
            self._side.wait_stream(torch.cuda.current_stream())
            if self._eager_left > 0:
                self._eager_left -= 1
                with torch.cuda.stream(self._side):
                    values = self._update(*self._inputs)
                torch.cuda.current_stream().wait_stream(self._side)
                return values
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(self.sampler.noise)
            with torch.cuda.graph(graph, stream=self._side):
                self._values = self._update(*self._inputs)
            self._graph = graph
        for buffer, new in zip(self._inputs, (where, vary), strict=True):
            buffer.copy_(new)
        self._graph.replay()
        return self._values

    def run(self, minutes: float | None) -> None:
        """Trains until the recipe's last step, the end of the minutes or Ctrl-C; saves in each case.

        Raises:
            DiffmfError: if loss or weights are no longer finite; what was saved last stays.
            KeyboardInterrupt: after saving; at once, and without, where Ctrl-C comes twice.
        """
        options = self.recipe.optimization
        begin = time.monotonic()
        before = self.seconds
        self._tell(
            "start",
            pairs=len(self.train_pairs.names),
            held_out=len(self.held_out.names),
            device=str(self.device),
            scan=scan.choose(self.device),
            steps=options.steps,
        )
        # No TF32: the loss takes variances as differences of mean squares, of which 10 bits leave nothing.
        # Deterministic, so that a recipe repeats its losses.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with held_interrupt() as interrupted, exact:
            while self.step < options.steps:
                values = self._run_step()
                self.step += 1
                self.seconds = before + time.monotonic() - begin
                if self.step % _LOG_EVERY == 0 or self.step <= _LOG_EVERY // 10:
                    self._log_step(values)
                if interrupted() or (minutes is not None and time.monotonic() - begin > 60 * minutes):
                    break
                if self.step % options.validate_every == 0 and self.step < options.steps:
                    self._save_and_validate()
            self._save_and_validate()

    def _log_step(self, values: Tensor) -> None:
        loss, *terms = values.tolist()
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss}")
        self._tell(
            "step",
            step=self.step,
            loss=loss,
            **dict(zip(self._terms, terms, strict=True)),
            rate=self._scheduled_rate(),
            seconds=round(self.seconds, 2),
        )

    def _diverged(self, what: str) -> DiffmfError:
        return DiffmfError(
            f"{what} at step {self.step}: lower learning_rate in the recipe and train into a new --out folder"
        )

    def _tell(self, kind: str, **values: Any) -> None:
        event = {"type": kind, **values}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(event) + "\n")
        self._report(event)

    def _save_and_validate(self) -> None:
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise self._diverged("weights are not finite")
        figures = self.validate()
        if figures:
            self._tell("validation", step=self.step, **{k: round(v, 4) for k, v in figures.items()})
        self._save(figures)
        self._tell("saved", step=self.step, folder=str(self.folder))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean figures of the averaged weights over the held-out pairs, whole pictures; writes samples."""
        fuse: Callable[[Tensor, Tensor], Tensor] = self.averaged.eval()
        if scan.choose(self.device) == "numba":
            from diffmf_cli.model.cpu.inference import CpuInference

            fuse = CpuInference(self.averaged)
        sums: dict[str, float] = {}
        pairs = self.held_out
        (self.folder / "samples").mkdir(exist_ok=True)
        every = max(1, len(pairs.names) // _SAMPLES)
        for i, name in enumerate(pairs.names):
            ir, vis = (
                torch.from_numpy(a[i]).to(self.device).float()[None, None] for a in (pairs.ir, pairs.vis)
            )
            fused = (fuse(ir / 255, vis / 255) * 255).round()
            for key, value in evaluate(ir, vis, fused).items():
                sums[key] = sums.get(key, 0.0) + float(value)
            if i % every == 0:
                strip = np.hstack([t[0, 0].cpu().numpy().astype(np.uint8) for t in (ir, vis, fused)])
                cv2.imwrite(str(self.folder / "samples" / f"{name.replace('/', '_')}.jpg"), strip)
        return {key: value / len(pairs.names) for key, value in sums.items()}

    @property
    def weights(self) -> Path:
        """Where the averaged weights are written."""
        return self.folder / f"{self.recipe.name}.safetensors"

    def _save(self, figures: dict[str, float]) -> None:
        state = {
            "recipe": self.recipe.to_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "crops": self.sampler.state(),
        }
        part = self.folder / "state.pt.part"
        try:
            torch.save(state, part)
            part.replace(self.folder / "state.pt")
        finally:
            part.unlink(missing_ok=True)
        metadata = {
            "name": self.recipe.name,
            "task": self.recipe.task,
            "recipe": json.dumps(self.recipe.to_dict()),
            "steps": str(self.step),
            "minutes": f"{self.seconds / 60:.1f}",
            "device": torch.cuda.get_device_name(self.device) if self._side is not None else "CPU",
            "validation": json.dumps({k: round(v, 4) for k, v in figures.items()}),
        }
        save_checkpoint(self.weights, self.averaged, metadata)

    def begin_with(self, weights: Path) -> None:
        """Takes the weights of a checkpoint of the same architecture instead of random ones.

        Raises:
            WeightsError: if the checkpoint is unusable.
            UsageError: if it is of another configuration.
        """
        model, _ = load_checkpoint(weights, self.device)
        if model.config != self.model.config:
            raise UsageError(f"{weights}: is {model.config}, the recipe makes {self.model.config}")
        self.model.load_state_dict(model.state_dict())
        self.averaged.load_state_dict(model.state_dict())

    def resume(self) -> None:
        """Goes on from the folder's state.

        Raises:
            UsageError: if the state is unreadable or was made by another recipe.
        """
        path = self.folder / "state.pt"
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            made_by = Recipe.completed(state["recipe"])
        except Exception as error:  # torch raises anything on a damaged file
            raise UsageError(f"{path}: cannot resume from it ({type(error).__name__}); remove it") from error
        if made_by != self.recipe.to_dict():
            raise UsageError(f"{path}: was made by another recipe; choose another --out folder")
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._side is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate
        self.sampler.restore(state["crops"])
        self.step, self.seconds = state["step"], state["seconds"]


def train(
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    report: Report,
    minutes: float | None = None,
    start: Path | None = None,
    compiled: bool = False,
) -> Path:
    """Trains a recipe in a folder, resuming what is there.

    Args:
        recipe: what to train.
        folder: of the run; made if missing.
        device: to train on.
        report: called with every event that also goes to `log.jsonl`.
        minutes: stop (and save) after these; None for the recipe's last step.
        start: a checkpoint to begin with, unless the run is resumed; None for random weights.
        compiled: let torch compile the step: on CUDA half the time a step, after two minutes.

    Returns:
        The path of the averaged weights.
    """
    trainer = Trainer(recipe, folder, device, report, compiled)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "state.pt").exists():
        trainer.resume()
    elif start is not None:
        trainer.begin_with(start)
    trainer.run(minutes)
    return trainer.weights
