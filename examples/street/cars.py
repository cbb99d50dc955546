"""Cars, carved from a side, a front and a top outline."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from street.casting import Implicit, Surface
from street.conditions import Conditions
from street.mathematics import Array, column, fractal, sample, smoothstep, vector

# the outline seen from the side: z and y of its corners, from the lower front over the roof to the lower back
CAR_SIDES = {
    "hatch": (
        (2.05, 2.10, 1.92, 1.02, 0.28, -0.25, -1.25, -1.80, -2.02, -2.06, -1.98),
        (0.26, 0.58, 0.80, 0.99, 1.42, 1.49, 1.44, 1.02, 0.92, 0.50, 0.27),
    ),
    "saloon": (
        (2.22, 2.28, 2.08, 1.10, 0.36, -0.20, -0.85, -1.55, -2.22, -2.30, -2.20),
        (0.25, 0.56, 0.76, 0.95, 1.36, 1.43, 1.38, 1.02, 0.96, 0.58, 0.27),
    ),
    "van": (
        (2.20, 2.26, 2.05, 1.55, 0.95, 0.40, -2.15, -2.28, -2.30, -2.22),
        (0.28, 0.70, 0.98, 1.12, 1.78, 1.90, 1.90, 1.70, 0.55, 0.30),
    ),
}
BODY, GLASS, HEADLAMP, TAILLAMP, BLACK, PLATE = range(6)


@dataclass(frozen=True)
class CarState:
    """How a car looks and how long its engine has been running."""

    kind: str
    x: float
    z: float
    away: bool  # drives or stands with its back to the camera
    paint: tuple[float, float, float]
    engine: float  # degrees over the air at the bonnet
    lights: bool = False


class Car(Implicit):
    """A car: the common part of a side, a front and a top outline, with wheels."""

    CELL = 0.01

    def __init__(self, state: CarState, conditions: Conditions) -> None:
        self.state, self.conditions = state, conditions
        side = list(zip(*CAR_SIDES[state.kind], strict=True))
        self.top = max(y for _, y in side)
        self.nose, self.tail = max(z for z, _ in side), min(z for z, _ in side)
        belt = 0.98 if state.kind != "van" else 1.12
        half = [(0.76, 0.22), (0.87, 0.50), (0.88, 0.75), (0.84, belt), (0.64, self.top - 0.08)]
        half += [(0.48, self.top + 0.01)]
        outline = [(self.nose + 0.01, 0.58), (self.nose - 0.14, 0.76), (self.nose - 0.6, 0.87), (0.0, 0.89)]
        outline += [(self.tail + 0.5, 0.87), (self.tail + 0.1, 0.78), (self.tail - 0.01, 0.62)]
        self.side_table = self.outline_table(side, 4)
        self.front_table = self.outline_table(half + [(-x, y) for x, y in reversed(half)], 5)
        self.plan_table = self.outline_table(outline + [(z, -x) for z, x in reversed(outline)], 6)
        self.belt = belt
        self.labels = self.draw_labels()
        super().__init__(
            (state.x, 0, state.z),
            0.0 if state.away else np.pi,
            vector(-1.04, 0, self.tail - 0.05),
            vector(1.04, self.top + 0.03, self.nose + 0.05),
        )

    def outline_table(self, outline: list[tuple[float, float]], rounding: float) -> Array:
        """Signed distance to a closed outline on a grid of 1 cm over -3..3 m; smoothing rounds corners."""
        cells = int(6 / self.CELL)
        inside = np.zeros((cells, cells), np.uint8)
        corners = np.round((np.array(outline) + 3) / self.CELL * 16).astype(np.int32)
        cv2.fillPoly(inside, [corners], 255, cv2.LINE_8, 4)
        out = cv2.distanceTransform(255 - inside, cv2.DIST_L2, 5)
        deep = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
        return cv2.GaussianBlur((out - deep) * self.CELL, (0, 0), rounding)

    def look_up(self, table: Array, a: Array, b: Array) -> Array:
        """Bilinear value of a table at `a` (columns) and `b` (rows), in metres."""
        return sample(table, (a + 3) / 6, (b + 3) / 6)

    def draw_labels(self) -> dict[str, NDArray[np.uint8]]:
        """What is where on the side (z, y), front and back (x, y), in cells of 1 cm over -3..3 m."""
        views = {name: np.full((600, 600), BODY, np.uint8) for name in ("side", "front", "back")}

        def fill(view: str, label: int, *corners: tuple[float, float]) -> None:
            cv2.fillPoly(views[view], [np.round((np.array(corners) + 3) * 100).astype(np.int32)], label)

        b, t = self.belt, self.top - 0.10
        if self.state.kind == "van":
            fill("side", GLASS, (1.42, b + 0.04), (0.95, t - 0.06), (0.35, t - 0.06), (0.35, b + 0.04))
        else:
            back = -1.45 if self.state.kind == "hatch" else -1.15
            fill("side", GLASS, (0.88, b + 0.03), (0.30, t), (-0.20, t + 0.02), (-0.20, b + 0.03))
            fill(
                "side", GLASS, (-0.28, b + 0.03), (-0.28, t + 0.02), (back + 0.45, t - 0.02), (back, b + 0.06)
            )
        for z in (0.95, -0.24, -1.2):
            fill("side", BLACK, (z, 0.36), (z + 0.015, 0.36), (z + 0.015, b), (z, b))
        fill("side", BLACK, (self.nose, 0.18), (self.tail, 0.18), (self.tail, 0.30), (self.nose, 0.30))
        for view, roof in (("front", 0.56), ("back", 0.54)):
            fill(view, GLASS, (-0.74, b + 0.04), (-roof, t), (roof, t), (0.74, b + 0.04))
            fill(view, BLACK, (-0.9, 0.18), (-0.9, 0.34), (0.9, 0.34), (0.9, 0.18))
            fill(view, PLATE, (-0.26, 0.44), (-0.26, 0.55), (0.26, 0.55), (0.26, 0.44))
        fill("front", BLACK, (-0.45, 0.58), (-0.52, 0.70), (0.52, 0.70), (0.45, 0.58))
        for s in (-1, 1):
            fill("front", HEADLAMP, (s * 0.56, 0.60), (s * 0.58, 0.72), (s * 0.83, 0.75), (s * 0.82, 0.63))
            fill("back", TAILLAMP, (s * 0.60, 0.72), (s * 0.60, 0.86), (s * 0.86, 0.90), (s * 0.86, 0.72))
        return views

    def wheels(self, local: Array) -> tuple[Array, Array]:
        """Distance from the nearest wheel axis, and across position."""
        x, y, z = local
        z = np.abs(z - 0.03) - 1.30
        return np.hypot(z, y - 0.32), np.abs(x)

    def distance(self, local: Array) -> Array:
        """Body without wheel arches, and wheels."""
        x, y, z = local
        side = self.look_up(self.side_table, z, y)
        front = self.look_up(self.front_table, x, y)
        plan = self.look_up(self.plan_table, z, x)
        middle, high = np.sort(np.stack([side, front, plan]), axis=0)[1:]
        body = high + 0.042 * np.exp(-np.abs(high - middle) / 0.12)  # bevel where two outlines meet
        radial, across = self.wheels(local)
        body = np.maximum(body, -np.maximum(radial - 0.375, 0.60 - across))
        tyre = np.maximum(radial - 0.32, np.abs(across - 0.74) - 0.105)
        mirror = (
            np.sqrt((np.abs(x) - 0.95) ** 2 + ((y - self.belt - 0.05) * 1.3) ** 2 + (z - 0.78) ** 2) - 0.075
        )
        return np.minimum(np.minimum(body, tyre), mirror)

    def surface(self, points: Array, normal: Array, footprint: Array) -> Surface:
        """Paint, glass, lamps, tyres; heat of engine, tyres and exhaust."""
        local = self.to_local(points)
        x, y, z = local
        forward = normal[2] if self.state.away else -normal[2]
        cell = [np.clip((c + 3) / 6 * 600, 0, 599).astype(np.int32) for c in (x, y, z)]
        flank = np.abs(normal[0]) > 0.62
        label = np.where(
            forward > 0, self.labels["front"][cell[1], cell[0]], self.labels["back"][cell[1], cell[0]]
        )
        label = np.where(flank, self.labels["side"][cell[1], cell[2]], label)
        label = np.where(~flank & (normal[1] > 0.93), BODY, label)
        wrap = (np.abs(x) > 0.5) & (y > 0.6) & (y < 0.75) & (z > self.nose - 0.30) & (forward > 0.12)
        label = np.where(wrap & (label == BODY), HEADLAMP, label)
        radial, across = self.wheels(local)
        tyre = (radial < 0.335) & (across > 0.60)
        rim = tyre & (radial < 0.215)

        albedo = column(self.state.paint) * np.ones_like(points)
        specular, roughness = np.full(x.shape, 0.05, np.float32), np.full(x.shape, 0.22, np.float32)
        dirt = 0.75 + 0.25 * smoothstep(0.2, 0.7, y + 0.15 * fractal(z + x, y, 0.4, 3, footprint))
        albedo *= dirt
        albedo[:, label == GLASS] = 0.015
        specular[label == GLASS], roughness[label == GLASS] = 0.08, 0.08
        albedo[:, label == BLACK] = 0.02
        albedo[:, label == PLATE] = 0.55
        albedo[:, label == HEADLAMP] = 0.45
        albedo[:, label == TAILLAMP] = column((0.30, 0.01, 0.01))
        albedo[:, tyre] = 0.018
        spokes = np.abs(np.mod(np.arctan2(y - 0.32, np.abs(z - 0.03) - 1.3) * 5 / (2 * np.pi), 1) - 0.5) < 0.3
        albedo[:, rim] = np.where(spokes, 0.30, 0.03)[rim]
        specular[tyre & ~rim] = 0.02
        roughness[tyre] = 0.5

        emission = np.zeros_like(points)
        if self.state.lights:
            facing = np.clip(forward, 0, 1)
            lamp = self.conditions.headlights * 220 * facing
            emission += column((1.0, 0.95, 0.85)) * lamp * (label == HEADLAMP)
            emission += (
                column((3.2, 0.10, 0.05)) * min(1.0, 4 * self.conditions.headlights) * (label == TAILLAMP)
            )
            emission += 0.05 * (label == PLATE)
        return Surface(albedo, self.warmth(local, normal, label, tyre, rim), emission, specular, roughness)

    def warmth(
        self,
        local: Array,
        normal: Array,
        label: NDArray[np.integer],
        tyre: NDArray[np.bool_],
        rim: NDArray[np.bool_],
    ) -> Array:
        """Temperature: sheet metal mirrors the cold sky, the bonnet carries the heat of the engine."""
        x, y, z = local
        engine = self.state.engine
        metal = 7.2 - 6.0 * np.clip(normal[1], 0, 1) + 0.7 * fractal(z + x, y, 0.7, 3)
        over_engine = np.exp(-((x / 0.62) ** 2) - ((z - self.nose + 0.75) / 0.62) ** 2)
        metal += engine * over_engine * (0.55 + 0.45 * np.clip(normal[1] + 0.3, 0, 1))
        grille = np.exp(-((x / 0.55) ** 2) - ((y - 0.5) / 0.28) ** 2) * (z > self.nose - 0.35)
        metal += 0.75 * engine * grille
        warmth = np.where(label == GLASS, 2.6 + 0.12 * engine - 5.5 * np.clip(normal[1], 0, 1), metal)
        warmth = np.where(label == HEADLAMP, 9 + 0.9 * engine * self.state.lights, warmth)
        warmth = np.where(label == TAILLAMP, warmth + 0.25 * engine * self.state.lights, warmth)
        tread = smoothstep(0.285, 0.315, self.wheels(local)[0])
        warmth = np.where(tyre, 4.0 + 0.25 * engine + (2.0 + 0.5 * engine) * tread, warmth)
        warmth = np.where(rim, 5.0 + 0.85 * engine, warmth)
        exhaust = np.exp(-(((x - 0.42) / 0.10) ** 2) - (((y - 0.27) / 0.10) ** 2)) * (z < self.tail + 0.3)
        underside = np.exp(-((y / 0.30) ** 2)) * np.clip(1 - np.abs(normal[1]), 0, 1) * ~tyre
        warmth = warmth + 1.6 * engine * exhaust + 0.28 * engine * underside
        return (warmth + self.conditions.sun_warmth * np.clip(normal[1] + 0.3, 0, 1) * 1.6).astype(np.float32)
