"""From a rough place to an exact one: Gauss-Newton on the edge maps, in the frame of the infrared picture."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from diffmf_cli.alignment.edges import content, edges, turn
from diffmf_cli.alignment.geometry import resizing
from diffmf_cli.alignment.pyramid import Pyramid
from diffmf_cli.images.opencv import cv2

ZOOM, SIMILARITY, HOMOGRAPHY = 3, 4, 8  # parameters
_POINTS = 20000
_CONVERGED = 0.05  # pixels
_SQUARES = 8  # of a chessboard along the longer side


@dataclass(frozen=True)
class Frame:
    """Edge maps of both pictures on one grid, the infrared picture's at a working size.

    Attributes:
        ir: `(h, w, 4)`.
        vis: `(h, w, 4)`, of the visible picture seen through a matrix.
        seen: `(h, w)` float32, 0 where the visible picture has nothing to see.
        to_ir: `(3, 3)`, working pixels to infrared pixels.
        matrix: `(3, 3)`, infrared to visible pixels: what the visible picture is seen through.
    """

    ir: np.ndarray
    vis: np.ndarray
    seen: np.ndarray
    to_ir: np.ndarray
    matrix: np.ndarray


@dataclass(frozen=True)
class Template:
    """The infrared half of a `Frame`, which all places share.

    Attributes:
        edges: `(h, w, 4)`.
        to_ir: `(3, 3)`, working pixels to infrared pixels.
    """

    edges: np.ndarray
    to_ir: np.ndarray


def template(ir: np.ndarray, aspect: float, side: int) -> Template:
    """Brings an infrared picture to a working size.

    Args:
        ir: `(H, W)` float32.
        aspect: height of an infrared pixel over its width.
        side: pixels that the longer side gets, at most.
    """
    height, width = ir.shape
    shrink = min(1.0, side / max(width, height * aspect))
    size = max(1, round(width * shrink)), max(1, round(height * aspect * shrink))
    small = cv2.resize(ir, size, interpolation=cv2.INTER_AREA)
    return Template(edges(small, content(small)), resizing(size, (width, height)))


def frame(ir: Template, vis: Pyramid, matrix: np.ndarray) -> Frame:
    """Looks at both pictures on one grid.

    Args:
        ir: the infrared picture.
        vis: the visible picture, float32.
        matrix: `(3, 3)`, infrared to visible pixels.
    """
    size = ir.edges.shape[1::-1]
    # Shrunk with averaging first: a warp alone would skip pixels.
    through = matrix @ ir.to_ir
    coarser = max(1.0, np.sqrt(abs(np.linalg.det(through[:2, :2]))))
    view = max(1, round(vis.shape[1] / coarser)), max(1, round(vis.shape[0] / coarser))
    field = vis.resized(view)
    back = resizing(vis.shape[::-1], view) @ through
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpPerspective(_valid(field), back, size, flags=flags) > 0.99
    seen = cv2.erode(seen.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1).astype(np.float32)
    looked = cv2.warpPerspective(field, back, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return Frame(ir.edges, edges(looked, seen), seen, ir.to_ir, matrix)


def _valid(picture: np.ndarray) -> np.ndarray:
    mask = content(picture)
    return np.ones(picture.shape, np.float32) if mask is None else mask


def improve(
    views: Iterable[Frame], parameters: int, *, within: np.ndarray | None = None, steps: int = 10
) -> np.ndarray:
    """Moves the visible edges onto the infrared ones.

    Inverse compositional Gauss-Newton (Baker and Matthews, IJCV 2004). Several pairs of one rig share the
    matrix; each has a say in it by how well its edges agree, not by how many it has.

    Args:
        views: one pair, or several of one size and matrix.
        parameters: `ZOOM` (shift and scale), `SIMILARITY` or `HOMOGRAPHY`.
        within: `(h, w)` bool: which infrared edges count; None for all.
        steps: at most.

    Returns:
        The better matrix, `(3, 3)`, infrared to visible pixels.
    """
    points = [_Points(view, parameters, within) for view in views]
    matrix, to_ir = points[0].matrix, points[0].to_ir
    width, height = points[0].size
    normal = _normalising(width, height)
    ends = np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1, 1, 1, 1]], np.float64)
    warp = np.eye(3)
    for _ in range(steps):
        equations = [found for one in points if (found := one.equations(warp)) is not None]
        if not equations:
            return matrix
        normal_matrix = sum((left for left, _ in equations), np.zeros((parameters, parameters)))
        pull = sum((right for _, right in equations), np.zeros(parameters))
        damping = 1e-6 * np.trace(normal_matrix) + 1e-12
        change = np.linalg.solve(normal_matrix + damping * np.eye(parameters), pull)
        step = np.linalg.inv(normal) @ _matrix(change, parameters) @ normal
        if not np.isfinite(step).all() or abs(np.linalg.det(step)) < 1e-3:
            return matrix
        warp = warp @ np.linalg.inv(step)
        warp /= warp[2, 2]
        shifted = step @ ends
        if np.abs(shifted[:2] / shifted[2:] - ends[:2]).max() < _CONVERGED:
            break
    matrix = matrix @ to_ir @ warp @ np.linalg.inv(to_ir)
    return matrix / matrix[2, 2]


class _Points:
    """The strongest infrared edges of a frame, and what they demand of a warp."""

    def __init__(self, view: Frame, parameters: int, within: np.ndarray | None) -> None:
        self.matrix, self.to_ir, self._vis = view.matrix, view.to_ir, view.vis
        height, width = view.ir.shape[:2]
        self.size = width, height
        energy = cv2.transform(view.ir * view.ir, np.ones((1, 4), np.float32))
        if within is not None:
            energy *= within
        least = np.partition(energy, -_POINTS, axis=None)[-_POINTS] if energy.size > _POINTS else 0
        rows, columns = np.nonzero(energy > least)
        self._enough = len(rows) >= parameters
        self._target = _channels(view.ir[rows, columns])
        self._strength = np.sqrt(_dot(self._target, self._target))
        self._at = np.stack([columns, rows, np.ones_like(rows)]).astype(np.float32)
        slope = (
            max(width, height) / 2 / 8
        )  # a Sobel is 8 times a derivative, which is taken by coordinates of 1
        self._slopes = [
            _channels(cv2.Sobel(view.ir, cv2.CV_32F, *order, scale=slope)[rows, columns])
            for order in ((1, 0), (0, 1))
        ]
        self._squares = [_dot(self._slopes[i], self._slopes[j]) for i, j in ((0, 0), (0, 1), (1, 1))]
        x, y = (_normalising(width, height)[:2] @ self._at).astype(np.float32)
        self._along = _basis(x, y, parameters)

    def equations(self, warp: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Both sides of the normal equations at a warp of working pixels; None where nothing is seen.

        A point counts by how well the edges there agree in direction, so that edges that only one camera
        sees do not pull.
        """
        if not self._enough:
            return None
        there = warp.astype(np.float32) @ self._at
        there = there[:2] / there[2:]
        moved = cv2.remap(self._vis, there[0], there[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        angle = np.arctan2(warp[1, 0] - warp[0, 1], warp[0, 0] + warp[1, 1])
        moved = _channels(turn(moved.reshape(-1, 4), -angle))
        strength = np.sqrt(_dot(moved, moved))
        present = strength > 0
        if not present.any():
            return None
        gain = np.linalg.norm(self._strength[present]) / np.linalg.norm(strength)
        agreement = _dot(self._target, moved) / (self._strength * strength + 1e-9)
        both = np.minimum(self._strength, strength)
        weight = np.maximum(agreement, 0) ** 2 * both / both.sum()
        difference = gain * moved - self._target
        along_x, along_y = self._along
        xx, xy, yy = (square * weight for square in self._squares)
        left = along_x @ (xx * along_x + xy * along_y).T + along_y @ (xy * along_x + yy * along_y).T
        x, y = (_dot(slope, difference) * weight for slope in self._slopes)
        return left.astype(np.float64), (along_x @ x + along_y @ y).astype(np.float64)


def _normalising(width: int, height: int) -> np.ndarray:
    """Working pixels to coordinates of about one, which keep the equations well conditioned."""
    half = max(width, height) / 2
    return np.array(
        [[1 / half, 0, -(width - 1) / 2 / half], [0, 1 / half, -(height - 1) / 2 / half], [0, 0, 1]]
    )


def _channels(maps: np.ndarray) -> np.ndarray:
    """`(N, 4)` as `(4, N)`, over which sums are several times as fast."""
    return np.ascontiguousarray(maps.T)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums of products of two `(4, N)`."""
    result: np.ndarray = np.einsum("ij,ij->j", a, b)
    return result


def halves(view: Frame, parameters: int) -> list[np.ndarray]:
    """`improve` on the edges in the white squares of a chessboard alone, and on those in the black ones.

    How far the two lie apart tells how well the edges determine the place.
    """
    height, width = view.ir.shape[:2]
    rows, columns = (np.arange(side) * _SQUARES // max(height, width) for side in (height, width))
    white = np.add.outer(rows, columns) % 2 == 0
    return [improve([view], parameters, within=squares) for squares in (white, ~white)]


def correlation(view: Frame) -> tuple[float, float]:
    """How well the edges agree where both pictures show something.

    Returns:
        The normalised correlation in [-1, 1], and the share of the infrared frame that it rests on.
    """
    ir = view.ir * view.seen[:, :, None]
    share = float(view.seen.mean())
    energy = float(np.vdot(ir, ir)) * float(np.vdot(view.vis, view.vis))
    return (float(np.vdot(ir, view.vis)) / energy**0.5 if energy > 0 else 0.0), share


def _basis(x: np.ndarray, y: np.ndarray, parameters: int) -> tuple[np.ndarray, np.ndarray]:
    """How each parameter moves points: `(parameters, N)` along x and along y."""
    one, zero = np.ones_like(x), np.zeros_like(x)
    if parameters == ZOOM:
        return np.stack([x, one, zero]), np.stack([y, zero, one])
    if parameters == SIMILARITY:
        return np.stack([x, -y, one, zero]), np.stack([y, x, zero, one])
    along_x = [x, y, one, zero, zero, zero, -x * x, -x * y]
    along_y = [zero, zero, zero, x, y, one, -x * y, -y * y]
    return np.stack(along_x), np.stack(along_y)


def _matrix(change: np.ndarray, parameters: int) -> np.ndarray:
    matrix = np.eye(3)
    if parameters == ZOOM:
        change = np.insert(change, 1, 0)
    if parameters <= SIMILARITY:
        a, b, x, y = change
        matrix[:2] += [[a, -b, x], [b, a, y]]
    else:
        matrix[:2] += change[:6].reshape(2, 3)
        matrix[2, :2] = change[6:]
    return matrix
