"""Road and pavements."""

from __future__ import annotations

import numpy as np

from street.casting import EYE_HEIGHT, Convex, Surface
from street.conditions import Conditions
from street.mathematics import Array, column, coverage, fractal, hashed, sample, smoothstep, text_mask, vector

ROAD_LEFT, ROAD_RIGHT, CENTRE_LINE, PARKING_LINE = -6.0, 5.0, -1.3, 2.55  # x, in metres
CROSSING_NEAR, CROSSING_FAR = 12.5, 16.0  # z


class Road(Convex):
    """Wet asphalt with lane marks, a zebra crossing, a painted word, patches and a manhole cover."""

    def __init__(self, conditions: Conditions, warm_spots: list[tuple[float, float, float, float]]) -> None:
        super().__init__(vector(-60, -0.5, 0.5), vector(60, 0, 260))
        self.conditions = conditions
        self.warm_spots = warm_spots  # (x, z, radius, degrees): engines over the road, people's shadows
        self.word = text_mask("SLOW", 120, 26)

    def paint(self, x: Array, z: Array, soft: Array, soft_z: Array) -> Array:
        """Share of white paint."""
        dash = np.mod(z + 1.5, 6.0)
        paint = coverage(x, CENTRE_LINE - 0.06, CENTRE_LINE + 0.06, soft) * coverage(dash, 0.0, 3.0, soft_z)
        paint *= (z < CROSSING_NEAR - 2.0) | (z > CROSSING_FAR + 1.0)
        paint = np.maximum(paint, coverage(x, ROAD_LEFT + 0.30, ROAD_LEFT + 0.42, soft))
        outside = 1 - coverage(z, CROSSING_NEAR - 1.6, CROSSING_FAR + 0.5, soft_z)
        paint = np.maximum(paint, coverage(x, PARKING_LINE, PARKING_LINE + 0.1, soft) * outside)
        stripes = coverage(np.mod(x - 0.1, 1.0), 0.0, 0.5, soft)
        stripes *= coverage(x, ROAD_LEFT + 0.6, ROAD_RIGHT - 0.4, soft)
        paint = np.maximum(paint, stripes * coverage(z, CROSSING_NEAR, CROSSING_FAR, soft_z))
        stop = coverage(x, CENTRE_LINE, PARKING_LINE, soft) * coverage(z, 11.0, 11.35, soft_z)
        u, v = (x + 1.05) / 2.2, (9.4 - z) / 2.7
        word = sample(self.word, u, v) * (np.abs(u - 0.5) < 0.5) * (np.abs(v - 0.5) < 0.5)
        return np.maximum(paint, np.maximum(stop, word))

    def surface(self, points: Array, normal: Array, footprint: Array) -> Surface:
        """Asphalt, paint, cracks, puddles."""
        x, _, z = points
        soft, soft_z = footprint, footprint * z / EYE_HEIGHT
        grain = fractal(x, z, 0.045, 3, 0.45 * np.sqrt(soft * soft_z))
        patches = fractal(x + 40, z * 0.4, 3.0, 4, soft_z)
        tone = 0.085 + 0.035 * patches + 0.085 * grain
        repair = coverage(x, 0.9, 2.2, soft) * coverage(z, 17.5, 21.0, soft_z)
        repair = np.maximum(repair, coverage(x, -4.6, -3.5, soft) * coverage(z, 6.0, 8.6, soft_z))
        tone = tone * (1 - 0.4 * repair)
        wander = x - 0.35 * fractal(z, z * 0 + 3, 2.5, 4) - 0.9
        crack = coverage(wander, -0.012, 0.012, soft) * (z < 40)
        tone = tone * (1 - 0.55 * crack)
        wheel_path = np.exp(-(((np.abs(x - 0.6) - 0.8) / 0.35) ** 2))
        wheel_path += np.exp(-(((np.abs(x + 3.6) - 0.8) / 0.35) ** 2))
        tone = tone * (1 - 0.18 * wheel_path)

        worn = smoothstep(-0.55, 0.15, fractal(x, z, 0.35, 4, soft_z) + 0.25)
        paint = self.paint(x, z, soft, soft_z) * (0.45 + 0.55 * worn)
        cover_r = np.hypot(x + 2.3, z - 8.9)
        cover = np.clip((0.36 - cover_r) / np.maximum(soft_z, 0.01) + 0.5, 0, 1)
        grid = 0.5 + 0.5 * np.sign(np.sin(x * 55) * np.sin(z * 55))
        tone = tone * (1 - cover) + cover * (0.05 + 0.05 * grid * (cover_r < 0.3))
        albedo = column((1.0, 0.99, 0.97)) * tone * (1 - paint) + column((0.62, 0.62, 0.58)) * paint

        puddle = smoothstep(0.06, 0.34, fractal(x * 1.0 + 7, z * 0.35, 1.8, 4, soft_z) + 0.10 * wheel_path)
        gutter = np.exp(-((x - ROAD_RIGHT) ** 2) / 0.15) + np.exp(-((x - ROAD_LEFT) ** 2) / 0.15)
        puddle = np.clip(puddle + 0.7 * gutter, 0, 1)
        wet = self.conditions.wetness * (0.30 + 0.62 * puddle) * (1 - 0.3 * paint) * (1 + 0.5 * grain)
        albedo *= 1 - 0.45 * wet * (1 - 0.5 * paint)

        warmth = 6.6 + 1.4 * fractal(x, z * 0.3, 6.0, 4) + 0.8 * wheel_path - 1.8 * puddle
        warmth += 2.4 * cover + 0.25 * grain + 0.7 * repair
        for spot_x, spot_z, radius, degrees in self.warm_spots:
            far = ((x - spot_x) ** 2 + (z - spot_z) ** 2) / radius**2
            warmth += degrees * np.exp(-far)
        return Surface(
            albedo=albedo.astype(np.float32),
            temperature=warmth + self.conditions.sun_warmth,
            specular=0.02 + 0.02 * wet,
            roughness=0.62 - 0.36 * wet + 0.06 * grain,
            wetness=wet,
        )


