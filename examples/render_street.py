#!/usr/bin/env python3
"""Renders a registered infrared and visible picture pair of a street that does not exist.

The scene is described once, in metres (`street/scene.py`): every object knows its shape, how it reflects
light and how warm it is. A small ray caster writes that into a G-buffer, and two cameras read it: the visible
one (`street/visible.py`) sees lamps, head lights and a wet road; the thermal one (`street/thermal.py`) sees
nothing but temperature.

    python examples/render_street.py --out examples --scene night --seed 7 --size 640x480

writes `street_night_ir.png` (8-bit grey) and `street_night_vis.png` (8-bit RGB) into `examples/`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))  # found also when this file is imported by its path

from street.casting import Camera, GBuffer
from street.conditions import SCENES
from street.scene import build_people, build_scene
from street.thermal import thermal_camera
from street.visible import visible_camera

SUPERSAMPLING = 2


def render(
    scene: str, size: tuple[int, int] = (640, 480), seed: int = 7, seconds: float = 0.0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Renders a registered pair.

    Args:
        scene: One of `SCENES`.
        size: Width and height in pixels.
        seed: Decides on leaves and sensor noise; the same seed gives the same bytes.
        seconds: How much later than the committed pair: people walk, cars drive, noise is new.

    Returns:
        `ir` `(H, W)` uint8 and `vis` `(H, W, 3)` uint8, RGB.
    """
    width, height = size
    street = build_scene(SCENES[scene], seed, seconds)
    buffer = GBuffer(Camera(width * SUPERSAMPLING, height * SUPERSAMPLING))
    for thing in street.solids:
        buffer.draw(thing)
    rng = np.random.default_rng([seed, 1, round(1000 * seconds)] if seconds else [seed, 1])
    ir = thermal_camera(buffer, street, size, rng)
    vis = visible_camera(buffer, street, size, rng)
    return ir, vis


def people_boxes(size: tuple[int, int] = (640, 480)) -> list[tuple[int, int, int, int]]:
    """Where people and the dog are: `(left, top, right, bottom)` in pixels, nearest first."""
    camera = Camera(*size)
    boxes = []
    for figure in sorted(build_people(), key=lambda f: f.position[2]):
        rows, cols = camera.window_of(*figure.bounds)
        boxes.append((cols.start, rows.start, cols.stop, rows.stop))
    return boxes


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder for the two PNG files"
    )
    parser.add_argument("--scene", choices=sorted(SCENES), default="night")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--size", default="640x480", help="WIDTHxHEIGHT in pixels")
    options = parser.parse_args(arguments)
    if options.seed < 0:
        parser.error(f"--seed {options.seed}: expected a number of at least 0")
    ir, vis = render(options.scene, parse_size(parser, options.size), options.seed)
    for name, picture in (("ir", ir), ("vis", vis[..., ::-1])):
        path = options.out / f"street_{options.scene}_{name}.png"
        png = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
        try:
            options.out.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png)
        except OSError as error:
            print(f"{path}: {error.strerror}; choose another folder with --out", file=sys.stderr)
            return 1
        print(path)
    return 0


def parse_size(parser: argparse.ArgumentParser, text: str) -> tuple[int, int]:
    """`640x480` as two numbers, or a usage error."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 32):
        parser.error(f"--size {text}: expected WIDTHxHEIGHT of at least 32x32, for example 640x480")
    return int(width), int(height)


if __name__ == "__main__":
    sys.exit(main())
