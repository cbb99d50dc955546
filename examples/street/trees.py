"""Tree crowns of some thousand leaf clumps."""

from __future__ import annotations

import cv2
import numpy as np

from street.casting import Camera, Solid, Surface, Window
from street.mathematics import Array, hashed, length, normalized


class Foliage(Solid):
    """A crown of some thousand leaf clumps, drawn from far to near."""

    def __init__(
        self, centre: Array, radii: Array, leaves: int, size: float, rng: np.random.Generator
    ) -> None:
        boughs = rng.normal(size=(3, 80)).astype(np.float32)
        boughs = boughs / np.sqrt((boughs**2).sum(0)) * rng.uniform(0.35, 0.95, 80).astype(np.float32)
        home = rng.integers(0, 80, leaves)
        spread = rng.normal(scale=0.13, size=(3, leaves)).astype(np.float32)
        unit = boughs[:, home] + spread
        self.at = centre[:, None] + radii[:, None] * unit
        order = np.argsort(-self.at[2])
        self.at, unit, spread = self.at[:, order], unit[:, order], spread[:, order]
        outward = normalized(unit * 0.6 + spread * 3.0)
        self.lean = normalized(outward + 0.55 * rng.normal(size=unit.shape).astype(np.float32))
        self.size = (size * rng.uniform(0.55, 1.35, leaves)).astype(np.float32)
        self.turn = rng.uniform(0, np.pi, leaves).astype(np.float32)
        self.deep = np.clip(1.25 - length(unit), 0, 1)
        tint = rng.uniform(0.6, 1.3, leaves).astype(np.float32)
        autumn = (rng.random(leaves) < 0.12).astype(np.float32)
        self.color = np.stack([0.055 + 0.07 * autumn, 0.085 + 0.03 * autumn, 0.022 + 0 * tint]) * tint
        self.warm = (1.2 + 1.7 * self.deep + rng.normal(scale=0.5, size=leaves)).astype(np.float32)
        self.bounds = (self.at.min(1) - size, self.at.max(1) + size)
        self.nearest = np.empty(0, np.int32)

    def intersect(self, camera: Camera, window: Window, directions: Array) -> tuple[Array, Array]:
        """Paints leaf numbers with the polygon filler, then looks depth and normal up."""
        rows, cols = window
        picture = np.full((rows.stop - rows.start, cols.stop - cols.start), -1, np.int32)
        middle = camera.project(self.at) - np.array([[cols.start], [rows.start]], np.float32)
        reach = camera.focal * self.size / self.at[2]
        angle = np.linspace(0, 2 * np.pi, 8, dtype=np.float32)[None, :-1]
        ragged = 0.55 + 0.6 * hashed(np.arange(reach.size)[:, None], np.arange(7)[None])
        across, along = np.cos(angle) * ragged, np.sin(angle) * ragged * (0.4 + 0.5 * np.abs(self.lean[2:].T))
        cos, sin = np.cos(self.turn)[:, None], np.sin(self.turn)[:, None]
        offset = np.stack([across * cos - along * sin, across * sin + along * cos], -1)
        polygons = middle.T[:, None] + reach[:, None, None] * offset
        polygons = np.round(polygons * 16).astype(np.int32)
        for leaf, polygon in enumerate(polygons):
            cv2.fillConvexPoly(picture, polygon, leaf, cv2.LINE_8, 4)
        hit = picture >= 0
        depth = np.where(hit, self.at[2][picture], np.inf).astype(np.float32)
        # `surface` is asked next, for a subset of these pixels in order: the leaf is found by its depth
        return depth, self.lean[:, np.where(hit, picture, 0)]

    def surface(self, points: Array, normal: Array, footprint: Array) -> Surface:
        """Colour and warmth of the leaf that was hit."""
        falling = self.at[2]
        leaf = np.clip(
            falling.size - np.searchsorted(falling[::-1], points[2] - 1e-5) - 1, 0, falling.size - 1
        )
        color = self.color[:, leaf] * (1 - 0.6 * self.deep[leaf])
        return Surface(color.astype(np.float32), self.warm[leaf], 0.0, 0.02, 0.75)
