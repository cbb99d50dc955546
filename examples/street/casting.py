"""A pinhole camera, the G-buffer that it fills, and the kinds of bodies that rays can meet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from street.mathematics import Array, chunks, dot, length, normalized, vector

Window = tuple[slice, slice]

EYE_HEIGHT = 1.65
FOCAL_PER_WIDTH = 1.06  # a horizontal field of view of about 50 degrees


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along z. `mirrored` puts it under the road, to see the reflection in it."""

    width: int
    height: int
    mirrored: bool = False

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return FOCAL_PER_WIDTH * self.width

    @property
    def centre(self) -> tuple[float, float]:
        """The vanishing point of the street, in pixels."""
        return 0.535 * self.width, 0.465 * self.height

    @property
    def eye(self) -> Array:
        """Position in the world."""
        return vector(0, -EYE_HEIGHT if self.mirrored else EYE_HEIGHT, 0)

    def rays(self, window: Window) -> Array:
        """Ray directions `(3, h, w)` with z = 1, so that the ray parameter is the depth in metres."""
        rows, cols = window
        cx, cy = self.centre
        x = (np.arange(cols.start, cols.stop, dtype=np.float32) + 0.5 - cx) / self.focal
        y = (cy - np.arange(rows.start, rows.stop, dtype=np.float32) - 0.5) / self.focal
        y = -y if self.mirrored else y
        grid_x, grid_y = np.broadcast_to(x, (y.size, x.size)), np.broadcast_to(y[:, None], (y.size, x.size))
        return np.stack([grid_x, grid_y, np.ones_like(grid_x)])

    def project(self, points: Array) -> Array:
        """World points `(3, N)` to pixel coordinates `(2, N)`."""
        offset = points - self.eye[:, None]
        depth = np.maximum(offset[2], 0.3)
        up = -offset[1] if self.mirrored else offset[1]
        cx, cy = self.centre
        return np.stack([cx + self.focal * offset[0] / depth, cy - self.focal * up / depth])

    def window_of(self, low: Array, high: Array) -> Window:
        """The part of the picture that a box in the world can cover."""
        choices = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1)
        x, y = self.project(np.where(choices, high[:, None], low[:, None]))
        rows = slice(int(np.clip(y.min() - 1, 0, self.height)), int(np.clip(y.max() + 2, 0, self.height)))
        cols = slice(int(np.clip(x.min() - 1, 0, self.width)), int(np.clip(x.max() + 2, 0, self.width)))
        return rows, cols


@dataclass
class Surface:
    """What the two cameras need to know of N surface points; a plain number stands for all of them."""

    albedo: Array  # (3, N)
    temperature: Array  # (N,)
    emission: Any = 0.0  # (3, N)
    specular: Any = 0.03  # reflectance at normal incidence
    roughness: Any = 0.6
    wetness: Any = 0.0  # share of mirror reflection; for the road alone


@dataclass
class GBuffer:
    """The nearest surface in each pixel; depth is infinite where the sky is."""

    camera: Camera
    depth: Array = field(init=False)
    normal: Array = field(init=False)
    albedo: Array = field(init=False)
    emission: Array = field(init=False)
    temperature: Array = field(init=False)
    specular: Array = field(init=False)
    roughness: Array = field(init=False)
    wetness: Array = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.camera.height, self.camera.width)
        self.depth = np.full(shape, np.inf, np.float32)
        self.normal, self.albedo, self.emission = (np.zeros((3, *shape), np.float32) for _ in range(3))
        self.temperature, self.specular, self.roughness, self.wetness = (
            np.zeros(shape, np.float32) for _ in range(4)
        )

    def draw(self, thing: Solid) -> None:
        """Adds one object, where it is nearer than what is there."""
        window = self.camera.window_of(*thing.bounds)
        if window[0].stop <= window[0].start or window[1].stop <= window[1].start:
            return
        directions = self.camera.rays(window)
        depth, normal = thing.intersect(self.camera, window, directions)
        hit = depth < self.depth[window]
        if not hit.any():
            return
        rows, cols = np.nonzero(hit)
        for part in chunks(rows.size):
            r, c = rows[part], cols[part]
            at, along, facing = depth[r, c], directions[:, r, c], normal[:, r, c]
            surface = thing.surface(self.camera.eye[:, None] + at * along, facing, at / self.camera.focal)
            r, c = r + window[0].start, c + window[1].start
            self.depth[r, c] = at
            self.normal[:, r, c], self.albedo[:, r, c] = facing, surface.albedo
            self.emission[:, r, c], self.temperature[r, c] = surface.emission, surface.temperature
            self.specular[r, c], self.roughness[r, c] = surface.specular, surface.roughness
            self.wetness[r, c] = surface.wetness


