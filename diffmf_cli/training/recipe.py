"""A training recipe: everything that decides what comes out of a run, in one TOML file."""

import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

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
        sources: folders with `ir/` and `vi/` (or `vis/`) of pairs, below the data folder of the run.
        hold_out: each `hold_out`-th pair validates and is never trained on.
        crop: side of a training crop, a multiple of 16.
        batch: crops a step.
        constants: share of crops that are two constants, so that flat pictures stay flat.
    """

    sources: list[str] = field(default_factory=list)
    hold_out: int = 10
    crop: int = 128
    batch: int = 16
    constants: float = 0.08


@dataclass(frozen=True)
class Loss:
    """Weights of the terms of `losses.fusion_loss`; 0 leaves a term out.

    Attributes:
        intensity: of the distance to the brighter source.
        gradient: of the distance to the stronger signed gradient.
        ssim: of the structural similarity to each source.
        vif: of the visual information fidelity of each source.
        difference: of the correlation of what remains without one source with the other.
        sum_share: how much the mean over both sources counts in these three beside the worse source.
        stability: the constant of SSIM; smaller lets fainter texture count.
    """

    intensity: float = 3.0
    gradient: float = 10.0
    ssim: float = 5.0
    vif: float = 5.0
    difference: float = 2.0
    sum_share: float = 0.2
    stability: float = 1e-4


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

    def located(self, root: Path) -> "Recipe":
        """The recipe with its sources below `root`."""
        return replace(self, root=root)

    @property
    def folders(self) -> list[Path]:
        """The folders of pairs."""
        return [self.root / source for source in self.data.sources]


Part = TypeVar("Part", Model, Data, Loss, Optimization)


def _part(defaults: Part, values: Any, where: str) -> Part:
    if not isinstance(values, dict):
        raise UsageError(f"{where}: expected a table of values")
    kinds = {f.name: getattr(defaults, f.name) for f in fields(defaults)}
    for key, value in values.items():
        if key not in kinds:
            raise UsageError(f"{where}: unknown key '{key}'; known: {', '.join(kinds)}")
        default = kinds[key]
        wanted = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise UsageError(f"{where}: {key} = {value!r} is not of type {type(default).__name__}")
    return replace(defaults, **values)


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
    changes: dict[str, Any] = {}
    for key, value in values.items():
        where = f"{path}, [{key}]"
        if key in parts:
            changes[key] = _part(parts[key], value, where)
        elif key in ("name", "task") and isinstance(value, str):
            changes[key] = value
        else:
            raise UsageError(f"{path}: unknown key '{key}'; known: name, task, {', '.join(parts)}")
    recipe = replace(recipe, **changes)
    if recipe.data.crop % 16 or recipe.data.crop < 48:
        raise UsageError(f"{path}, [data]: crop = {recipe.data.crop} is not a multiple of 16 from 48 on")
    return recipe