class Pavement(Convex):
    """A pavement of concrete slabs behind a lighter kerb."""

    def __init__(self, side: int, conditions: Conditions) -> None:
        edge, wall = (ROAD_RIGHT, 14.0) if side > 0 else (ROAD_LEFT, -14.0)
        super().__init__(vector(min(edge, wall), -0.1, 0.6), vector(max(edge, wall), 0.13, 200))
        self.edge, self.conditions = edge, conditions

    def surface(self, points: Array, normal: Array, footprint: Array) -> Surface:
        """Slabs with joints, a kerb stone along the edge."""
        x, y, z = points
        soft_z = footprint * z / EYE_HEIGHT
        from_edge = np.abs(x - self.edge)
        tone = 0.15 + 0.05 * (hashed(np.floor(x / 0.6), np.floor(z / 0.6)) - 0.5)
        tone += 0.05 * fractal(x, z, 0.8, 5, soft_z)
        joint = 1 - coverage(np.mod(x, 0.6), 0.015, 0.585, footprint)
        joint = np.maximum(joint, 1 - coverage(np.mod(z, 0.6), 0.015, 0.585, soft_z))
        tone *= 1 - 0.5 * joint
        kerb = from_edge < 0.16
        kerb_joint = 1 - coverage(np.mod(z, 1.0), 0.015, 0.985, soft_z)
        tone = np.where(
            kerb, (0.24 + 0.05 * fractal(y + x, z, 0.2, 3, soft_z)) * (1 - 0.4 * kerb_joint), tone
        )
        damp = self.conditions.wetness * np.clip(0.22 + 0.5 * fractal(x, z, 1.5, 3, soft_z), 0, 0.5)
        warmth = 4.4 + 1.0 * fractal(x, z * 0.4, 4.0, 3) + 2.2 * kerb + 0.25 * np.clip(from_edge - 1, 0, 4)
        return Surface(
            albedo=column((1.0, 0.97, 0.92)) * tone * (1 - 0.35 * damp),
            temperature=warmth + self.conditions.sun_warmth * 0.8,
            specular=0.03,
            roughness=0.55 - 0.4 * damp,
            wetness=np.where(normal[1] > 0.5, 0.45 * damp, 0),
        )
