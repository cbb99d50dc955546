from dataclasses import replace

import cv2
import numpy as np
import pytest

from diffmf_cli.alignment import estimate as module
from diffmf_cli.alignment.estimate import estimate
from diffmf_cli.alignment.geometry import corner_distance, resizing, similarity
from diffmf_cli.errors import UsageError

SIZE = 480, 320


def shift(x, y):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


@pytest.mark.parametrize(
    "warp",
    [shift(38, -31), similarity(SIZE, 5, 1.1), shift(-20, 25) @ similarity(SIZE, -4, 0.92)],
    ids=["shift", "turn and scale", "all"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_finds_a_known_warp(scene_of, moved, warp, seed):
    ir, vis = scene_of(seed, SIZE)
    found = estimate(moved(ir, warp), vis).transform
    assert corner_distance(found.matrix, np.linalg.inv(warp), SIZE) < 1
    assert (found.model, found.ir_size, found.vis_size) == ("affine", SIZE, SIZE)
    assert 0.3 < found.score <= 1


def test_finds_a_perspective(scene_of, moved):
    ir, vis = scene_of(0, SIZE)
    warp = shift(10, 5) @ np.array([[1, 0.02, 0], [0, 1, 0], [2e-4, -1.5e-4, 1]])
    found = estimate(moved(ir, warp), vis).transform
    assert found.model == "homography"
    assert corner_distance(found.matrix, np.linalg.inv(warp), SIZE) < 2


def test_an_aligned_pair_stays(scene_of):
    result = estimate(*scene_of(0, SIZE))
    assert result.transform is None
    assert "no clear gain" in result.reason
    assert corner_distance(result.found.matrix, np.eye(3), SIZE) < 1


@pytest.mark.parametrize("seed", range(4))
def test_a_pair_that_is_a_fraction_of_a_pixel_off_stays(scene_of, moved, seed):
    ir, vis = scene_of(seed, SIZE)
    assert estimate(moved(ir, shift(0.6, -0.4) @ similarity(SIZE, 0.1, 1.002)), vis).transform is None


@pytest.mark.parametrize(("rows", "moves"), [(220, False), (240, True)])
def test_a_gain_counts_by_what_the_pair_has_already(scene_of, moved, rows, moves):
    """The lower rows are off, as by parallax: the pair stays while most of it fits."""
    ir, vis = scene_of(0, SIZE)
    ir[-rows:] = moved(ir, shift(7, 0))[-rows:]
    result = estimate(ir, vis)
    assert (result.transform is not None) == moves


def test_unrelated_pictures_stay(scene_of):
    for seed in range(3):
        result = estimate(scene_of(seed, SIZE)[0], scene_of(seed + 10, SIZE)[1])
        assert result.transform is None
        assert result.reason


def test_what_fits_by_chance_is_seen_through_when_it_is_seen_sharply(scene_of, moved, monkeypatch):
    """The lead and the score of the small pictures may pass; the score of the sharp ones must as well."""
    ir, vis = scene_of(0, SIZE)
    pair = moved(ir, shift(30, 10)), vis
    assert estimate(*pair).transform is not None
    finer = module._finer

    def seen_sharply(*given):
        fit, view = finer(*given)
        return replace(fit, score=0.14), view

    monkeypatch.setattr(module, "_finer", seen_sharply)
    result = estimate(*pair)
    assert result.transform is result.found is None
    assert "no place" in result.reason


def test_a_place_on_which_halves_of_the_edges_differ_is_not_used(scene_of, moved, monkeypatch):
    ir, vis = scene_of(0, SIZE)
    pair = moved(ir, shift(30, 10)), vis
    monkeypatch.setattr(module, "halves", lambda view, _: [view.matrix, shift(5, 0) @ view.matrix])
    result = estimate(*pair)
    assert result.transform is None
    assert "halves of its edges put it 5.0 pixels apart" in result.reason
    assert corner_distance(result.found.matrix, shift(-30, -10), SIZE) < 1  # many pairs may still agree on it


def test_a_narrow_view_that_is_upright_is_not_bent(scene_of, monkeypatch):
    ir, vis = scene_of(3, (960, 640))

    def bend(*_):
        raise AssertionError

    monkeypatch.setattr(module, "_with_perspective", bend)
    assert estimate(np.ascontiguousarray(ir[50:306, 100:484]), vis).transform.model == "affine"


def test_noise_stays():
    rng = np.random.default_rng(0)
    ir, vis = rng.random((2, *SIZE[::-1]), np.float32)
    assert estimate(ir, vis).transform is None


def test_negative_of_the_picture_is_as_good(scene_of, moved):
    ir, vis = scene_of(0, SIZE)
    warp = shift(30, 10)
    found = estimate(1 - moved(ir, warp), vis).transform
    assert corner_distance(found.matrix, np.linalg.inv(warp), SIZE) < 1


@pytest.mark.parametrize("scale", [0.35, 0.6])
def test_finds_a_narrow_view_of_other_resolution(scene_of, scale):
    ir, vis = scene_of(3, (960, 640))
    w, h = round(960 * scale), round(640 * scale)
    x, y = 960 - w - 70, 50
    view = cv2.resize(ir[y : y + h, x : x + w], (320, round(320 * h / w)), interpolation=cv2.INTER_AREA)
    truth = shift(x, y) @ resizing(view.shape[::-1], (w, h))
    found = estimate(view, vis).transform
    assert corner_distance(found.matrix, truth, view.shape[::-1]) < 0.01 * w


@pytest.mark.parametrize("ratio", [0.4, 1.5])
def test_a_known_ratio_finds_other_shapes(scene_of, ratio):
    """The infrared view is 5:4; with 1.5 it is wider than the visible one."""
    ir, vis = scene_of(4, (1200, 900))
    w = round(600 * ratio)
    h = w * 4 // 5
    x, y = 600 - w // 2 + 15, 450 - h // 2 - 12
    view = cv2.resize(ir[y : y + h, x : x + w], (320, 256), interpolation=cv2.INTER_AREA)
    seen = np.ascontiguousarray(vis[250:650, 300:900])
    truth = shift(x - 300, y - 250) @ resizing((320, 256), (w, h))
    found = estimate(view, seen, fov_ratio=ratio * 1.05).transform
    assert corner_distance(found.matrix, truth, (320, 256)) < 0.01 * w


@pytest.mark.parametrize("ratio", [0, -1, 0.05, 11, float("nan")])
def test_ratio_out_of_range(ratio):
    with pytest.raises(UsageError, match=r"use 0\.1 to 10"):
        estimate(np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32), ratio)


@pytest.mark.parametrize(
    ("ir", "says"),
    [
        (np.zeros((320, 480), np.float32), "constant"),
        (np.random.default_rng(0).random((20, 480), np.float32), "32 pixels"),
        (np.tile(np.linspace(0, 1, 480, dtype=np.float32), (320, 1)), "no place"),
    ],
    ids=["constant", "tiny", "ramp"],
)
def test_featureless_pictures_stay(scene_of, ir, says):
    result = estimate(ir, scene_of(0, SIZE)[1])
    assert result.transform is None
    assert says in result.reason
