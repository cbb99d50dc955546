"""People and animals, as bodies of softly joined capsules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from street.casting import Implicit, Surface
from street.mathematics import Array, capsule, fractal


@dataclass(frozen=True)
class Part:
    """A limb: a capsule with its temperature and colour."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    first: float
    second: float
    temperature: float
    color: tuple[float, float, float]


class Figure(Implicit):
    """A body of softly joined capsules: a person or a dog."""

    JOIN = 0.035

    def __init__(
        self, parts: list[Part], position: tuple[float, float, float], turn: float, scale: float
    ) -> None:
        self.parts, self.scale = parts, scale
        self.ends = np.array([[p.start for p in parts], [p.end for p in parts]], np.float32).swapaxes(1, 2)
        self.radii = np.array([[p.first for p in parts], [p.second for p in parts]], np.float32)[..., None]
        low, high, thick = self.ends.min((0, 2)), self.ends.max((0, 2)), self.radii.max()
        super().__init__(position, turn, scale * (low - thick), scale * (high + thick))

    def gaps(self, local: Array) -> Array:
        """Distance to each part, `(parts, N)`."""
        return capsule(local[:, None] / self.scale, *self.ends, *self.radii)

    def distance(self, local: Array) -> Array:
        """Smooth union of the parts."""
        gaps = self.gaps(local)
        least = gaps.min(0)
        blend = np.log(np.exp((least - gaps) / (self.JOIN / 2)).sum(0))
        return self.scale * (least - blend * self.JOIN / 2 * 0.6)

    def surface(self, points: Array, normal: Array, footprint: Array) -> Surface:
        """Temperature and colour run softly from part to part; edges look cooler, folds warmer."""
        local = self.to_local(points)
        gaps = self.gaps(local)
        near = np.exp((gaps.min(0) - gaps) / 0.02)
        near /= near.sum(0)
        warmth = np.tensordot(np.array([p.temperature for p in self.parts], np.float32), near, 1)
        soft = fractal(local[0] + local[2], local[1], 0.25, 3, footprint)
        warmth = warmth + 3.0 * soft - 2.6 * (1 - np.abs(normal[2])) ** 2
        color = np.tensordot(np.array([p.color for p in self.parts], np.float32).T, near, 1)
        cloth = 1 + 0.35 * fractal(local[0] * 2, local[1], 0.12, 3, footprint)
        return Surface((color * cloth).astype(np.float32), warmth.astype(np.float32), 0.0, 0.02, 0.8)


SKIN, HAIR = (0.30, 0.19, 0.14), (0.02, 0.015, 0.01)


def person_parts(
    coat: tuple[float, float, float],
    trousers: tuple[float, float, float],
    stride: float,
    warmth: float = 0.0,
    pack: bool = False,
) -> list[Part]:
    """A walking grown-up of 1.75 m; `stride` is how far the feet are apart, in metres."""
    parts = [
        Part((0, 1.60, 0.02), (0, 1.66, 0.02), 0.070, 0.080, 30.5 + warmth, SKIN),
        Part((0, 1.675, -0.02), (0, 1.67, -0.03), 0.078, 0.078, 23.0 + warmth, HAIR),
        Part((0, 1.42, 0), (0, 1.56, 0.01), 0.060, 0.052, 30.5 + warmth, SKIN),
        Part((-0.13, 1.40, 0), (0.13, 1.40, 0), 0.085, 0.085, 20.5 + warmth, coat),
        Part((0, 1.30, 0), (0, 1.00, 0), 0.155, 0.140, 21.0 + warmth, coat),
        Part((0, 1.00, 0), (0, 0.82, 0), 0.150, 0.155, 18.0 + warmth, coat),
    ]
    if pack:
        parts.append(Part((0, 1.34, -0.19), (0, 1.06, -0.20), 0.105, 0.125, 9.5, (0.03, 0.02, 0.02)))
    for side in (-1, 1):
        step = side * stride / 2
        knee_lift = 0.10 if step < 0 else 0.03
        hip, knee = (side * 0.085, 0.90, 0.0), (side * 0.095, 0.49, step * 0.55 + knee_lift)
        ankle = (side * 0.095, 0.09, step)
        parts.append(Part(hip, knee, 0.095, 0.068, 19.5 + warmth, trousers))
        parts.append(Part(knee, ankle, 0.066, 0.045, 17.0 + warmth, trousers))
        toe = (ankle[0], 0.045, ankle[2] + 0.17)
        parts.append(Part((ankle[0], 0.06, ankle[2]), toe, 0.05, 0.04, 15.5, (0.02, 0.02, 0.02)))
        elbow, hand = (side * 0.265, 1.13, -step * 0.35), (side * 0.25, 0.90, -step * 0.55 + 0.12)
        parts.append(Part((side * 0.20, 1.40, 0), elbow, 0.068, 0.055, 19.5 + warmth, coat))
        parts.append(Part(elbow, hand, 0.054, 0.042, 18.5 + warmth, coat))
        palm = (hand[0], hand[1] - 0.10, hand[2] + 0.02)
        parts.append(Part(hand, palm, 0.040, 0.034, 28.5 + warmth, SKIN))
    return parts


def dog_parts() -> list[Part]:
    """A middle-sized dog that looks along z."""
    fur = (0.05, 0.035, 0.02)
    parts = [
        Part((0, 0.46, -0.28), (0, 0.48, 0.22), 0.105, 0.125, 20.0, fur),
        Part((0, 0.52, 0.26), (0, 0.66, 0.40), 0.085, 0.075, 17.5, fur),
        Part((0, 0.69, 0.42), (0, 0.66, 0.56), 0.078, 0.042, 26.0, fur),
        Part((0, 0.50, -0.34), (0, 0.68, -0.52), 0.030, 0.018, 15.0, fur),
    ]
    for side in (-1, 1):
        for z, lean in ((0.22, 0.05), (-0.28, -0.07)):
            foot = (side * 0.075, 0.03, z + side * lean)
            parts.append(Part((side * 0.07, 0.42, z), foot, 0.055, 0.030, 17.5, fur))
    return parts
