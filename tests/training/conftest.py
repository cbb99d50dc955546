"""Pairs that the tests draw themselves, in folders as training reads them."""

import cv2
import numpy as np
import pytest

RECIPE = """
name = "tiny"
[model]
size = "lite"
change = { width = 16, extraction = 1 }
[data]
sources = ["a/train", "b/train"]
hold_out = 3
crop = 48
batch = 2
[optimization]
steps = 6
warm_up = 2
validate_every = 100
"""


def draw_pair(seed, height=56, width=72):
    """A hot blob over a warm ground, and texture under a lamp; uint8 `(height, width)` each."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    cy, cx = random.uniform(10, 40, 2)
    ir = 60 + 20 * np.sin(x / 9) + 150 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 40)
    vis = 90 + 60 * np.sin(x / random.uniform(2, 6)) * np.cos(y / 5) + random.normal(0, 4, y.shape)
    return ir.clip(0, 255).astype(np.uint8), vis.clip(0, 255).astype(np.uint8)


def write_pairs(folder, seeds, visible="vi", **size):
    for name in ("ir", visible):
        (folder / name).mkdir(parents=True)
    for seed in seeds:
        ir, vis = draw_pair(seed, **size)
        cv2.imwrite(str(folder / "ir" / f"{seed:03}.png"), ir)
        cv2.imwrite(str(folder / visible / f"{seed:03}.png"), vis)


@pytest.fixture(autouse=True)
def _use_one_thread(one_thread):
    """For all tests of this folder."""


@pytest.fixture
def data(tmp_path):
    """A folder with a recipe and two sources of pairs, four each."""
    root = tmp_path / "data"
    write_pairs(root / "a/train", range(4))
    write_pairs(root / "b/train", range(4, 8), visible="vis")
    (root / "tiny.toml").write_text(RECIPE)
    return root


@pytest.fixture
def pairs():
    return write_pairs
