"""The transform of one pair from its pixels, or the reason why it is better left as it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffmf_cli.alignment.geometry import corner_distance, project, resizing
from diffmf_cli.alignment.pyramid import Pyramid
from diffmf_cli.alignment.refine import (
    HOMOGRAPHY,
    SIMILARITY,
    ZOOM,
    Frame,
    Template,
    correlation,
    frame,
    halves,
    improve,
    template,
)
from diffmf_cli.alignment.search import Candidate, distinct, search
from diffmf_cli.alignment.transform import Transform
from diffmf_cli.errors import UsageError
from diffmf_cli.images.resize import ASPECT_TOLERANCE

SMALLEST_RATIO, LARGEST_RATIO = 0.1, 10.0
_SMALLEST_SIDE = 32  # pixels, below which edges prove nothing
_COARSE, FINE = 240, 480  # pixels of the longer side of the infrared picture while it is fitted

# What decides; tuned on RoadScene train by benchmarks/alignment.py, which docs/alignment.md explains.
_SURE_LEAD = 0.25  # of the best place over the next other one, relative to its own correlation
_LEAST_LEAD = 0.2
_LEAST_SCORE = 0.15
_LEAST_GAIN = 0.25  # over the pair as it is, relative to its own correlation
_LEAST_MOVE = 0.004  # of the diagonal
_MOST_SPREAD = 0.007  # of the diagonal, between where two halves of the edges put the corners
_TURN_GAIN = 0.02  # in correlation, for turning what was searched upright
_PERSPECTIVE_GAIN = 0.06  # in correlation, for a homography


@dataclass(frozen=True)
class Estimate:
    """What was found out about a pair.

    Attributes:
        transform: where the infrared picture lies, or None where it is better left as it is.
        reason: why it is None, as a sentence for the user; empty otherwise.
        found: the best transform, whether or not it is worth applying; None where there is no clear one.
    """

    transform: Transform | None
    reason: str
    found: Transform | None


@dataclass(frozen=True)
class _Fit:
    matrix: np.ndarray
    parameters: int
    score: float
    lead: float


def check_ratio(ratio: float | None) -> None:
    """Refuses a ratio of the fields of view that cannot be meant.

    Raises:
        UsageError: It is not between 0.1 and 10.
    """
    if ratio is not None and not SMALLEST_RATIO <= ratio <= LARGEST_RATIO:
        raise UsageError(
            f"field-of-view ratio {ratio:g} is out of range: use {SMALLEST_RATIO:g} to {LARGEST_RATIO:g}, "
            "the width of the infrared view over that of the visible one"
        )


def pixel_aspect(ir_size: tuple[int, int], vis_size: tuple[int, int]) -> float | None:
    """Height of an infrared pixel over its width, those of the visible picture being square.

    A picture that was resampled to nearly fit has pixels that are not square. None where the two differ so
    much in shape that they cannot be meant to show the same view.
    """
    shape = ir_size[0] * vis_size[1] / (ir_size[1] * vis_size[0])
    return shape if max(shape, 1 / shape) <= ASPECT_TOLERANCE else None


def estimate(ir: np.ndarray, vis: np.ndarray, fov_ratio: float | None = None) -> Estimate:
    """Finds where an infrared picture lies in a visible one.

    Edges are correlated over scales, turns and shifts, the best places are fitted by Gauss-Newton, coarse to
    fine, and the result must pass a gate: clearly ahead of any other place, and clearly better than the pair
    as it is.

    Args:
        ir: `(H, W)` float32 of any range.
        vis: `(H, W)` float32 of any range.
        fov_ratio: width of the infrared view over that of the visible one, where it is known to some 8 %.
            Otherwise about the same view is tried first, then an infrared view of 0.3 to 1 of it.

    Raises:
        UsageError: `fov_ratio` is out of range.
    """
    check_ratio(fov_ratio)
    if min(*ir.shape, *vis.shape) < _SMALLEST_SIDE:
        return Estimate(None, f"a picture has fewer than {_SMALLEST_SIDE} pixels a side", None)
    if ir.min() == ir.max() or vis.min() == vis.max():
        return Estimate(None, "a picture is constant", None)
    ir_size, vis_size = ir.shape[::-1], vis.shape[::-1]
    aspect = pixel_aspect(ir_size, vis_size)
    as_is = resizing(ir_size, vis_size) if aspect else None
    aspect = aspect or 1.0
    view = Pyramid(vis)

    if fov_ratio is not None:
        best = _fit(ir, view, aspect, fov_ratio * 1.03 ** np.arange(-3.0, 4), (-3, 0, 3), as_is, 0.2, 192)
    else:
        best = _fit(ir, view, aspect, 1.035 ** np.arange(-3.0, 4), range(-6, 7, 2), as_is, 0.2, 128)
        width = np.hypot(*best.matrix[:2, 0]) * ir_size[0] / vis_size[0]
        if (
            best.lead < _SURE_LEAD or not 0.93 < width < 1.08
        ):  # else it may only be the nearest that was tried
            ratios = 1.04 ** -np.arange(-1.0, 32)
            best = _better(best, _fit(ir, view, aspect, ratios, (0,), None, 0.1, 160), ir_size)
    unclear = Estimate(None, "no place fits clearly better than others", None)
    if best.lead < _LEAST_LEAD or best.score < _LEAST_SCORE:
        return unclear

    fine = template(ir, aspect, FINE)
    best, seen = _finer(fine, view, best)
    matrix, score = best.matrix, best.score
    if score < _LEAST_SCORE:  # what fits by chance fits less well when it is seen sharply
        return unclear
    found = Transform(matrix, "affine", ir_size, vis_size, score)
    if best.parameters == SIMILARITY:
        found = _with_perspective(fine, view, seen, found)
    one, other = halves(seen, best.parameters)
    spread = corner_distance(one, other, ir_size)
    if spread > _MOST_SPREAD * _diagonal(matrix, ir_size):
        return Estimate(None, f"two halves of its edges put it {spread:.1f} pixels apart", found)
    if as_is is not None:
        # Judged without perspective, which always finds something to bend.
        gain = 1 - correlation(frame(fine, view, as_is))[0] / score
        moved = corner_distance(matrix, as_is, ir_size)
        if gain < _LEAST_GAIN or moved < _LEAST_MOVE * np.hypot(*vis_size):
            return Estimate(None, f"moving it by {moved:.1f} pixels is no clear gain", found)
    return Estimate(found, "", found)


def _better(a: _Fit, b: _Fit, size: tuple[int, int]) -> _Fit:
    """The one of higher score; the other shortens its lead, unless both are the same place."""
    best, other = (a, b) if a.score >= b.score else (b, a)
    if corner_distance(a.matrix, b.matrix, size) <= _reach(a.matrix, size):
        return replace(best, lead=max(a.lead, b.lead))
    return replace(best, lead=min(best.lead, 1 - other.score / best.score)) if best.score > 0 else best


def _reach(matrix: np.ndarray, size: tuple[int, int]) -> float:
    """How far apart corners are, in visible pixels, before two places count as two."""
    return 0.05 * _diagonal(matrix, size)


def _diagonal(matrix: np.ndarray, size: tuple[int, int]) -> float:
    """Length of the diagonal of the infrared picture in visible pixels."""
    return float(np.hypot(*np.ptp(project(matrix, np.array([[0.0, 0.0], size])), axis=0)))


def _fit(
    ir: np.ndarray,
    vis: Pyramid,
    aspect: float,
    ratios: Sequence[float] | np.ndarray,
    degrees: Sequence[float],
    as_is: np.ndarray | None,
    beyond: float,
    side: int,
) -> _Fit:
    """Searches, fits the best places, and tells how far the best is ahead of the next other one."""
    size = ir.shape[::-1]
    places = search(ir, vis, list(ratios), degrees, aspect=aspect, beyond=beyond, side=side)
    starts = [place.matrix for place in distinct(places, size, 4, 0.08)]
    if as_is is not None:
        starts.append(as_is)
    fits = []
    small = template(ir, aspect, _COARSE)
    parameters = SIMILARITY if len(degrees) > 1 else ZOOM
    for start in starts:
        matrix = improve([frame(small, vis, start)], parameters)
        fits.append(Candidate(matrix, correlation(frame(small, vis, matrix))[0]))
    best = max(fits, key=lambda fit: fit.score)
    far = _reach(best.matrix, size)
    others = [fit.score for fit in fits if corner_distance(fit.matrix, best.matrix, size) > far]
    lead = 1 - max(others, default=0.0) / best.score if best.score > 0 else 0.0
    return _Fit(best.matrix, parameters, best.score, lead)


def _finer(ir: Template, vis: Pyramid, fit: _Fit) -> tuple[_Fit, Frame]:
    """Fits at the finer size; turns a place that was found upright only if that explains clearly more."""

    def improved(view: Frame, parameters: int) -> tuple[_Fit, Frame]:
        view = frame(ir, vis, improve([view], parameters))
        better = replace(fit, matrix=view.matrix, parameters=parameters, score=correlation(view)[0])
        return better, view

    best, view = improved(frame(ir, vis, fit.matrix), fit.parameters)
    if fit.parameters == ZOOM:
        turned, turned_view = improved(view, SIMILARITY)
        if turned.score > best.score + _TURN_GAIN:
            return turned, turned_view
    return best, view


def _with_perspective(ir: Template, vis: Pyramid, view: Frame, start: Transform) -> Transform:
    """The homography beside a similarity, where it explains clearly more."""
    matrix = improve([view], HOMOGRAPHY)
    score = correlation(frame(ir, vis, matrix))[0]
    if score < start.score + _PERSPECTIVE_GAIN:
        return start
    return Transform(matrix, "homography", start.ir_size, start.vis_size, score)
