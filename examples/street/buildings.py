"""Houses with shops and lit windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from street.casting import Convex, Surface
from street.conditions import Conditions
from street.mathematics import (
    Array,
    column,
    coverage,
    fractal,
    hashed,
    normalized,
    sample,
    smoothstep,
    text_mask,
    vector,
)


@dataclass(frozen=True)
class House:
    """A house of a row: `side` -1 or +1 of the street, from `near` to `far`, with its colours."""

    side: int
    near: float
    far: float
    floors: int
    brick: tuple[float, float, float]
    mortar: float
    shop: str = ""
    setback: float = 0.0

    @property
    def front(self) -> float:
        """Where the wall along the street stands (x)."""
        return self.side * ((8.2 if self.side > 0 else 9.2) + self.setback)

    @property
    def length(self) -> float:
        """Length along the street."""
        return self.far - self.near


class Building(Convex):
    """A house with brick walls, windows with people at home behind some of them, and a tiled roof."""

    FLOOR = 3.15
    BASE = 3.7

    def __init__(self, house: House, key: int, conditions: Conditions) -> None:
        self.house, self.key, self.conditions = house, key, conditions
        self.eaves = self.BASE + self.FLOOR * (house.floors - 1) + 0.5
        xs = sorted((house.front, house.front + house.side * 11))
        slope = normalized(vector(-house.side * 0.75, 1.0, 0))
        foot = vector(house.front, self.eaves, 0)
        super().__init__(
            vector(xs[0], 0, house.near),
            vector(xs[1], self.eaves + 3.4, house.far),
            [(slope, float(slope @ foot))],
        )
        self.board = text_mask(house.shop, 80, 22) if house.shop else None

    def wall(self, along: Array, y: Array, footprint: Array) -> Array:
        """Brick colour `(3, N)` from the position on the wall, in metres."""
        tall, long, gap = 0.085, 0.25, 0.014
        row = np.floor(y / tall)
        shifted = along + 0.5 * long * np.mod(row, 2)
        inside = coverage(np.mod(y, tall), gap / 2, tall - gap / 2, footprint)
        inside *= coverage(np.mod(shifted, long), gap / 2, long - gap / 2, footprint)
        inside = np.where(footprint < 0.06, inside, 0.8)
        fade = np.clip(0.12 / np.maximum(footprint, 1e-6) - 1, 0, 1)
        tint = (hashed(np.floor(shifted / long), row, self.key) - 0.5) * fade
        stain = fractal(along, y, 2.4, 5, footprint)
        tone = (1 + 0.55 * tint + 0.38 * stain) * inside
        return column(self.house.brick) * tone + self.house.mortar * (1 - inside)

    def surface(self, points: Array, normal: Array, footprint: Array) -> Surface:
        """Roof, end wall or street front, by the normal."""
        x, y, z = points
        front = np.abs(normal[0]) > 0.9
        roof = normal[1] > 0.3
        along = np.where(front, z, x)
        stretch = footprint / np.maximum(np.abs(normal[0] * 0.35), 0.12)
        albedo = self.wall(along, y, np.where(front, np.minimum(stretch, footprint * 3), footprint))
        emission = np.zeros_like(albedo)
        specular = np.full(x.shape, 0.02, np.float32)
        roughness = np.full(x.shape, 0.8, np.float32)
        warmth = 6.6 + 4.2 * hashed(np.float32(self.key), np.float32(5)) + 1.2 * fractal(along, y, 3.0, 4)
        warmth += 2.2 * np.exp(-y / 1.5) - 1.6 * smoothstep(0.3, 1.0, y / self.eaves)
        warmth += 1.2 * (np.abs(np.mod(y - self.BASE + 0.2, self.FLOOR)) < 0.4)

        tiles = 0.5 + 0.5 * np.sin(np.hypot(np.abs(x) - 8, y) * 22)
        tone = 0.05 + 0.02 * tiles * (footprint < 0.05) + 0.02 * fractal(x, z, 0.6, 4, footprint)
        albedo = np.where(roof, column((1.0, 0.72, 0.62)) * tone, albedo)
        warmth = np.where(roof, 0.5 + 1.5 * fractal(x, z, 2.0, 3), warmth)
        warmth += self.conditions.sun_warmth * np.where(roof, 2.2, 0.7)

        trim = front & (np.abs(y - self.eaves + 0.18) < 0.16)
        trim |= front & (np.abs(y - self.BASE + 0.25) < 0.11)
        albedo = np.where(trim, 0.30, albedo)
        warmth = np.where(trim, warmth - 1.2, warmth)
        surface = Surface(albedo.astype(np.float32), warmth, emission, specular, roughness)
        if front.any():
            self.add_openings(surface, front & ~trim, z - self.house.near, y, footprint)
        if self.board is not None:
            self.add_board(surface, self.board, front, z - self.house.near, y)
        return surface

    def add_openings(
        self, surface: Surface, front: NDArray[np.bool_], along: Array, y: Array, footprint: Array
    ) -> None:
        """Writes windows and the shop front into the surface of the wall along the street."""
        pitch = self.house.length / max(2, round(self.house.length / 2.5))
        bay, level = np.floor(along / pitch), np.floor((y - self.BASE) / self.FLOOR)
        u, v = along - (bay + 0.5) * pitch, y - self.BASE - level * self.FLOOR
        shop = bool(self.house.shop)
        upper = (level >= 0) & (level < self.house.floors - 1)
        ground = level < 0
        v = np.where(ground, y, v)
        half = np.where(ground, 0.42 * pitch if shop else 0.52, 0.56)
        sill = np.where(ground, 0.55 if shop else 1.0, 0.75)
        head = np.where(ground, 2.75 if shop else 2.5, 2.5)
        opening = front & (upper | ground) & (np.abs(u) < half) & (v > sill) & (v < head)
        surround = (
            front & (upper | ground) & (np.abs(u) < half + 0.13) & (v > sill - 0.14) & (v < head + 0.14)
        )
        surround &= ~opening
        surface.albedo[:, surround] = 0.30
        surface.temperature[surround] += 1.3

        bar = (np.abs(u) < 0.035) | (half - np.abs(u) < 0.07) | (v - sill < 0.07) | (head - v < 0.07)
        bar |= np.abs(v - (sill + 0.68 * (head - sill))) < 0.03
        if shop:
            bar = np.where(ground, (half - np.abs(u) < 0.06) | (v - sill < 0.06) | (head - v < 0.06), bar)
        frame, glass = opening & bar, opening & ~bar
        surface.albedo[:, frame] = 0.35
        luck = hashed(bay, level + 1, np.float32(self.key))
        lit = (luck < self.conditions.lit_windows) | (ground & shop & (self.conditions.lit_windows > 0))
        mood = hashed(bay, level + 1, np.float32(self.key + 100))
        folds = 0.82 + 0.18 * np.sin(u * 34 + 9 * luck)
        drawn = smoothstep(0.0, 0.08, np.abs(u) - half * (0.35 + 0.5 * mood))
        height = np.clip((v - sill) / (head - sill), 0, 1)
        inside = 0.35 + 0.65 * height**1.5 + 0.5 * np.exp(-(((u - 0.2) ** 2) + (height - 0.8) ** 2) / 0.05)
        inside = inside * (1 - drawn) + drawn * 0.62 * folds
        clutter = smoothstep(0.05, 0.3, fractal(along, y, 0.7, 3, footprint) - 0.55 * height + 0.15)
        inside *= 1 - 0.65 * clutter * (1 - drawn)
        warm = np.stack([np.ones_like(mood), 0.50 + 0.26 * mood, 0.13 + 0.45 * mood**2])
        if shop:
            shelves = 0.75 + 0.25 * (np.abs(np.mod(y, 0.55) - 0.27) > 0.05)
            goods = 0.30 + 0.70 * hashed(np.floor(along / 0.22), np.floor(y / 0.55), np.float32(self.key))
            inside = np.where(ground, (0.75 + 0.5 * height) * shelves * goods, inside)
        power = self.conditions.window_light * (0.35 + 0.75 * luck / max(self.conditions.lit_windows, 1e-3))
        power = np.where(ground & shop, 0.62 * self.conditions.window_light, power)
        shine = glass & lit
        surface.emission[:, shine] = (warm * inside * power)[:, shine]
        surface.albedo[:, glass] = 0.02
        surface.specular[glass], surface.roughness[glass] = 0.06, 0.12

        home = hashed(bay, level + 1, np.float32(self.key + 7))
        surface.temperature[glass] = (8.6 + 4.0 * home + 2.0 * (1 - height) + 3.5 * lit)[glass]
        surface.temperature[frame] = 8.0
        heater = np.exp(-((u / 0.5) ** 2) - (((v - sill + 0.45) / 0.28) ** 2)) * (home > 0.35)
        surface.temperature += np.where(front & (upper | (ground & ~shop)), 4.2 * heater, 0)

    def add_board(
        self, surface: Surface, board: Array, front: NDArray[np.bool_], along: Array, y: Array
    ) -> None:
        """Writes the name of the shop over its windows, in lit letters."""
        back = front & (y > 2.85) & (y < 3.4)
        surface.albedo[:, back] = column((0.02, 0.03, 0.05))
        width = 0.75 * board.shape[1] / board.shape[0]
        u = (along - self.house.length / 2) / width + 0.5
        letters = sample(board, u if self.house.side < 0 else 1 - u, (3.33 - y) / 0.42)
        letters *= back & (np.abs(u - 0.5) < 0.5) & (np.abs(y - 3.12) < 0.21)
        power = 1.3 * min(1.0, self.conditions.lit_windows * 3)
        surface.emission += column((0.9, 0.75, 0.45)) * letters * power


class Chimney(Convex):
    """A chimney: small and, to the thermal camera, warm."""

    def __init__(self, x: float, y: float, z: float) -> None:
        super().__init__(vector(x - 0.45, y, z - 0.4), vector(x + 0.45, y + 1.7, z + 0.4))
        self.top = y + 1.7

    def surface(self, points: Array, normal: Array, footprint: Array) -> Surface:
        """Plain dark brick, hottest at the top."""
        tone = 0.10 + 0.03 * fractal(points[0] + points[2], points[1], 0.3, 3, footprint)
        return Surface(column((1.0, 0.7, 0.55)) * tone, 12 + 9 * np.exp((points[1] - self.top) / 0.6))