class Solid:
    """Anything that can be drawn: `bounds`, where rays meet it, and what is there."""

    bounds: tuple[Array, Array]

    def intersect(self, camera: Camera, window: Window, directions: Array) -> tuple[Array, Array]:
        """Depth `(h, w)` (infinite where missed) and normal `(3, h, w)` for the rays of the window."""
        raise NotImplementedError

    def surface(self, points: Array, normal: Array, footprint: Array) -> Surface:
        """Material at hit points `(3, N)`; `footprint` is the width of a pixel there, in metres."""
        raise NotImplementedError


class Convex(Solid):
    """A convex body: the space behind a set of planes `normal . p = offset`."""

    def __init__(self, low: Array, high: Array, extra: list[tuple[Array, float]] | None = None) -> None:
        axes = np.eye(3, dtype=np.float32)
        self.bounds = (low, high)
        self.planes = [(axes[i], float(high[i])) for i in range(3)]
        self.planes += [(-axes[i], float(-low[i])) for i in range(3)] + (extra or [])

    def intersect(self, camera: Camera, window: Window, directions: Array) -> tuple[Array, Array]:
        """Slab test against every plane."""
        enter = np.full(directions.shape[1:], 0.05, np.float32)
        leave = np.full_like(enter, np.inf)
        face = np.full(enter.shape, -1, np.int32)
        for index, (n, offset) in enumerate(self.planes):
            speed = dot(n, directions)
            gap = offset - float(n @ camera.eye)
            with np.errstate(divide="ignore", invalid="ignore"):
                at = gap / speed
            inward, outward = speed < -1e-9, speed > 1e-9
            nearer = inward & (at > enter)
            enter[nearer], face[nearer] = at[nearer], index
            leave = np.where(outward, np.minimum(leave, at), leave)
            if gap < 0:
                leave[~inward & ~outward] = -1
        depth = np.where((enter < leave) & (face >= 0), enter, np.inf).astype(np.float32)
        return depth, np.stack([n for n, _ in self.planes])[face].transpose(2, 0, 1)


class Implicit(Solid):
    """A body given by a signed distance in its own frame, found by sphere tracing."""

    def __init__(self, position: tuple[float, float, float], turn: float, low: Array, high: Array) -> None:
        self.position = vector(*position)
        self.cos, self.sin = float(np.cos(turn)), float(np.sin(turn))
        corners = np.array(np.meshgrid(*zip(low, high, strict=True)), np.float32).reshape(3, -1)
        around = self.to_world(corners)
        self.bounds = (around.min(1), around.max(1))

    def to_world(self, local: Array) -> Array:
        """Own frame to world."""
        x, y, z = local
        return (
            np.stack([self.cos * x + self.sin * z, y, self.cos * z - self.sin * x]) + self.position[:, None]
        )

    def move(self, ahead: float) -> None:
        """Moves it in the direction of its own z, in metres."""
        step = ahead * vector(self.sin, 0, self.cos)
        self.position = self.position + step
        self.bounds = (self.bounds[0] + step, self.bounds[1] + step)

    def to_local(self, points: Array) -> Array:
        """World to own frame."""
        x, y, z = points - self.position[:, None]
        return np.stack([self.cos * x - self.sin * z, y, self.cos * z + self.sin * x])

    def distance(self, local: Array) -> Array:
        """Signed distance of points `(3, N)` in the own frame, in metres."""
        raise NotImplementedError

    def intersect(self, camera: Camera, window: Window, directions: Array) -> tuple[Array, Array]:
        """Sphere tracing from the bounding box inwards; rays that have arrived or left drop out."""
        box_depth, _ = Convex(*self.bounds).intersect(camera, window, directions)
        depth = np.full(box_depth.shape, np.inf, np.float32)
        normal = np.zeros_like(directions)
        index = np.flatnonzero(np.isfinite(box_depth))
        if not index.size:
            return depth, normal
        d = directions.reshape(3, -1)[:, index]
        speed = length(d)
        t = box_depth.reshape(-1)[index]
        last = float(self.bounds[1][2]) + 0.05
        alive = np.arange(index.size)
        arrived = np.zeros(index.size, bool)
        for _ in range(70):
            gap = self.distance(self.to_local(camera.eye[:, None] + t[alive] * d[:, alive]))
            t[alive] += 0.92 * gap / speed[alive]
            close = gap < 0.0015 + 0.0002 * t[alive]
            arrived[alive[close]] = True
            alive = alive[~close & (t[alive] < last)]
            if not alive.size:
                break
        hits = np.flatnonzero(arrived)
        depth.reshape(-1)[index[hits]] = t[hits]
        points = self.to_local(camera.eye[:, None] + t[hits] * d[:, hits])
        slope = np.zeros_like(points)
        for corner in vector(1, -1, -1), vector(-1, -1, 1), vector(-1, 1, -1), vector(1, 1, 1):
            slope += corner[:, None] * self.distance(points + 0.006 * corner[:, None])
        x, y, z = normalized(slope)
        turned = np.stack([self.cos * x + self.sin * z, y, self.cos * z - self.sin * x])
        normal.reshape(3, -1)[:, index[hits]] = turned
        return depth, normal
