"""One transform for a fixed pair of cameras, from many pairs of pictures."""

from collections.abc import Sequence

import numpy as np

from diffmf_cli.alignment.geometry import corner_distance, corners, project
from diffmf_cli.alignment.transform import Transform
from diffmf_cli.errors import DiffmfError
from diffmf_cli.images.opencv import cv2

_AGREEMENT = 0.02  # of the diagonal of the visible picture: how far a pair may be off and still count


def consensus(found: Sequence[Transform]) -> tuple[Transform, int]:
    """The transform on which most pairs agree.

    Where each corner of the infrared picture comes to lie is averaged over the largest group of pairs that
    agree, weighted by their scores; a pair whose own estimate is wrong has no say.

    Args:
        found: of each pair, all for the same sizes.

    Returns:
        The transform, a homography only where most of the agreeing ones are; and how many pairs agree.

    Raises:
        DiffmfError: Fewer than two pairs, or fewer than a third of them, agree.
    """
    size = found[0].ir_size
    near = _AGREEMENT * float(np.hypot(*found[0].vis_size))
    distances = np.array([[corner_distance(a.matrix, b.matrix, size) for b in found] for a in found])
    agree = distances <= near
    group = [one for one, good in zip(found, agree[agree.sum(1).argmax()], strict=True) if good]
    if len(group) < max(2, len(found) / 3):
        raise DiffmfError(
            f"only {len(group)} of {len(found)} pairs agree on an alignment: give more pairs of one rig, "
            "with edges that both cameras see, or --fov-ratio"
        )
    at = corners(size)
    places = np.array([project(one.matrix, at) for one in group])
    scores = np.array([max(one.score, 1e-3) for one in group])
    keep = np.ones(len(group), bool)
    for _ in range(2):  # drop what is far from the mean of the rest
        mean = np.average(places[keep], axis=0, weights=scores[keep])
        off = np.linalg.norm(places - mean, axis=2).mean(1)
        keep = off <= max(2.5 * float(np.median(off)), 0.25)
    kept = [one for one, good in zip(group, keep, strict=True) if good]
    model = "homography" if np.mean([one.model == "homography" for one in kept]) > 0.5 else "affine"
    matrix = _through(at, np.average(places[keep], axis=0, weights=scores[keep]), model)
    return Transform(matrix, model, size, found[0].vis_size, float(scores[keep].mean())), len(kept)


def _through(points: np.ndarray, places: np.ndarray, model: str) -> np.ndarray:
    if model == "homography":
        matrix = cv2.getPerspectiveTransform(points.astype(np.float32), places.astype(np.float32))
        return np.asarray(matrix / matrix[2, 2], np.float64)
    solution = np.linalg.lstsq(np.hstack([points, np.ones((4, 1))]), places, rcond=None)[0]
    return np.vstack([solution.T, [0, 0, 1]])
