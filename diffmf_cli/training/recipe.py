"""A training recipe: everything that decides what comes out of a run, in one TOML file."""

import math
import re
import tomllib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from diffmf_cli.errors import UsageError


@dataclass(frozen=True)
class Model:
    """Which network: a size of `diffmf_cli.model.network.SIZES`, with values of its `Config` changed."""

    size: str = "base"
    change: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """Where the pairs are and how batches are cut from them.

    Attributes:
        sources: folders below the data folder of the run, each with `ir/` and `vi/` (or `vis/`) of pairs; or
            `mri/` and `ct/`, `pet/` or `spect/`.
        hold_out: about one pair in so many validates and is never trained on; 0 holds none out.
        hold_together: a regular expression: pairs are held out together where the part of their names that it
            matches is the same. Neighbouring slices would give each other away.
        crop: side of a training crop, a multiple of 16.
        batch: crops a step.
        constants: share of crops that are two constants, so that flat pictures stay flat.
        flat_vis: share of crops whose visible picture alone is a constant, as a black frame is.
        dim_vis: share of crops whose visible picture is nearly black and counts as black.
    """

    sources: list[str] = field(default_factory=list)
    hold_out: int = 10
    hold_together: str = ""
    crop: int = 128
    batch: int = 16
    constants: float = 0.08
    flat_vis: float = 0.02
    dim_vis: float = 0.0


@dataclass(frozen=True)
class Loss:
    """Weights of the terms of `losses.fusion_loss`; 0 leaves a term out.

    Attributes:
        intensity: of the distance to the brighter source.
        gradient: of the distance to the stronger signed gradient.
        ssim: of the structural similarity to each source.
        vif: of the visual information fidelity of each source.
        edges: of the strength and direction of each source's edges.
        difference: of the correlation of what remains without one source with the other.
        darkness: of how far the result lies below half of the visible picture.
        contrast: of how far the result's local contrast lies below half of the better source's.
        flatness: of the distance of what comes of two constants to the brighter one.
        sum_share: how much the mean over both sources counts in these four beside the worse source.
        flat: how much a window counts in the structural similarity where the source is flat.
        stability: the constant C2 of SSIM; smaller lets fainter texture count.
        luminance: its constant C1; larger lets the result be brighter than a source that is dark.
    """

    intensity: float = 3.0
    gradient: float = 10.0
    ssim: float = 5.0
    vif: float = 5.0
    edges: float = 0.0
    difference: float = 2.0
    darkness: float = 0.0
    contrast: float = 0.0
    flatness: float = 0.0
    sum_share: float = 0.2
    flat: float = 0.2
    stability: float = 1e-4
    luminance: float = 1e-5


@dataclass(frozen=True)
class Optimization:
    """AdamW with warm-up, cosine decay to a hundredth, clipping, and a moving average of the weights."""

    steps: int = 20000
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warm_up: int = 300
    clip: float = 1.0
    average: float = 0.999
    validate_every: int = 2000
    seed: int = 1


@dataclass(frozen=True)
class Recipe:
    """See the parts."""

    name: str = "model"
    task: str = "ir-vis"
    model: Model = Model()
    data: Data = Data()
    loss: Loss = Loss()
    optimization: Optimization = Optimization()
    root: Path = Path()

    def to_dict(self) -> dict[str, Any]:
        """As plain values, without the place of the data: it may lie elsewhere when a run is resumed."""
        return {key: value for key, value in asdict(self).items() if key != "root"}

    @staticmethod
    def completed(values: dict[str, Any]) -> dict[str, Any]:
        """What `to_dict` gave before some keys were known, with their defaults: they change nothing."""
        filled = dict(values)
        for key, default in Recipe().to_dict().items():
            filled[key] = (
                default | values.get(key, {}) if isinstance(default, dict) else values.get(key, default)
            )
        return filled

    def located(self, root: Path) -> "Recipe":
        """The recipe with its sources below `root`."""
        return replace(self, root=root)

    @property
    def folders(self) -> list[Path]:
        """The folders of pairs."""
        return [self.root / source for source in self.data.sources]


# The smallest and largest values that mean something, where those are not 0 and infinity.
_RANGES = {
    "batch": (1, math.inf),
    "steps": (1, math.inf),
    "validate_every": (1, math.inf),
    "constants": (0, 1),
    "flat_vis": (0, 0.9),
    "dim_vis": (0, 0.9),
    "average": (0, 1),
    "flat": (0, 1),
    "sum_share": (0, 1),
    "width": (16, math.inf),
    "d_state": (1, math.inf),
}


def _check(defaults: dict[str, Any], values: Any, where: str) -> None:
    if not isinstance(values, dict):
        raise UsageError(f"{where}: expected a table of values")
    for key, value in values.items():
        if key not in defaults:
            raise UsageError(f"{where}: unknown key '{key}'; known: {', '.join(defaults)}")
        default = defaults[key]
        wanted = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise UsageError(f"{where}: {key} = {value!r} is not of type {type(default).__name__}")
        if isinstance(value, int | float):
            least, most = _RANGES.get(key, (0, math.inf))
            if not (math.isfinite(value) and least <= value <= most):
                raise UsageError(f"{where}: {key} = {value} is not a number from {least} to {most}")


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe.

    Raises:
        UsageError: if the file is missing, not TOML, or has an unknown or ill-typed value.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the recipe ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a TOML file ({error})") from error
    recipe = Recipe()
    parts = {name: getattr(recipe, name) for name in ("model", "data", "loss", "optimization")}
    for key, value in values.items():
        if key in parts:
            _check(vars(parts[key]), value, f"{path}, [{key}]")
            parts[key] = replace(parts[key], **value)
        elif key not in ("name", "task"):
            raise UsageError(f"{path}: unknown key '{key}'; known: name, task, {', '.join(parts)}")
        elif not isinstance(value, str) or not value or Path(value).name != value:
            raise UsageError(f"{path}: {key} = {value!r} is not a word that a file can be named after")
    recipe = replace(recipe, **(values | parts))
    _check_together(recipe, path)
    return recipe


def _check_together(recipe: Recipe, path: Path) -> None:
    from diffmf_cli.model.network import SIZES  # late: it imports torch

    size, data = recipe.model.size, recipe.data
    if size not in SIZES:
        raise UsageError(f"{path}, [model]: size = '{size}' is unknown; known: {', '.join(SIZES)}")
    _check(SIZES[size].to_dict(), recipe.model.change, f"{path}, [model.change]")
    if not data.sources or not all(isinstance(source, str) for source in data.sources):
        raise UsageError(f"{path}, [data]: sources = {data.sources} is not a list of folders")
    try:
        re.compile(data.hold_together)
    except re.error as error:
        raise UsageError(
            f"{path}, [data]: hold_together = {data.hold_together!r} is not a regular expression ({error})"
        ) from None
    if data.crop % 16 or data.crop < 48:
        raise UsageError(f"{path}, [data]: crop = {data.crop} is not a multiple of 16 from 48 on")
    if data.hold_out == 1:
        raise UsageError(f"{path}, [data]: hold_out = 1 leaves no pair to train on; use 0, or 2 and more")
