"""The thermal camera: temperature through a soft lens, and its own noise."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from street.casting import GBuffer
from street.mathematics import fractal, length
from street.scene import Scene


def thermal_camera(
    buffer: GBuffer, scene: Scene, size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """What an uncooled long-wave camera gives: `(H, W)`."""
    conditions, camera = scene.conditions, buffer.camera
    directions = camera.rays((slice(0, camera.height), slice(0, camera.width)))
    up = np.clip(directions[1] / length(directions), 0, 1)
    sky = 1.0 - 8.5 * (1 - np.exp(-up / 0.13))
    sky += 1.6 * fractal(directions[0] / (up + 0.2), 1 / (up + 0.2), 1.4, 4)
    solid = np.isfinite(buffer.depth)
    degrees = np.where(solid, buffer.temperature, sky)
    air = np.exp(-0.0022 * np.where(solid, buffer.depth, 0))
    degrees = degrees * air + 6.0 * (1 - air)

    image = cv2.resize(degrees.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    unit = size[0] / 640
    image = cv2.GaussianBlur(image, (0, 0), 0.85 * unit)
    image += 0.45 * (image - cv2.GaussianBlur(image, (0, 0), 3.0 * unit))  # detail enhancement of the camera
    height, width = image.shape
    columns = cv2.GaussianBlur(rng.normal(size=(1, width)).astype(np.float32), (0, 0), 0.6)
    rows = rng.normal(size=(height, 1)).astype(np.float32)
    pixels = rng.normal(size=(height, width)).astype(np.float32)
    image += 0.13 * columns + 0.05 * rows + 0.20 * pixels
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    image -= 0.7 * (x * x + y * y)
    level = (image - conditions.coldest) / (conditions.hottest - conditions.coldest)
    return np.clip(np.round(level * 255), 0, 255).astype(np.uint8)
