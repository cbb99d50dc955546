"""Vectors, noise and texture look-ups, on arrays whose axis comes first: `(3, ...)`."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def vector(*values: float) -> Array:
    """The given numbers as a float32 vector."""
    return np.array(values, np.float32)


def column(values: tuple[float, float, float] | Array) -> Array:
    """Three numbers as `(3, 1)`, to combine with `(3, N)`."""
    return np.asarray(values, np.float32).reshape(3, 1)


def smoothstep(low: float, high: float, x: Array) -> Array:
    """0 below `low`, 1 above `high`, smooth between."""
    s = np.clip((x - low) / (high - low), 0, 1)
    return s * s * (3 - 2 * s)


def coverage(x: Array, low: float | Array, high: float | Array, soft: Array | float) -> Array:
    """How much of a pixel that is `soft` wide lies inside `low..high`: an anti-aliased stripe."""
    soft = np.maximum(soft, 1e-4)
    return np.clip((x - low) / soft + 0.5, 0, 1) * np.clip((high - x) / soft + 0.5, 0, 1)


def dot(a: Array, b: Array) -> Array:
    """Scalar products of vectors; the axis is first. Several times faster than a sum over the axis."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def length(v: Array) -> Array:
    """Lengths of vectors `(3, ...)`."""
    return np.sqrt(dot(v, v))


def chunks(count: int, size: int = 1 << 15) -> Iterator[slice]:
    """Slices over `count` points, small enough that intermediate arrays stay in the cache of the CPU."""
    for start in range(0, count, size):
        yield slice(start, start + size)


def normalized(v: Array) -> Array:
    """`v` of shape `(3, ...)` scaled to length one."""
    return v / np.maximum(length(v), 1e-9)


def hashed(*keys: Array | float) -> Array:
    """A repeatable random number in [0, 1) for each combination of whole-number keys."""
    state = np.uint32(2166136261)
    with np.errstate(over="ignore"):
        for key in keys:
            state = (state ^ np.asarray(key).astype(np.int64).astype(np.uint32)) * np.uint32(16777619)
            state = (state ^ (state >> np.uint32(15))) * np.uint32(2246822519)
            state = state ^ (state >> np.uint32(13))
    return (state & np.uint32(0xFFFFFF)).astype(np.float32) / np.float32(1 << 24)


def capsule(p: Array, start: Array, end: Array, first: Array | float, second: Array | float) -> Array:
    """Signed distance to a capsule whose radius goes from `first` to `second`.

    Args:
        p: `(3, N)`, or `(3, 1, N)` for several capsules at once.
        start: `(3,)` or `(3, capsules)`.
        end: likewise.
        first: a number or `(capsules, 1)`.
        second: likewise.
    """
    axis = (end - start)[..., None]
    offset = p - start[..., None]
    h = np.clip(dot(axis, offset) / dot(axis, axis), 0, 1)
    rest = offset - axis * h
    return length(rest) - (first + (second - first) * h)


_LATTICE = np.random.default_rng(20).random((256, 256), dtype=np.float32) * 2 - 1


def noise(u: Array, v: Array) -> Array:
    """Smooth value noise in [-1, 1] with one cell per unit."""
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = u - iu, v - iv
    fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)
    a, b = iu.astype(np.int32) & 255, iv.astype(np.int32) & 255
    a1, b1 = (a + 1) & 255, (b + 1) & 255
    near = _LATTICE[b, a] * (1 - fu) + _LATTICE[b, a1] * fu
    far = _LATTICE[b1, a] * (1 - fu) + _LATTICE[b1, a1] * fu
    return near * (1 - fv) + far * fv


def fractal(u: Array, v: Array, wavelength: float, octaves: int, footprint: Array | float = 0.0) -> Array:
    """Sum of noise octaves from `wavelength` down; octaves finer than the pixel footprint fade out."""
    total, weight = np.zeros(np.broadcast(u, v).shape, np.float32), 0.5
    for octave in range(octaves):
        visible = np.clip(wavelength / np.maximum(footprint, 1e-6) - 1, 0, 1)
        total += weight * visible * noise(u / wavelength + 17.3 * octave, v / wavelength - 9.1 * octave)
        wavelength, weight = wavelength / 2, weight * 0.62
    return total


def text_mask(text: str, height: int, stroke: int) -> Array:
    """The text as a tightly cropped mask in [0, 1], `height` pixels high whatever the font of this OpenCV."""
    font, scale = cv2.FONT_HERSHEY_DUPLEX, 6.0
    (width, tall), base = cv2.getTextSize(text, font, scale, stroke)
    canvas = np.zeros((tall + base + 2 * stroke, width + 2 * stroke), np.uint8)
    cv2.putText(canvas, text, (stroke, tall + stroke), font, scale, 255, stroke, cv2.LINE_AA)
    x, y, w, h = cv2.boundingRect(canvas)
    letters = cv2.resize(
        canvas[y : y + h, x : x + w], (round(w * height / h), height), interpolation=cv2.INTER_AREA
    )
    return letters.astype(np.float32) / 255


def sample(texture: Array, u: Array, v: Array) -> Array:
    """Bilinear look-up of `texture` (H, W[, C]) at u, v in [0, 1] (v down); returns (N,) or (C, N)."""
    height, width = texture.shape[:2]
    x, y = np.clip(u, 0, 1) * (width - 1), np.clip(v, 0, 1) * (height - 1)
    x0, y0 = np.minimum(x.astype(np.int32), width - 2), np.minimum(y.astype(np.int32), height - 2)
    fx, fy = x - x0, y - y0
    if texture.ndim == 3:
        fx, fy = fx[:, None], fy[:, None]
    top = texture[y0, x0] * (1 - fx) + texture[y0, x0 + 1] * fx
    bottom = texture[y0 + 1, x0] * (1 - fx) + texture[y0 + 1, x0 + 1] * fx
    return (top * (1 - fy) + bottom * fy).T
