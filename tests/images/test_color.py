from pathlib import Path

import numpy as np
import pytest

from diffmf_cli.images.color import DARK, luma, restore_color
from diffmf_cli.images.range import from_unit, to_unit
from diffmf_cli.images.read import read_image

DATA = Path(__file__).parents[3] / "shared" / "data" / "msrs" / "train"
EPS = 2e-6


def bt601(rgb):
    return rgb.astype(np.float64) @ (0.299, 0.587, 0.114)


def random_pair(seed=0, shape=(70, 90)):
    """Every kind of pixel: uniform, saturated, near black and grey ones, against any fused luma."""
    rng = np.random.default_rng(seed)
    vis = rng.random((*shape, 3), dtype=np.float32)
    vis[:10] = np.round(vis[:10])
    vis[10:30] *= rng.choice([0.01, 0.05, 0.1], (20, shape[1], 1)).astype(np.float32)
    vis[30:40] = vis[30:40, :, :1]
    fused = rng.random(shape, dtype=np.float32)
    fused[:, :5] = 0
    fused[:, 5:10] = 1
    return fused, vis


def test_luma_is_bt601_full_range():
    rgb = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]]], np.float32)
    np.testing.assert_allclose(luma(rgb), [[0.299, 0.587, 0.114, 1, 0]], atol=1e-6)
    assert luma(rgb.astype(np.float64)).dtype == np.float32


def test_in_gamut_without_clipping():
    fused, vis = random_pair()
    result = restore_color(fused, vis)
    assert result.dtype == np.float32
    assert result.min() >= -EPS
    assert result.max() <= 1 + EPS
    # A clipped pixel loses its luma: this is the check that nothing was.
    np.testing.assert_allclose(bt601(result), fused, atol=EPS)


def test_hue_is_kept():
    fused, vis = random_pair()
    result = restore_color(fused, vis)
    chroma = vis - bt601(vis)[..., None]
    kept = result - bt601(result)[..., None]
    cross = np.cross(chroma, kept)
    assert np.abs(cross).max() < EPS
    assert (chroma * kept).sum(2).min() > -EPS


def test_the_factor_is_the_largest_that_fits():
    fused, vis = random_pair()
    lit = luma(vis) >= DARK
    result = restore_color(fused, vis)
    chroma = vis - luma(vis)[..., None]
    kept = result - fused[..., None]
    unscaled = np.abs(kept - chroma).max(2) < EPS
    at_the_edge = np.minimum(result.min(2), 1 - result.max(2)) < EPS
    assert (unscaled | at_the_edge)[lit].all()
    assert unscaled[lit].any()
    assert (at_the_edge & ~unscaled)[lit].any()


def test_grey_stays_grey():
    # 15, 30 and 21 of 255 have a luma that rounds to the wrong side of their channels.
    levels = np.arange(256, dtype=np.float32) / 255
    vis = np.repeat(np.tile(levels, (256, 1))[..., None], 3, 2)
    fused = np.tile(levels[:, None], (1, 256))
    result = restore_color(fused, vis)
    np.testing.assert_allclose(result, np.repeat(fused[..., None], 3, 2), atol=EPS)


def test_the_luma_of_vis_gives_vis_back_everywhere():
    _, vis = random_pair()
    np.testing.assert_allclose(restore_color(luma(vis), vis), vis, atol=EPS)


def test_a_darker_luma_keeps_dark_chroma():
    vis = np.full((1, 1, 3), (0.08, 0.02, 0.04), np.float32)
    fused = luma(vis) * 0.9
    np.testing.assert_allclose(
        restore_color(fused, vis) - fused[..., None], vis - luma(vis)[..., None], atol=EPS
    )


def saturation(rgb):
    return (rgb.max(2) - rgb.min(2)).mean()


def test_noise_in_the_dark_does_not_become_coloured_speckle():
    rng = np.random.default_rng(1)
    vis = np.abs(rng.normal(0.02, 0.02, (64, 64, 3))).astype(np.float32)
    result = restore_color(np.full((64, 64), 0.6, np.float32), vis)
    assert saturation(result) < 0.35 * saturation(vis)


def test_damping_is_continuous_and_monotonic():
    fused = np.full((1, 500), 0.6, np.float32)
    ramp = np.linspace(0, 2 * DARK, 500, dtype=np.float32)[None]
    vis = ramp[..., None] * np.array([1.5, 1.0, 0.5], np.float32)
    kept = np.ptp(restore_color(fused, vis), 2)
    assert (np.diff(kept) > -EPS).all()
    assert np.diff(kept).max() < 0.002
    np.testing.assert_allclose(kept[0, -1], np.ptp(vis[0, -1]), atol=EPS)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (4, 1), (3, 4), (33, 70000)])
def test_any_size(shape):
    fused, vis = (np.random.default_rng(2).random(s, dtype=np.float32) for s in (shape, (*shape, 3)))
    result = restore_color(fused, vis)
    assert result.shape == (*shape, 3)
    np.testing.assert_allclose(luma(result), fused, atol=EPS)


@pytest.mark.skipif(not DATA.exists(), reason="no real pairs here")
def test_real_night_pairs():
    names = sorted(path.name for path in (DATA / "vi").glob("*N*"))[::30]
    assert names
    for name in names:
        vis = to_unit(read_image(DATA / "vi" / name).pixels)
        ir = to_unit(read_image(DATA / "ir" / name).pixels)
        fused = np.maximum(luma(vis), luma(ir) if ir.ndim == 3 else ir)
        result = restore_color(fused, vis)
        np.testing.assert_allclose(luma(result), fused, atol=EPS)
        assert result.min() >= -EPS
        assert result.max() <= 1 + EPS


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_whole_numbers_are_their_share_of_white(dtype):
    fused, vis = random_pair()
    given = from_unit(vis, np.uint8)
    expected = from_unit(restore_color(fused, to_unit(given)), dtype)
    result = restore_color(fused, given, dtype)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, expected)
