"""One transform for a fixed pair of cameras, from many pairs of pictures."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from diffmf_cli.alignment.estimate import FINE, pixel_aspect
from diffmf_cli.alignment.geometry import corner_distance, corners, project
from diffmf_cli.alignment.pyramid import Pyramid
from diffmf_cli.alignment.refine import HOMOGRAPHY, SIMILARITY, Frame, correlation, frame, improve, template
from diffmf_cli.alignment.transform import Transform
from diffmf_cli.errors import DiffmfError
from diffmf_cli.images.opencv import cv2

_AGREEMENT = 0.02  # of the diagonal of the visible picture: how far a pair may be off and still count


def consensus(found: Sequence[Transform]) -> tuple[Transform, list[int]]:
    """The transform on which most pairs agree.

    Where each corner of the infrared picture comes to lie is averaged over the largest group of pairs that
    agree, weighted by their scores; a pair whose own estimate is wrong has no say.

    Args:
        found: of each pair, all for the same sizes.

    Returns:
        The transform, a homography only where most of the agreeing ones are; and which pairs agree.

    Raises:
        DiffmfError: Fewer than two pairs, or fewer than a third of them, agree.
    """
    size = found[0].ir_size
    near = _AGREEMENT * float(np.hypot(*found[0].vis_size))
    distances = np.array([[corner_distance(a.matrix, b.matrix, size) for b in found] for a in found])
    agree = distances <= near
    members = np.flatnonzero(agree[agree.sum(1).argmax()]).tolist()
    group = [found[i] for i in members]
    if len(group) < max(2, len(found) / 3):
        raise DiffmfError(
            f"only {len(group)} of {len(found)} pairs agree on an alignment: give more pairs of one rig, "
            "with edges that both cameras see, or --fov-ratio"
        )
    at = corners(size)
    scores = [max(one.score, 1e-3) for one in group]
    places = np.average([project(one.matrix, at) for one in group], axis=0, weights=scores)
    model = "homography" if np.mean([one.model == "homography" for one in group]) > 0.5 else "affine"
    matrix = _through(at, places, model)
    return Transform(matrix, model, size, found[0].vis_size, float(np.mean(scores))), members


def fit_together(rig: Transform, pairs: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]) -> Transform:
    """Improves the transform of a rig on the edges of many pairs at once.

    An average of estimates is no better than they are. In one fit to all edges, what pulls a single pair
    aside, such as near things or few edges in a corner, has little say.

    Args:
        rig: the transform on which the pairs agree.
        pairs: gives the infrared and visible pictures, each `(H, W)` float32, one pair after another. Called
            twice, so that they need not be kept; 5 MB of each are.

    Returns:
        The transform, with the mean correlation of the pairs as its score.
    """
    aspect = pixel_aspect(rig.ir_size, rig.vis_size) or 1.0

    def views(matrix: np.ndarray) -> Iterator[Frame]:
        return (frame(template(ir, aspect, FINE), Pyramid(vis), matrix) for ir, vis in pairs())

    matrix = improve(views(rig.matrix), HOMOGRAPHY if rig.model == "homography" else SIMILARITY)
    score = np.mean([correlation(view)[0] for view in views(matrix)])
    return replace(rig, matrix=matrix, score=float(score))


def _through(points: np.ndarray, places: np.ndarray, model: str) -> np.ndarray:
    if model == "homography":
        matrix = cv2.getPerspectiveTransform(points.astype(np.float32), places.astype(np.float32))
        return np.asarray(matrix / matrix[2, 2], np.float64)
    solution = np.linalg.lstsq(np.hstack([points, np.ones((4, 1))]), places, rcond=None)[0]
    return np.vstack([solution.T, [0, 0, 1]])
