"""Posts and traffic signs."""

from __future__ import annotations

import cv2
import numpy as np

from street.casting import Camera, Convex, Implicit, Surface, Window
from street.mathematics import Array, capsule, sample, text_mask, vector


class Rod(Implicit):
    """A straight rod: post, arm or cable segment."""

    def __init__(
        self,
        start: Array,
        end: Array,
        radius: float,
        tone: float,
        temperature: float,
        shine: Array | None = None,
    ) -> None:
        self.start, self.end, self.radius = start, end, radius
        self.tone, self.temperature, self.shine = tone, temperature, shine
        super().__init__(
            (0, 0, 0), 0.0, np.minimum(start, end) - radius - 0.01, np.maximum(start, end) + radius + 0.01
        )

    def distance(self, local: Array) -> Array:
        """Distance to a capsule."""
        return capsule(local, self.start, self.end, self.radius, self.radius)

    def surface(self, points: Array, normal: Array, footprint: Array) -> Surface:
        """Painted metal, or a light if it shines."""
        tone = np.full_like(points, self.tone)
        emission = np.zeros_like(points)
        if self.shine is not None:
            emission += self.shine[:, None] * np.clip(0.25 - normal[1], 0, 1)
        warmth = self.temperature - 1.2 * normal[1]
        return Surface(tone, warmth.astype(np.float32), emission, 0.05, 0.35)


class Plate(Convex):
    """A flat rectangle that faces the camera and carries a picture: signs."""

    def __init__(
        self,
        centre: tuple[float, float, float],
        size: tuple[float, float],
        picture: Array,
        mask: Array,
        glow: float,
        temperature: float = 1.0,
    ) -> None:
        half = vector(size[0] / 2, size[1] / 2, 0.03)
        self.low, self.size = vector(*centre) - half, size
        self.picture, self.mask, self.glow, self.temperature = picture, mask, glow, temperature
        super().__init__(self.low, vector(*centre) + half)

    def intersect(self, camera: Camera, window: Window, directions: Array) -> tuple[Array, Array]:
        """The rectangle without what its mask leaves out."""
        depth, normal = super().intersect(camera, window, directions)
        hit = np.isfinite(depth)
        points = camera.eye[:, None] + depth[hit] * directions[:, hit]
        depth[hit] = np.where(sample(self.mask, *self.place(points)) > 0.5, depth[hit], np.inf)
        return depth, normal

    def place(self, points: Array) -> tuple[Array, Array]:
        """Picture coordinates of world points."""
        u = (points[0] - self.low[0]) / self.size[0]
        return u, 1 - (points[1] - self.low[1]) / self.size[1]

    def surface(self, points: Array, normal: Array, footprint: Array) -> Surface:
        """The picture; `glow` is light sent back by the reflective foil, or by lamps inside."""
        color = sample(self.picture, *self.place(points))
        warmth = self.temperature + 0.8 * (points[1] - self.low[1]) / self.size[1]
        return Surface(color * 0.7, warmth.astype(np.float32), color * self.glow, 0.04, 0.4)


def sign_pictures() -> dict[str, tuple[Array, Array]]:
    """Sign faces drawn at high resolution: name -> (linear RGB (H, W, 3), mask (H, W))."""
    signs: dict[str, tuple[Array, Array]] = {}
    white, red, blue, black = (0.85, 0.85, 0.83), (0.62, 0.02, 0.02), (0.01, 0.09, 0.42), (0.01, 0.01, 0.01)

    def stamp(face: Array, mask: Array, centre: tuple[int, int], color: tuple[float, float, float]) -> None:
        top, left = centre[1] - mask.shape[0] // 2, centre[0] - mask.shape[1] // 2
        part = face[top : top + mask.shape[0], left : left + mask.shape[1]]
        part += mask[..., None] * (np.array(color, np.float32) - part)

    face, mask = np.zeros((256, 256, 3), np.float32), np.zeros((256, 256), np.float32)
    cv2.circle(mask, (128, 128), 124, 1.0, -1, cv2.LINE_AA)
    face[:] = white
    cv2.circle(face, (128, 128), 108, red, 30, cv2.LINE_AA)
    stamp(face, text_mask("30", 84, 24), (128, 128), black)
    signs["limit"] = (face, mask)

    face, mask = np.full((256, 256, 3), blue, np.float32), np.ones((256, 256), np.float32)
    cv2.rectangle(face, (6, 6), (249, 249), white, 5, cv2.LINE_AA)
    cv2.fillPoly(face, [np.array([[128, 24], [232, 216], [24, 216]])], white, cv2.LINE_AA)
    cv2.circle(face, (131, 82), 14, black, -1, cv2.LINE_AA)
    limbs = [((130, 98), (124, 148)), ((124, 148), (150, 202)), ((124, 148), (98, 200))]
    limbs += [((130, 106), (158, 136)), ((130, 106), (102, 134))]
    for start, end in limbs:
        cv2.line(face, start, end, black, 14, cv2.LINE_AA)
    signs["crossing"] = (face, mask)

    face, mask = np.full((210, 560, 3), blue, np.float32), np.ones((210, 560), np.float32)
    cv2.rectangle(face, (8, 8), (551, 201), white, 6, cv2.LINE_AA)
    stamp(face, text_mask("STATION", 52, 24), (236, 72), white)
    stamp(face, text_mask("HARBOUR", 38, 22), (206, 154), white)
    arrow = np.array([[530, 105], [462, 58], [462, 90], [424, 90], [424, 120], [462, 120], [462, 152]])
    cv2.fillPoly(face, [arrow], white, cv2.LINE_AA)
    signs["direction"] = (face, mask)

    face, mask = np.full((620, 160, 3), (0.02, 0.01, 0.02), np.float32), np.ones((620, 160), np.float32)
    cv2.rectangle(face, (9, 9), (150, 610), (0.9, 0.10, 0.25), 6, cv2.LINE_AA)
    for index, letter in enumerate("HOTEL"):
        stamp(face, text_mask(letter, 68, 24), (80, 72 + 119 * index), (1.0, 0.22, 0.30))
    signs["hotel"] = (face, mask)
    return signs
