"""Registered pairs whose truth is exact: windows of the rendered street of examples/, in four kinds of light.

python benchmarks/render_pairs.py FOLDER            writes FOLDER/ir and FOLDER/vi, 120 pairs, in some minutes
python benchmarks/alignment.py FOLDER --parts rig own
"""

import argparse
import sys
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from render_street import render

SCENES = "night", "day", "glare", "saturated-ir"
SIZE = 1600, 1200
WINDOW = 500, 330


def main() -> None:
    """Renders each scene at two moments and cuts both pictures alike."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for kind in ("ir", "vi"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    number = 0
    for scene in SCENES:
        for seed, seconds in ((7, 0.0), (8, 2.5)):
            ir, vis = render(scene, SIZE, seed, seconds)
            for y in range(60, 601, 270):  # below is road
                for x in range(0, SIZE[0] - WINDOW[0] + 1, 275):
                    rows, columns = slice(y, y + WINDOW[1]), slice(x, x + WINDOW[0])
                    name = f"{number:03}.png"
                    cv2.imwrite(str(folder / "ir" / name), ir[rows, columns])
                    cv2.imwrite(str(folder / "vi" / name), vis[rows, columns, ::-1])
                    number += 1
            print(f"{scene}, {seconds:g} s: {number} pairs", flush=True)


if __name__ == "__main__":
    main()
