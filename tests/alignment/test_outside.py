import numpy as np
import pytest

from diffmf_cli.alignment.geometry import similarity
from diffmf_cli.alignment.outside import coverage, place, shown
from diffmf_cli.alignment.transform import Transform
from diffmf_cli.errors import ImageError

IR, VIS = (80, 60), (200, 150)


def transform(matrix):
    return Transform(np.array(matrix, np.float64), "affine", IR, VIS, 0.5)


WINDOW = transform([[1, 0, 50], [0, 1, 40], [0, 0, 1]])


def test_a_window_is_pixel_for_pixel():
    ir = np.random.default_rng(0).random(IR[::-1], np.float32)
    placed = place(ir, WINDOW, "blank")
    assert placed.box == (slice(40, 100), slice(50, 130))
    assert np.allclose(placed.ir, ir, atol=1e-5)
    assert placed.weight.min() == 1
    assert coverage(WINDOW) == pytest.approx(80 * 60 / (200 * 150))


def test_vis_blends_over_a_border_and_blank_does_not():
    ir, around = np.ones(IR[::-1], np.float32), np.zeros(VIS[::-1], np.float32)
    soft = place(ir, WINDOW, "vis").complete(ir, around)
    hard = place(ir, WINDOW, "blank").complete(ir, around)
    assert 0 < soft[70, 50] < soft[70, 51] < 1
    assert soft[70, 90] == 1
    assert hard[70, 50] == 1
    for whole in (soft, hard):
        assert not whole[:40].any()
        assert not whole[:, 130:].any()
    assert not around.any()


def test_nothing_is_blended_where_the_visible_picture_ends():
    placed = place(np.ones(IR[::-1], np.float32), transform([[3, 0, -10], [0, 3, -10], [0, 0, 1]]), "vis")
    assert placed.ir.shape == VIS[::-1]
    assert placed.weight.min() == 1


@pytest.mark.parametrize("degrees", [0, 4, -12])
def test_crop_is_covered_everywhere_and_as_large_as_can_be(degrees):
    at = transform([[1, 0, 60], [0, 1, 45], [0, 0, 1]])
    at = transform(at.matrix @ similarity(IR, degrees, 1))
    placed = place(np.ones(IR[::-1], np.float32), at, "crop")
    assert placed.box == shown(at, "crop")
    assert placed.weight.min() == 1
    # Of a turned rectangle the largest upright one, by brute force over the same mask.
    mask = np.zeros(VIS[::-1], bool)
    whole = place(np.ones(IR[::-1], np.float32), at, "blank")
    mask[whole.box] = whole.weight > 0
    sums = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    best = 0
    for top in range(0, VIS[1], 3):
        for bottom in range(top + 3, VIS[1], 3):
            height = bottom - top
            full = (sums[bottom, 1:] - sums[top, 1:] - sums[bottom, :-1] + sums[top, :-1]) == height
            run = np.diff(np.flatnonzero(np.concatenate([[1], ~full, [1]]))).max() - 1
            best = max(best, int(run) * height)
    area = (placed.box[0].stop - placed.box[0].start) * (placed.box[1].stop - placed.box[1].start)
    assert area >= best


def test_without_a_transform_everything_is_shown():
    assert shown(None, "crop") == shown(WINDOW, "vis") == (slice(None), slice(None))


def test_values_stay_within_those_of_ir():
    ir = np.zeros(IR[::-1], np.float32)
    ir[20:40, 30:50] = 1
    for scale in (0.4, 2.3):
        placed = place(ir, transform(similarity(IR, 5, scale)), "vis")
        assert (placed.ir.min(), placed.ir.max()) == (0, 1)


def test_shrinking_averages():
    """A pattern finer than the visible pixels must become grey, not another pattern."""
    ir = np.indices(IR[::-1]).sum(0).astype(np.float32) % 2
    placed = place(ir, transform([[0.25, 0, 10], [0, 0.25, 10], [0, 0, 1]]), "vis")
    assert np.allclose(placed.ir[2:-2, 2:-2], 0.5, atol=0.05)


def test_nothing_covered_is_an_error():
    with pytest.raises(ImageError, match="outside of the visible one"):
        place(np.ones(IR[::-1], np.float32), transform([[1, 0, 900], [0, 1, 0], [0, 0, 1]]), "vis")
