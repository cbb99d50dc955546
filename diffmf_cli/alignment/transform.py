"""Where the infrared picture lies in the visible one, and its file: `--save-align`, `--align FILE.json`."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffmf_cli.alignment.geometry import corners, project
from diffmf_cli.errors import UsageError

MODELS = ("affine", "homography")
_FIX = "estimate it again with --save-align or diffmf align"


@dataclass(frozen=True, eq=False)
class Transform:
    """A mapping of infrared to visible pixels; (0, 0) is the centre of the first pixel.

    Attributes:
        matrix: `(3, 3)` float64; the last entry is 1.
        model: `affine` or `homography`.
        ir_size: width and height of the infrared picture.
        vis_size: width and height of the visible picture.
        score: correlation of the edges of both pictures through the matrix, at most 1.
    """

    matrix: np.ndarray
    model: str
    ir_size: tuple[int, int]
    vis_size: tuple[int, int]
    score: float

    def facts(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "matrix": [[float(f"{value:.10g}") for value in row] for row in self.matrix],
            "model": self.model,
            "ir_size": list(self.ir_size),
            "vis_size": list(self.vis_size),
            "score": round(self.score, 4),
        }

    def to_json(self, **more: Any) -> bytes:
        """The text of a file that `read_transform` reads, with further entries that it ignores."""
        values = {**self.facts(), **more}
        # One row of the matrix a line, so that a person can read it.
        lines = ",\n".join(f'  "{key}": {_value(key, value)}' for key, value in values.items())
        return f"{{\n{lines}\n}}\n".encode()

    def check_sizes(
        self, ir_size: tuple[int, int], vis_size: tuple[int, int], name: str = "alignment"
    ) -> None:
        """Refuses pictures of other sizes.

        Args:
            ir_size: width and height of the infrared picture.
            vis_size: width and height of the visible picture.
            name: what messages call the transform, such as its file.

        Raises:
            UsageError: A size differs.
        """
        for kind, mine, given in (("IR", self.ir_size, ir_size), ("VIS", self.vis_size, vis_size)):
            if mine != given:
                sizes = f"{mine[0]}x{mine[1]}, this one has {given[0]}x{given[1]}"
                raise UsageError(f"{name} is for {kind} pictures of {sizes}: {_FIX}")


def read_transform(path: Path) -> Transform:
    """Reads a saved transform.

    Raises:
        UsageError: The file is missing, not JSON, lacks an entry, or its matrix maps no picture or is not of
            its model.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the alignment ({error.strerror}): check the path") from None
    except (ValueError, RecursionError):  # not JSON, or not text, or nested without end
        raise UsageError(f"{path} is not a JSON file: {_FIX}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no object with 'matrix', 'ir_size' and 'vis_size': {_FIX}")
    matrix = _matrix(values.get("matrix"), path)
    model = values.get("model", "affine" if (matrix[2, :2] == 0).all() else "homography")
    if model not in MODELS:
        raise UsageError(f"{path}: model {model!r} is unknown: use {' or '.join(MODELS)}")
    if model == "affine" and (matrix[2, :2] != 0).any():
        row = ", ".join(f"{value:g}" for value in matrix[2])
        raise UsageError(
            f"{path}: 'matrix' ends with {row}, where an affine one ends with 0, 0, 1: "
            f'write "homography" as its model, or {_FIX}'
        )
    score = values.get("score", 0.0)
    if not _is_number(score):
        raise UsageError(f"{path}: score {score!r} is not a number")
    ir_size, vis_size = (_size(values.get(key), key, path) for key in ("ir_size", "vis_size"))
    _check_mapping(matrix, ir_size, vis_size, path)
    return Transform(matrix, model, ir_size, vis_size, float(score))


def _value(key: str, value: Any) -> str:
    if key != "matrix":
        return json.dumps(value)
    return "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in value) + "\n  ]"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _matrix(rows: Any, path: Path) -> np.ndarray:
    good = isinstance(rows, list) and len(rows) == 3
    if not good or not all(
        isinstance(row, list) and len(row) == 3 and all(map(_is_number, row)) for row in rows
    ):
        raise UsageError(f"{path}: 'matrix' is not 3 rows of 3 finite numbers: {_FIX}")
    matrix = np.array(rows, np.float64)
    scale = float(np.abs(matrix).max())
    if abs(matrix[2, 2]) <= 1e-12 * scale or np.linalg.cond(matrix / scale) > 1e14:
        raise UsageError(f"{path}: 'matrix' is singular: {_FIX}")
    return matrix / matrix[2, 2]


def _size(value: Any, key: str, path: Path) -> tuple[int, int]:
    if not (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in value)
    ):
        raise UsageError(f"{path}: {key!r} is {value!r}, not [width, height] in pixels: {_FIX}")
    return value[0], value[1]


def _check_mapping(
    matrix: np.ndarray, ir_size: tuple[int, int], vis_size: tuple[int, int], path: Path
) -> None:
    at = corners(ir_size)
    depth = np.hstack([at, np.ones((4, 1))]) @ matrix[2]
    if depth.min() <= 0:
        raise UsageError(f"{path}: 'matrix' puts the horizon across the infrared picture: {_FIX}")
    mapped = project(matrix, at)
    low, high = mapped.min(0), mapped.max(0)
    if (high - low).min() < 1 or (high < 0).any() or (low > np.array(vis_size) - 1).any():
        raise UsageError(f"{path}: 'matrix' puts the infrared picture outside of the visible one: {_FIX}")
