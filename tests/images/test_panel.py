import numpy as np
import pytest

from diffmf_cli.errors import UsageError
from diffmf_cli.images.panel import PALETTES, colorize, compose_panel


@pytest.mark.parametrize("palette", PALETTES)
def test_palettes_go_from_cold_to_hot(palette):
    ramp = colorize(np.linspace(0, 1, 256, dtype=np.float32)[None], palette)[0].astype(int)
    assert ramp.shape == (256, 3)
    assert len(np.unique(ramp, axis=0)) > 200
    if palette == "gray":
        np.testing.assert_array_equal(ramp, np.arange(256)[:, None].repeat(3, 1))
    if palette in ("inferno", "hot"):  # red comes before blue on the way to white
        assert ramp[128, 0] > ramp[128, 2]


def test_unknown_palette():
    with pytest.raises(UsageError, match="unknown palette 'infern': did you mean 'inferno'"):
        colorize(np.zeros((2, 2), np.float32), "infern")


def test_pictures_are_whole_under_their_labels(scene):
    ir, vis = scene
    panel = compose_panel(
        [("IR", ir), ("VIS", vis.astype(np.uint16) * 257), ("fused", vis / np.float32(255))]
    )
    label = panel.shape[0] - 48
    assert label > 0
    np.testing.assert_array_equal(panel[label:, :64], np.dstack([ir] * 3))
    np.testing.assert_array_equal(panel[label:, -64:], vis)
    gap = (panel.shape[1] - 3 * 64) // 2
    np.testing.assert_array_equal(panel[label:, 64 + gap : 128 + gap], vis)
    for left in (0, 64 + gap, 128 + 2 * gap):  # each has letters above it
        assert panel[:label, left : left + 64].max() > 128


def test_other_sizes_keep_their_aspect():
    panel = compose_panel(
        [("IR", np.full((10, 20), 90, np.uint8)), ("fused", np.full((40, 30), 9, np.uint8))]
    )
    assert (panel[-1] == 90).all(1).sum() == 80


def test_one_pixel():
    assert compose_panel([("IR", np.zeros((1, 1), np.uint8))] * 3).shape[2] == 3
