"""Where in the visible picture the infrared one lies, roughly: every scale, turn and shift is tried."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffmf_cli.alignment.edges import content, edges, turn
from diffmf_cli.alignment.geometry import project, resizing, similarity
from diffmf_cli.alignment.pyramid import Pyramid
from diffmf_cli.images.opencv import cv2

_SPARE = 1.4  # how much larger than needed a grid may be that spectra are kept for


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
    vis: Pyramid,
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
        vis: the visible picture, float32.
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
    energies = [float(np.vdot(rotated, rotated)) for rotated in turned]
    spectra: list[list[np.ndarray]] = []
    grid = (0, 0)
    found = []
    for ratio in sorted(ratios):  # the largest view first: the spectra of the template serve all that fit
        scale = size[0] / (ratio * vis.shape[1])
        view = max(8, round(vis.shape[1] * scale)), max(8, round(vis.shape[0] * scale))
        field = vis.resized(view)
        pad_x = max(margin[0], size[0] - view[0])
        pad_y = max(margin[1], size[1] - view[1])
        maps = cv2.copyMakeBorder(
            edges(field, content(field)), pad_y, pad_y, pad_x, pad_x, cv2.BORDER_CONSTANT
        )
        needed = cv2.getOptimalDFTSize(maps.shape[0]), cv2.getOptimalDFTSize(maps.shape[1])
        fits = needed[0] <= grid[0] and needed[1] <= grid[1]
        if not fits or grid[0] * grid[1] > _SPARE * needed[0] * needed[1]:
            grid = needed
            spectra = [_spectra(rotated, grid) for rotated in turned]
        energy = _windows(maps, size)
        least = 1e-6 * float(energy.max()) + 1e-12
        norms = 1 / cv2.sqrt(np.maximum(energy, least))
        seen = _spectra(maps, grid)
        for angle, spectrum, own in zip(degrees, spectra, energies, strict=True):
            scores = _correlate(seen, spectrum)[: norms.shape[0], : norms.shape[1]] * norms
            _, score, _, (x, y) = cv2.minMaxLoc(scores)
            middle = np.array([x - pad_x, y - pad_y]) + (np.array(size) - 1) / 2
            place = project(resizing(view, vis.shape[::-1]), middle[None])[0]
            matrix = _matrix(ir.shape[::-1], place, angle, ratio * vis.shape[1] / width, aspect)
            found.append(Candidate(matrix, score / own**0.5 if own > 0 else 0.0))
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


def _spectra(maps: np.ndarray, grid: tuple[int, int]) -> list[np.ndarray]:
    """Fourier transforms of edge maps `(h, w, 4)`, zeros around them, in OpenCV's packed form."""
    padded = np.zeros((4, *grid), np.float32)
    padded[:, : maps.shape[0], : maps.shape[1]] = maps.transpose(2, 0, 1)
    return [cv2.dft(one) for one in padded]


def _correlate(seen: list[np.ndarray], template: list[np.ndarray]) -> np.ndarray:
    """Sum of products of the maps of the visible picture and the template at every shift."""
    products = [cv2.mulSpectrums(a, b, 0, conjB=True) for a, b in zip(seen, template, strict=True)]
    for product in products[1:]:
        cv2.add(products[0], product, products[0])
    return cv2.idft(products[0], flags=cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT)


def _windows(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sum of squares of the maps in the window of `(width, height)` that starts at each pixel."""
    squares = cv2.transform(maps * maps, np.ones((1, 4), np.float32))
    sums = cv2.boxFilter(squares, -1, size, anchor=(0, 0), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return sums[: maps.shape[0] - size[1] + 1, : maps.shape[1] - size[0] + 1]


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
