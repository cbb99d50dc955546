"""From a rough place to an exact one: Gauss-Newton on the edge maps, in the frame of the infrared picture."""

from dataclasses import dataclass

import numpy as np

from diffmf_cli.alignment.edges import content, edges, turn
from diffmf_cli.alignment.geometry import resizing
from diffmf_cli.images.opencv import cv2

ZOOM, SIMILARITY, HOMOGRAPHY = 3, 4, 8  # parameters
_POINTS = 20000
_CONVERGED = 0.02  # pixels


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


def frame(ir: Template, vis: np.ndarray, matrix: np.ndarray) -> Frame:
    """Looks at both pictures on one grid.

    Args:
        ir: the infrared picture.
        vis: `(H, W)` float32.
        matrix: `(3, 3)`, infrared to visible pixels.
    """
    size = ir.edges.shape[1::-1]
    # Shrunk with averaging first: a warp alone would skip pixels.
    through = matrix @ ir.to_ir
    coarser = max(1.0, np.sqrt(abs(np.linalg.det(through[:2, :2]))))
    view = max(1, round(vis.shape[1] / coarser)), max(1, round(vis.shape[0] / coarser))
    field = cv2.resize(vis, view, interpolation=cv2.INTER_AREA)
    back = resizing(vis.shape[::-1], view) @ through
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpPerspective(_valid(field), back, size, flags=flags) > 0.99
    seen = cv2.erode(seen.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1).astype(np.float32)
    looked = cv2.warpPerspective(field, back, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return Frame(ir.edges, edges(looked, seen), seen, ir.to_ir, matrix)


def _valid(picture: np.ndarray) -> np.ndarray:
    mask = content(picture)
    return np.ones(picture.shape, np.float32) if mask is None else mask


def improve(view: Frame, parameters: int, steps: int = 10) -> np.ndarray:
    """Moves the visible edges onto the infrared ones.

    Inverse compositional Gauss-Newton (Baker and Matthews, IJCV 2004). A point counts by how well the edges
    there agree in direction, so that edges that only one camera sees do not pull.

    Args:
        view: the pictures.
        parameters: `ZOOM` (shift and scale), `SIMILARITY` or `HOMOGRAPHY`.
        steps: at most.

    Returns:
        The better matrix, `(3, 3)`, infrared to visible pixels.
    """
    height, width = view.ir.shape[:2]
    energy = cv2.transform(view.ir * view.ir, np.ones((1, 4), np.float32))
    least = np.partition(energy, -_POINTS, axis=None)[-_POINTS] if energy.size > _POINTS else 0
    rows, columns = np.nonzero(energy > least)
    if len(rows) < parameters:
        return view.matrix
    target = view.ir[rows, columns]
    # Coordinates of about one keep the equations well conditioned.
    half = max(width, height) / 2
    normal = np.array(
        [[1 / half, 0, -(width - 1) / 2 / half], [0, 1 / half, -(height - 1) / 2 / half], [0, 0, 1]]
    )
    slopes = [
        cv2.Sobel(view.ir, cv2.CV_32F, *order, scale=half / 8)[rows, columns] for order in ((1, 0), (0, 1))
    ]
    points = np.stack([columns, rows, np.ones_like(rows)]).astype(np.float32)
    x, y = (normal[:2] @ points).astype(np.float32)
    along_x, along_y = _basis(x, y, parameters)
    squares = [(slopes[i] * slopes[j]).sum(1) for i, j in ((0, 0), (0, 1), (1, 1))]
    strength = np.sqrt((target * target).sum(1))
    ends = np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1, 1, 1, 1]], np.float64)
    warp = np.eye(3)
    for _ in range(steps):
        there = warp.astype(np.float32) @ points
        there = there[:2] / there[2:]
        moved = cv2.remap(view.vis, there[0], there[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        angle = np.arctan2(warp[1, 0] - warp[0, 1], warp[0, 0] + warp[1, 1])
        moved = turn(moved.reshape(-1, 4), -angle)
        strength_there = np.sqrt((moved * moved).sum(1))
        present = strength_there > 0
        if not present.any():
            return view.matrix
        gain = np.linalg.norm(strength[present]) / np.linalg.norm(strength_there)
        agreement = (target * moved).sum(1) / (strength * strength_there + 1e-9)
        weight = np.maximum(agreement, 0) ** 2 * np.minimum(strength, strength_there)
        difference = (gain * moved - target) * weight[:, None]
        xx, xy, yy = ((square * weight)[:, None] for square in squares)
        normal_matrix = along_x @ (xx * along_x.T + xy * along_y.T) + along_y @ (
            xy * along_x.T + yy * along_y.T
        )
        pull = along_x @ (slopes[0] * difference).sum(1) + along_y @ (slopes[1] * difference).sum(1)
        damping = 1e-6 * np.trace(normal_matrix) + 1e-12
        change = np.linalg.solve(normal_matrix.astype(np.float64) + damping * np.eye(parameters), pull)
        step = np.linalg.inv(normal) @ _matrix(change, parameters) @ normal
        if not np.isfinite(step).all() or abs(np.linalg.det(step)) < 1e-3:
            return view.matrix
        warp = warp @ np.linalg.inv(step)
        warp /= warp[2, 2]
        shifted = step @ ends
        if np.abs(shifted[:2] / shifted[2:] - ends[:2]).max() < _CONVERGED:
            break
    matrix = view.matrix @ view.to_ir @ warp @ np.linalg.inv(view.to_ir)
    return matrix / matrix[2, 2]


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
