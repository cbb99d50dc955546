"""Where in the visible picture the infrared one lies, roughly: every scale, turn and shift is tried."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffmf_cli.alignment.edges import content, edges, turn
from diffmf_cli.alignment.geometry import project, resizing, similarity
from diffmf_cli.images.opencv import cv2


@dataclass(frozen=True)
class Candidate:
    """A place for the infrared picture.

    Attributes:
        matrix: `(3, 3)`, infrared to visible pixels.
        score: correlation of the edges, up to 1.
    """

    matrix: np.ndarray
    score: float


def search(
    ir: np.ndarray,
    vis: np.ndarray,
    ratios: Sequence[float],
    degrees: Sequence[float],
    *,
    aspect: float,
    beyond: float,
    side: int,
) -> list[Candidate]:
    """Correlates the edges of two pictures over scales, turns and all shifts.

    Args:
        ir: `(H, W)` float32.
        vis: `(H, W)` float32.
        ratios: widths of the infrared view as shares of that of the visible one.
        degrees: turns.
        aspect: height of an infrared pixel over its width.
        beyond: share of the infrared picture that may lie outside of the visible one, to each side.
        side: pixels to which the longer side of the infrared picture is brought.

    Returns:
        The best place for each ratio and turn, the best first.
    """
    height, width = ir.shape
    shrink = side / max(width, height * aspect)
    size = max(8, round(width * shrink)), max(8, round(height * aspect * shrink))
    small = cv2.resize(ir, size, interpolation=cv2.INTER_AREA)
    template = edges(small, content(small))
    margin = round(beyond * size[0]), round(beyond * size[1])
    turned = [_rotated(template, angle) for angle in degrees]
    found = []
    for ratio in ratios:
        scale = size[0] / (ratio * vis.shape[1])
        view = max(8, round(vis.shape[1] * scale)), max(8, round(vis.shape[0] * scale))
        field = cv2.resize(vis, view, interpolation=cv2.INTER_AREA)
        pad_x = max(margin[0], size[0] - view[0])
        pad_y = max(margin[1], size[1] - view[1])
        maps = cv2.copyMakeBorder(
            edges(field, content(field)), pad_y, pad_y, pad_x, pad_x, cv2.BORDER_CONSTANT
        )
        for angle, rotated in zip(degrees, turned, strict=True):
            scores = cv2.matchTemplate(maps, rotated, cv2.TM_CCORR_NORMED)
            _, score, _, (x, y) = cv2.minMaxLoc(scores)
            middle = np.array([x - pad_x, y - pad_y]) + (np.array(size) - 1) / 2
            place = project(resizing(view, vis.shape[::-1]), middle[None])[0]
            found.append(
                Candidate(_matrix(ir.shape[::-1], place, angle, ratio * vis.shape[1] / width, aspect), score)
            )
    return sorted(found, key=lambda candidate: -candidate.score)


def distinct(
    candidates: Sequence[Candidate], size: tuple[int, int], count: int, apart: float
) -> list[Candidate]:
    """The best candidates whose middles or widths differ by more than a share of the infrared view.

    Args:
        candidates: the best first.
        size: `(width, height)` of the infrared picture.
        count: how many, at most.
        apart: the share.
    """
    kept: list[Candidate] = []
    ends = np.array([[0, size[1] / 2], [size[0], size[1] / 2]])
    for candidate in candidates:
        here = project(candidate.matrix, ends)
        width = np.linalg.norm(here[1] - here[0])
        if all(np.abs(here - project(other.matrix, ends)).max() > apart * width for other in kept):
            kept.append(candidate)
        if len(kept) == count:
            break
    return kept


def _matrix(
    size: tuple[int, int], place: np.ndarray, degrees: float, scale: float, aspect: float
) -> np.ndarray:
    """Puts the middle of a grid of `(width, height)` at `place`, by exact factors.

    The sizes of shrunk pictures are whole numbers and distort the ratio of the two scales, by a pixel or two
    at the corners, which fitting a similarity could not take back.
    """
    matrix = similarity((1, 1), degrees, scale) @ np.diag([1, aspect, 1])
    matrix[:2, 2] = place - matrix[:2, :2] @ ((np.array(size) - 1) / 2)
    return matrix


def _rotated(maps: np.ndarray, degrees: float) -> np.ndarray:
    if not degrees:
        return maps
    size = maps.shape[1], maps.shape[0]
    moved = cv2.warpAffine(maps, similarity(size, degrees, 1)[:2], size, flags=cv2.INTER_LINEAR)
    return turn(moved, np.deg2rad(degrees))
