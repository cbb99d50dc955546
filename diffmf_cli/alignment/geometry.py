"""3x3 matrices between pixel grids; (0, 0) is the centre of the first pixel."""

import numpy as np


def scaling(x: float, y: float) -> np.ndarray:
    """The matrix `(3, 3)` of a resampling by factors, which keeps the outer edges of the grids together."""
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]], np.float64)


def resizing(size: tuple[int, int], target: tuple[int, int]) -> np.ndarray:
    """The matrix of a resampling from one `(width, height)` to another."""
    return scaling(target[0] / size[0], target[1] / size[1])


def similarity(size: tuple[int, int], degrees: float, scale: float) -> np.ndarray:
    """Rotation and scale about the middle of a grid of `(width, height)`."""
    centre = (np.array(size) - 1) / 2
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = turn, centre - turn @ centre
    return matrix


def corners(size: tuple[int, int]) -> np.ndarray:
    """The centres of the corner pixels of a grid of `(width, height)`, `(4, 2)`, clockwise."""
    x, y = size[0] - 1, size[1] - 1
    return np.array([[0, 0], [x, 0], [x, y], [0, y]], np.float64)


def project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points `(N, 2)` through a matrix `(3, 3)`."""
    mapped = np.hstack([points, np.ones((len(points), 1))]) @ matrix.T
    return mapped[:, :2] / mapped[:, 2:]


def corner_distance(a: np.ndarray, b: np.ndarray, size: tuple[int, int]) -> float:
    """How far apart two matrices put the corners of a grid of `(width, height)`: the mean, in pixels."""
    at = corners(size)
    return float(np.linalg.norm(project(a, at) - project(b, at), axis=1).mean())
