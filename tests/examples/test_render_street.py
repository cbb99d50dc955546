"""The street of examples/: repeatable, registered, and with people that only the infrared picture shows."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = (160, 120)


def load_script():
    spec = importlib.util.spec_from_file_location("render_street", EXAMPLES / "render_street.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


street = load_script()


@pytest.fixture(scope="module")
def night():
    return street.render("night", (640, 480), 7)


@pytest.fixture(scope="module")
def small_night():
    return street.render("night", SMALL, 7)


def grey(vis):
    return cv2.cvtColor(vis, cv2.COLOR_RGB2GRAY)


def figure_and_surroundings(ir, box):
    """Masks of a warm body inside `box`, less its blurred rim, and of what lies around it."""
    left, top, right, bottom = box
    warm = np.zeros(ir.shape, np.uint8)
    warm[top:bottom, left:right] = ir[top:bottom, left:right] > 150
    near, far = cv2.dilate(warm, np.ones((5, 5))), cv2.dilate(warm, np.ones((13, 13)))
    return cv2.erode(warm, np.ones((3, 3))) > 0, (far > near) & (ir <= 150)


def test_pair_has_the_asked_size_and_types(night):
    ir, vis = night
    assert (ir.shape, ir.dtype) == ((480, 640), np.uint8)
    assert (vis.shape, vis.dtype) == ((480, 640, 3), np.uint8)


def test_same_seed_gives_the_same_bytes():
    first, again = (street.render("night", (97, 61), 7) for _ in range(2))
    assert [p.tobytes() for p in again] == [p.tobytes() for p in first]
    assert first[0].shape == (61, 97)


def test_another_seed_changes_both_pictures(small_night):
    ir, vis = street.render("night", SMALL, 8)
    assert not np.array_equal(ir, small_night[0])
    assert not np.array_equal(vis, small_night[1])


@pytest.mark.parametrize("index", range(3), ids=["man", "dog", "man in the glare"])
def test_figures_show_in_infrared_and_hide_in_visible(night, index):
    ir, vis = night
    body, around = figure_and_surroundings(ir, street.people_boxes()[index])
    assert body.sum() > 500
    warmer = ir[body].mean() - ir[around].mean()
    luma = grey(vis)
    seen = abs(luma[body].mean() - luma[around].mean())
    assert warmer > 70
    assert seen < 0.3 * warmer


@pytest.mark.parametrize(
    "region",
    [(slice(293, 311), slice(295, 412)), (slice(134, 160), slice(485, 562))],
    ids=["zebra crossing", "direction sign"],
)
def test_visible_alone_carries_paint_and_letters(night, region):
    ir, vis = night
    assert grey(vis)[region].std() > 15
    assert ir[region].std() < 6


def test_extreme_light_is_extreme(street_in):
    black, glare, fog = (grey(street_in(light)[1]) for light in ("black", "glare", "fog"))
    day = grey(street.render("day", SMALL, 7)[1])
    assert black.mean() < 8
    assert 0.25 < (glare >= 250).mean() < 0.5
    assert fog.std() < 0.6 * day.std()
    saturated = street_in("saturated-ir")[0]
    assert (saturated == 255).mean() > 0.25


def test_committed_pictures_are_what_the_script_renders(night):
    """Within what OpenCV versions differ in: fonts and rounding of polygons."""
    for name, rendered in zip(("ir", "vis"), night, strict=True):
        path = EXAMPLES / f"street_night_{name}.png"
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        stored = stored if name == "ir" else stored[..., ::-1]
        difference = np.abs(stored.astype(int) - rendered)
        assert difference.mean() < 1.5, path
        assert (difference <= 8).mean() > 0.96, path


def test_committed_pictures_are_small():
    assert sum(path.stat().st_size for path in EXAMPLES.glob("street_night_*.png")) < 1_200_000


def test_command_writes_the_pair(tmp_path, capsys, small_night):
    assert street.main(["--out", str(tmp_path / "new"), "--size", "160x120", "--seed", "7"]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in written] == ["street_night_ir.png", "street_night_vis.png"]
    ir, vis = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in written)
    assert np.array_equal(ir, small_night[0])
    assert np.array_equal(vis[..., ::-1], small_night[1])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--size", "640"], "640"),
        (["--size", "0x480"], "0x480"),
        (["--seed", "-1"], "-1"),
        (["--scene", "noon"], "noon"),
    ],
)
def test_bad_arguments_are_usage_errors(arguments, word, capsys):
    with pytest.raises(SystemExit) as stop:
        street.main(arguments)
    assert stop.value.code == 2
    assert word in capsys.readouterr().err


def test_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert street.main(["--out", str(tmp_path / "file"), "--size", "32x32"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "--out" in told
