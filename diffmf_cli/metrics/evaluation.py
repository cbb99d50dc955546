"""Scores of picture files: read, made grey, measured, in several threads, and kept for a later run."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import diffmf_cli
from diffmf_cli.errors import DiffmfError, ImageError
from diffmf_cli.images.pairs import Pair
from diffmf_cli.images.range import IntensityRange, from_unit, to_unit
from diffmf_cli.images.read import read_image
from diffmf_cli.images.resize import resize_to
from diffmf_cli.metrics.catalogue import Convention
from diffmf_cli.metrics.functional import evaluate

# Raised by one whenever a value changes; printed with every result and compared before old scores are reused.
IMPLEMENTATION = f"diffmf {diffmf_cli.__version__} metrics-1"

# Trivial fusions of grey sources. A plain maximum scores high on VIF, Qabf and MI: tables should show it.
BASELINES: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "average": lambda ir, vis: np.rint((ir.astype(np.float32) + vis) / 2).astype(np.uint8),
    "maximum": np.maximum,
}


@dataclass(frozen=True)
class Score:
    """The values of one method's picture of one pair.

    Attributes:
        method: Name of the method.
        key: Key of the pair.
        values: Metric key to value, with `KEY.ir`, `KEY.vis` and `KEY.worst` for metrics of both sources; NaN
            where a metric is undefined. Empty where the picture could not be evaluated.
        error: Why it could not be evaluated.
    """

    method: str
    key: str
    values: dict[str, float] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Task:
    """What is measured, and how.

    Attributes:
        metrics: Metric keys.
        convention: Whose variants.
        ir_range: Which values of infrared pictures of more than 8 bits become black and white.
        stretch: Accept infrared pictures of another aspect ratio.
        baselines: Also evaluate the trivial fusions in `BASELINES`.
        device: Where metrics are computed.
    """

    metrics: tuple[str, ...]
    convention: Convention
    ir_range: IntensityRange = field(default_factory=IntensityRange)
    stretch: bool = False
    baselines: bool = False
    device: str = "cpu"

    def fingerprint(self) -> str:
        """What old scores must have in common with this task to be reused, apart from their metrics."""
        return f"{IMPLEMENTATION} {self.convention.name} {asdict(self.ir_range)} {self.stretch}"


def grey(pixels: np.ndarray) -> np.ndarray:
    """8-bit grey as the field's evaluators read it.

    Args:
        pixels: `(H, W)` or RGB `(H, W, 3)`; uint8, uint16, or float in [0, 1].

    Returns:
        `(H, W)` uint8. 16-bit values are cut to their upper byte, as by `cv2.imread`, with which the Python
        evaluators read; colour becomes BT.601 luma, computed in float32 and rounded.
    """
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        pixels = from_unit(to_unit(pixels), np.uint8)
    if pixels.ndim == 3:
        pixels = np.rint(cv2.cvtColor(pixels.astype(np.float32), cv2.COLOR_RGB2GRAY)).astype(np.uint8)
    return pixels


def grey_infrared(pixels: np.ndarray, ir_range: IntensityRange) -> np.ndarray:
    """8-bit grey of an infrared picture, whose counts or temperatures may need a range first.

    Args:
        pixels: `(H, W)` or `(H, W, 3)`; uint8, uint16 or float in any unit.
        ir_range: The range; `auto` leaves finished pictures as they are.

    Returns:
        `(H, W)` uint8.
    """
    limits = ir_range.limits(pixels)
    if limits == {np.dtype(np.uint8): (0, 255), np.dtype(np.uint16): (0, 65535)}.get(pixels.dtype, (0, 1)):
        return grey(pixels)
    return grey(from_unit(ir_range.apply(pixels), np.uint8))


def evaluate_pairs(
    pairs: Sequence[Pair],
    results: Mapping[str, Mapping[str, Path]],
    task: Task,
    *,
    workers: int = 1,
    kept: "KeptScores | None" = None,
) -> Iterator[Score]:
    """Evaluate all methods on all pairs, with a bounded number of pictures in memory.

    Args:
        pairs: The pairs.
        results: Method to key to the path of its fused picture; keys that are missing are left out.
        task: What is measured.
        workers: Threads, each with one pair at a time.
        kept: Scores of earlier runs, which are reused and added to.

    Yields:
        Scores, in the order of pairs and then methods, baselines last. A picture that cannot be read or
        measured gives a score with an error.
    """

    def work(pair: Pair) -> list[Score]:
        if cancelled.is_set():
            return []
        return _evaluate_pair(
            pair, {m: by_key[pair.key] for m, by_key in results.items() if pair.key in by_key}, task, kept
        )

    cancelled = threading.Event()
    threads = torch.get_num_threads()
    # One thread a picture: faster than all threads on one picture, whose strips are small; and sums, whose
    # last digits depend on the number of threads, are the same for any number of workers.
    torch.set_num_threads(1)
    executor = ThreadPoolExecutor(workers)
    try:
        for scores in executor.map(work, pairs):
            yield from scores
    finally:
        cancelled.set()
        executor.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _evaluate_pair(
    pair: Pair, paths: Mapping[str, Path], task: Task, kept: "KeptScores | None"
) -> list[Score]:
    old = {method: kept.find(method, pair, path, task) for method, path in paths.items()} if kept else {}
    missing = [method for method in paths if old.get(method) is None]
    # Baselines are not kept: they cost what reading them would.
    scores = [Score(method, pair.key, values) for method, values in old.items() if values is not None]
    if missing or task.baselines:
        try:
            ir, vis = _read_sources(pair, task)
        except DiffmfError as error:
            failed = [*missing, *(BASELINES if task.baselines else ())]
            return [*scores, *(Score(method, pair.key, error=str(error)) for method in failed)]
        for method in missing:
            score = _evaluate_result(method, pair, paths[method], ir, vis, task)
            scores.append(score)
            if kept and score.error is None:
                kept.add(score, pair, paths[method], task)
        if task.baselines:
            scores += [
                Score(name, pair.key, _measure(ir, vis, fuse(ir, vis), task))
                for name, fuse in BASELINES.items()
            ]
    order = [*paths, *BASELINES]
    return sorted(scores, key=lambda score: order.index(score.method))


def _read_sources(pair: Pair, task: Task) -> tuple[np.ndarray, np.ndarray]:
    vis = grey(read_image(pair.vis).pixels)
    ir = read_image(pair.ir)
    task.ir_range.check_unit(ir.unit, ir.name)
    pixels = ir.pixels
    try:
        pixels = resize_to(pixels, (vis.shape[0], vis.shape[1]), task.stretch)
    except DiffmfError as error:
        raise ImageError(f"{pair.ir}: {error}") from None
    return grey_infrared(pixels, task.ir_range), vis


def _evaluate_result(
    method: str, pair: Pair, path: Path, ir: np.ndarray, vis: np.ndarray, task: Task
) -> Score:
    try:
        fused = grey(read_image(path).pixels)
    except DiffmfError as error:
        return Score(method, pair.key, error=str(error))
    if fused.shape != vis.shape:
        sizes = [f"{picture.shape[1]}x{picture.shape[0]}" for picture in (fused, vis)]
        return Score(
            method,
            pair.key,
            error=f"{path} is {sizes[0]} but {pair.vis} is {sizes[1]}: fuse it again at the visible size",
        )
    return Score(method, pair.key, _measure(ir, vis, fused, task))


def _measure(ir: np.ndarray, vis: np.ndarray, fused: np.ndarray, task: Task) -> dict[str, float]:
    # A copy, because arrays from decoders may be read-only, which torch warns about.
    ir_, vis_, fused_ = (torch.from_numpy(p.copy())[None, None].to(task.device) for p in (ir, vis, fused))
    values = evaluate(ir_, vis_, fused_, task.metrics, task.convention)
    return {key: float(value) for key, value in values.items()}


class KeptScores:
    """Scores in a file of JSON lines, so that a long evaluation goes on where it was stopped.

    A score is reused when the three files are the same (path, size and time of change), as well as the
    convention, the options and the implementation, and it has all metrics that are asked for.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Args:
            path: The file; made on the first new score. Lines that were cut off are ignored.

        Raises:
            ImageError: The file cannot be read or is not of this kind.
        """
        self._path = path
        self._lock = threading.Lock()
        self._values: dict[str, dict[str, float]] = {}
        try:
            lines = path.read_text().splitlines() if path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            raise ImageError(f"{path} cannot be read as kept scores ({error}): name another file") from None
        self._cut_off = bool(lines) and not path.read_bytes().endswith(b"\n")
        for number, line in enumerate(lines):
            try:
                record = json.loads(line)
                values = {k: torch.nan if v is None else float(v) for k, v in record["values"].items()}
                self._values[record["identity"]] = {**self._values.get(record["identity"], {}), **values}
            except (ValueError, KeyError, TypeError, AttributeError):
                if number == 0 and (len(lines) > 1 or not line.startswith("{")):
                    raise ImageError(f"{path} does not hold kept scores: name another file") from None

    def find(self, method: str, pair: Pair, path: Path, task: Task) -> dict[str, float] | None:
        """The values of that picture, if they are known and complete."""
        values = self._values.get(self._identity(pair, path, task), {})
        wanted = [key for key in values if key.split(".")[0] in task.metrics]
        if not set(task.metrics) <= set(wanted):
            return None
        return {key: values[key] for metric in task.metrics for key in wanted if key.split(".")[0] == metric}

    def add(self, score: Score, pair: Pair, path: Path, task: Task) -> None:
        """Append one score.

        Raises:
            ImageError: The file cannot be written.
        """
        values = {key: value if np.isfinite(value) else None for key, value in score.values.items()}
        record: dict[str, Any] = {"method": score.method, "key": score.key, "values": values}
        record["identity"] = self._identity(pair, path, task)
        try:
            with self._lock, open(self._path, "a") as file:
                file.write("\n" * self._cut_off + json.dumps(record) + "\n")
                self._cut_off = False
        except OSError as error:
            raise ImageError(
                f"{self._path} cannot be written ({error.strerror}): name another file"
            ) from None

    @staticmethod
    def _identity(pair: Pair, path: Path, task: Task) -> str:
        files = []
        for file in (pair.ir, pair.vis, path):
            try:
                status = file.stat()
                files.append(f"{file.resolve()} {status.st_size} {status.st_mtime_ns}")
            except OSError:
                files.append(f"{file} missing")
        return " | ".join([task.fingerprint(), *files])
