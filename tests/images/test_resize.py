import numpy as np
import pytest

from diffmf_cli.errors import UsageError
from diffmf_cli.images.resize import resize_to


def hot_target(dtype=np.float32, shape=(30, 40)):
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    ir = np.full(shape, 0.25 * top)
    ir[10:20, 15:25] = 0.9 * top
    return ir.astype(dtype)


def test_a_size_that_fits_costs_nothing():
    ir = hot_target()
    assert resize_to(ir, (30, 40)) is ir


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("size", [(120, 160), (33, 44), (45, 60), (15, 20), (3, 4)])
def test_no_value_beyond_the_range(dtype, size):
    ir = hot_target(dtype)
    resized = resize_to(ir, size)
    assert resized.shape == size
    assert resized.dtype == dtype
    assert resized.min() >= ir.min()
    assert resized.max() <= ir.max()


def test_no_rim_around_a_target():
    """Beside the edge too, where the range of the whole picture would leave room for an overshoot."""
    ir = hot_target()
    ir[0, 0], ir[-1, -1] = 0, 1
    grown = resize_to(ir, (240, 320))
    assert grown[16:-16, 16:-16].min() >= np.float32(0.25)
    assert grown[16:-16, 16:-16].max() <= np.float32(0.9)


def test_growing_is_sharper_than_bilinear():
    y, x = np.mgrid[0:1:240j, 0:1:320j]
    scene = (0.5 + 0.4 * np.sin(50 * x) * np.cos(40 * y)).astype(np.float32)
    grown = resize_to(scene.reshape(60, 4, 80, 4)[:, 1:3, :, 1:3].mean((1, 3)), (240, 320))
    assert np.sqrt(((grown - scene)[8:-8, 8:-8] ** 2).mean()) < 0.01  # bilinear: 0.016


def test_shrinking_is_the_mean():
    ir = np.random.default_rng(0).random((60, 80), dtype=np.float32)
    np.testing.assert_allclose(resize_to(ir, (15, 20)), ir.reshape(15, 4, 20, 4).mean((1, 3)), atol=1e-6)


def test_colour_infrared():
    assert resize_to(np.dstack([hot_target()] * 3), (60, 80)).shape == (60, 80, 3)


@pytest.mark.parametrize("ir", [(480, 640), (512, 640), (240, 320), (482, 640), (1, 1)])
@pytest.mark.parametrize("vis", [(480, 640), (768, 1024), (1080, 1920)])
def test_aspect_ratio(ir, vis):
    ratio = (ir[1] / ir[0]) / (vis[1] / vis[0])
    if max(ratio, 1 / ratio) <= 1.02:
        assert resize_to(np.zeros(ir, np.uint8), vis).shape == vis
        return
    with pytest.raises(UsageError) as caught:
        resize_to(np.zeros(ir, np.uint8), vis)
    message = str(caught.value)
    assert f"{ir[1]}x{ir[0]}" in message
    assert f"{vis[1]}x{vis[0]}" in message
    assert "--stretch" in message
    assert resize_to(np.zeros(ir, np.uint8), vis, stretch=True).shape == vis


@pytest.mark.parametrize(
    ("height", "fits"), [(1000, True), (1019, True), (982, True), (1021, False), (979, False)]
)
def test_the_tolerance_is_two_percent_either_way(height, fits):
    ir = np.zeros((height, 1000), np.uint8)
    if fits:
        resize_to(ir, (500, 500))
    else:
        with pytest.raises(UsageError):
            resize_to(ir, (500, 500))


def test_a_turned_picture_is_named_so():
    with pytest.raises(UsageError, match="turned by 90 degrees"):
        resize_to(np.zeros((640, 480), np.uint8), (480, 640))


@pytest.mark.parametrize("size", [(60, 20), (15, 80), (1, 500), (500, 1), (1, 1)])
def test_stretching_grows_one_axis_and_shrinks_the_other(size):
    ir = hot_target(np.uint16)
    resized = resize_to(ir, size, stretch=True)
    assert resized.shape == size
    assert resized.min() >= ir.min()
    assert resized.max() <= ir.max()
