#!/usr/bin/env python3
"""Renders a registered infrared and visible video pair of the street of `render_street.py`, with traffic.

The people walk, the oncoming car comes nearer, and each frame has sensor noise of its own; houses, trees and
lamps are those of the picture pair.

    python examples/render_street_video.py --out clip --seconds 2 --size 320x240

writes `street_night_ir.mp4` and `street_night_vis.mp4` into `clip/`. It takes a second or two for a frame of
320x240.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # found also when this file is imported by its path

from render_street import parse_size, render
from street.conditions import SCENES


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the two files")
    parser.add_argument("--scene", choices=sorted(SCENES), default="night")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--size", default="320x240", help="WIDTHxHEIGHT in pixels, even")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--fps", type=float, default=10.0)
    options = parser.parse_args(arguments)
    size = parse_size(parser, options.size)
    count = round(options.seconds * options.fps)
    if count < 1 or options.seed < 0:
        parser.error("--seconds x --fps: expected at least one frame; --seed: a number of at least 0")
    options.out.mkdir(parents=True, exist_ok=True)
    paths = [options.out / f"street_{options.scene}_{name}.mp4" for name in ("ir", "vis")]
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writers = [cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, options.fps, size) for path in paths]
    if not all(writer.isOpened() for writer in writers):
        print(f"{options.out}: cannot write videos; choose another folder with --out", file=sys.stderr)
        return 1
    for number in range(count):
        ir, vis = render(options.scene, size, options.seed, number / options.fps)
        writers[0].write(cv2.cvtColor(ir, cv2.COLOR_GRAY2BGR))
        writers[1].write(np.ascontiguousarray(vis[..., ::-1]))
        print(f"frame {number + 1} of {count}", file=sys.stderr)
    for writer, path in zip(writers, paths, strict=True):
        writer.release()
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
