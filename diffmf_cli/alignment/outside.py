"""The infrared picture on the grid of the visible one through a transform, and what becomes of the rest."""

from dataclasses import dataclass

import numpy as np

from diffmf_cli.alignment.geometry import project, resizing
from diffmf_cli.alignment.transform import Transform
from diffmf_cli.errors import ImageError
from diffmf_cli.images.opencv import cv2
from diffmf_cli.images.resize import resize_to

OUTSIDE = ("vis", "crop", "blank")
_FEATHER = 0.04  # of the shorter side of what is covered


@dataclass(frozen=True, eq=False)
class Placed:
    """An infrared picture in its place.

    Attributes:
        ir: `(h, w)` float32 on the visible grid within `box`; beyond its own edge it goes on with its last
            pixels, so that the network sees no step there.
        box: rows and columns of the visible picture that hold all of it.
        weight: `(h, w)` float32: how much the fusion counts, 1 within and 0 beyond the infrared picture.
    """

    ir: np.ndarray
    box: tuple[slice, slice]
    weight: np.ndarray

    def complete(self, fused: np.ndarray, around: np.ndarray) -> np.ndarray:
        """Puts the fusion of `box` into a whole picture.

        Args:
            fused: `(h, w)` float32.
            around: `(H, W)` float32: what is shown where there is no infrared.
        """
        whole = around.copy()
        part = whole[self.box]
        part += self.weight * (fused - part)
        return whole


def shown(transform: Transform | None, outside: str) -> tuple[slice, slice]:
    """Rows and columns of the visible picture that the result of a fusion shows."""
    if transform is None or outside != "crop":
        return slice(None), slice(None)
    return _largest_rectangle(_covered(transform))


def coverage(transform: Transform) -> float:
    """Share of the visible picture that the infrared one covers."""
    return float(_covered(transform).mean())


def place(ir: np.ndarray, transform: Transform, outside: str = "vis") -> Placed:
    """Resamples an infrared picture through a transform.

    Args:
        ir: `(H, W)` float32 in [0, 1], of the size that the transform is for.
        transform: infrared to visible pixels.
        outside: `vis` blends over a border of 4 % into what is around, `blank` ends sharply, `crop` keeps the
            largest upright rectangle that is covered everywhere.

    Raises:
        ImageError: The infrared picture covers nothing of the visible one.
    """
    covered = _covered(transform)
    box = _largest_rectangle(covered) if outside == "crop" else _bounds(covered)
    weight = covered.astype(np.float32)
    if outside == "vis" and not covered.all():
        # Where the visible picture ends as well nothing needs blending: only what is not covered counts.
        distance = cv2.distanceTransform(covered, cv2.DIST_L2, 3)
        shorter = min(box[0].stop - box[0].start, box[1].stop - box[1].start)
        weight = np.minimum(distance / max(1.0, _FEATHER * shorter), 1).astype(np.float32)
    origin = np.array([[1, 0, -box[1].start], [0, 1, -box[0].start], [0, 0, 1]], np.float64)
    weight = weight[box]
    moved = _resample(ir, origin @ transform.matrix, (weight.shape[1], weight.shape[0]))
    return Placed(moved, box, weight)


def _covered(transform: Transform) -> np.ndarray:
    full = np.ones(transform.ir_size[::-1], np.uint8)
    return cv2.warpPerspective(full, transform.matrix, transform.vis_size, flags=cv2.INTER_NEAREST)


def _resample(ir: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic within the extremes of the neighbours, after averaging where the picture shrinks."""
    middle = (np.array(ir.shape[::-1]) - 1) / 2
    step = project(matrix, middle + np.array([[0, 0], [1, 0], [0, 1]]))
    pitch = np.linalg.norm(step[1:] - step[0], axis=1)
    smaller = tuple(
        max(1, round(side * min(1.0, scale))) for side, scale in zip(ir.shape[::-1], pitch, strict=True)
    )
    if smaller != ir.shape[::-1]:
        matrix = matrix @ resizing(smaller, ir.shape[::-1])
        ir = resize_to(ir, smaller[::-1], stretch=True)

    def warp(picture: np.ndarray, method: int) -> np.ndarray:
        return cv2.warpPerspective(picture, matrix, size, flags=method, borderMode=cv2.BORDER_REPLICATE)

    around = np.ones((3, 3), np.uint8)
    highest, lowest = (warp(f(ir, around), cv2.INTER_NEAREST) for f in (cv2.dilate, cv2.erode))
    return np.clip(warp(ir, cv2.INTER_CUBIC), lowest, highest)


def _bounds(covered: np.ndarray) -> tuple[slice, slice]:
    rows, columns = (np.flatnonzero(covered.any(axis)) for axis in (1, 0))
    if not len(rows):
        raise ImageError(
            "the alignment puts the infrared picture outside of the visible one: estimate it again"
        )
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _largest_rectangle(covered: np.ndarray) -> tuple[slice, slice]:
    """The largest upright rectangle in a convex region, to about half a percent of its height."""
    bounds = _bounds(covered)
    rows = np.unique(np.linspace(bounds[0].start, bounds[0].stop - 1, 256).astype(int))
    rows = rows[covered[rows].any(1)]
    lines = covered[rows]
    left = lines.argmax(1)
    right = covered.shape[1] - lines[:, ::-1].argmax(1)
    # Convex: what is covered in the first and the last row is covered between them.
    widths = np.minimum.outer(right, right) - np.maximum.outer(left, left)
    heights = np.abs(np.subtract.outer(rows, rows)) + 1
    top, bottom = sorted(np.unravel_index((widths.clip(0) * heights).argmax(), widths.shape))
    return (
        slice(int(rows[top]), int(rows[bottom]) + 1),
        slice(int(max(left[top], left[bottom])), int(min(right[top], right[bottom]))),
    )
