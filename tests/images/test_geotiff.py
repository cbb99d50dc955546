import subprocess
import sys

import cv2
import numpy as np
import pytest

from diffmf_cli.errors import ImageError
from diffmf_cli.images import geotiff
from diffmf_cli.images.geotiff import Georeference, encode_geotiff
from diffmf_cli.images.read import read_image

rasterio = pytest.importorskip("rasterio")
# A test run sets its own filters.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
PLACE = rasterio.Affine(0.5, 0, 447000, 0, -0.5, 5411000)
UTM = rasterio.CRS.from_epsg(32632)
RANDOM = np.random.default_rng(0)


def write(bands, **settings):
    """A GeoTIFF of `(bands, H, W)` by rasterio."""
    settings = {"crs": UTM, "transform": PLACE, **settings}
    with rasterio.MemoryFile() as file:
        count, height, width = bands.shape
        with file.open(
            driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype, **settings
        ) as dataset:
            dataset.write(bands)
        return file.read()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("layout", [{}, {"interleave": "band"}, {"tiled": True, "compress": "zstd"}])
@pytest.mark.parametrize("count", [1, 3])
def test_layouts_of_gdal(dtype, layout, count):
    bands = RANDOM.integers(0, 200, (count, 70, 90)).astype(dtype)
    image = read_image(write(bands, **layout))
    np.testing.assert_array_equal(image.pixels, bands[0] if count == 1 else np.moveaxis(bands, 0, 2))
    assert image.pixels.dtype == (np.float32 if dtype == "int16" else dtype)
    assert image.alpha is None
    assert image.notes == ()
    assert image.place.transform == tuple(PLACE)[:6]
    assert rasterio.CRS.from_wkt(image.place.crs) == UTM


@pytest.mark.parametrize("nodata", [-9999, np.nan])
def test_no_data_is_transparent_and_leaves_the_range_alone(nodata):
    bands = RANDOM.uniform(280, 300, (1, 20, 30)).astype(np.float32)
    bands[0, :5] = nodata
    image = read_image(write(bands, nodata=nodata))
    np.testing.assert_array_equal(image.pixels[5:], bands[0, 5:])
    np.testing.assert_allclose(image.pixels[:5], np.median(bands[0, 5:]), atol=1e-4)
    assert (image.alpha[:5] == 0).all()
    assert (image.alpha[5:] == 1).all()


def test_alpha_and_a_fourth_band():
    bands = RANDOM.integers(1, 255, (4, 8, 9)).astype(np.uint8)
    bands[3, :2] = 0
    image = read_image(write(bands, photometric="RGB", alpha="yes"))
    np.testing.assert_array_equal(image.alpha, bands[3])
    np.testing.assert_array_equal(image.pixels[2:], np.moveaxis(bands[:3, 2:], 0, 2))
    image = read_image(write(bands, photometric="MINISBLACK"), "f.tif")
    np.testing.assert_array_equal(image.pixels, np.moveaxis(bands[:3], 0, 2))
    assert image.notes == ("f.tif has 4 bands: the first three are taken for red, green and blue",)


def test_palette():
    bands = np.array([[[0, 1], [2, 1]]], np.uint8)
    with rasterio.MemoryFile() as file:
        with file.open(
            driver="GTiff", count=1, height=2, width=2, dtype="uint8", crs=UTM, transform=PLACE
        ) as dataset:
            dataset.write(bands)
            dataset.write_colormap(1, {0: (1, 2, 3, 255), 1: (10, 20, 30, 255), 2: (255, 0, 9, 255)})
        image = read_image(file.read())
    assert image.pixels.tolist() == [[[1, 2, 3], [10, 20, 30]], [[255, 0, 9], [10, 20, 30]]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
@pytest.mark.parametrize("transparent", [False, True])
def test_round_trip(dtype, shape, transparent):
    pixels = RANDOM.uniform(0, 1 if dtype == np.float32 else 255, shape).astype(dtype)
    alpha = np.full((7, 9), 1 if dtype == np.float32 else np.iinfo(dtype).max, dtype) if transparent else None
    if transparent:
        alpha[0] = 0
    place = Georeference(UTM.to_wkt(), tuple(PLACE)[:6])
    image = read_image(encode_geotiff(pixels, alpha, place))
    kept = slice(1 if transparent else 0, None)
    np.testing.assert_array_equal(image.pixels[kept], pixels[kept])
    assert image.pixels.dtype == dtype
    if transparent:
        np.testing.assert_array_equal(image.alpha, alpha)
    assert image.place.transform == place.transform
    assert rasterio.CRS.from_wkt(image.place.crs) == UTM


def test_a_part_lies_where_its_first_pixel_was():
    place = Georeference("", (0.5, 0.1, 100.0, 0.2, -0.5, 200.0))
    x, y = rasterio.Affine(*place.transform) @ (7, 3)
    assert place.moved(3, 7).transform == pytest.approx((0.5, 0.1, x, 0.2, -0.5, y))


@pytest.mark.parametrize(
    ("bands", "settings", "says"),
    [
        (np.zeros((2, 4, 4), np.uint8), {}, "is a GeoTIFF of 2 bands"),
        (np.zeros((7, 4, 4), np.uint16), {}, "is a GeoTIFF of 7 bands"),
        (np.zeros((1, 4, 4), np.complex64), {}, "is a GeoTIFF of complex64 values"),
        (np.zeros((1, 4, 4), np.float32), {"nodata": 0}, "holds no valid pixel"),
    ],
)
def test_what_is_no_picture(bands, settings, says):
    with pytest.raises(ImageError, match=f"^f.tif {says}"):
        read_image(write(bands, **settings), "f.tif")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
def test_truncated(share, capfd):
    data = write(RANDOM.integers(0, 255, (1, 200, 200)).astype(np.uint8), compress="lzw")
    with pytest.raises(ImageError, match=r"^f\.tif is a truncated or damaged (Geo)?TIFF.*again$") as caught:
        read_image(data[: int(share * len(data))], "f.tif")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_without_rasterio_pixels_are_read_and_the_loss_is_told(monkeypatch):
    monkeypatch.setattr(geotiff, "is_available", lambda: False)
    bands = RANDOM.integers(0, 255, (3, 6, 8)).astype(np.uint8)
    image = read_image(write(bands, photometric="RGB"), "f.tif")
    np.testing.assert_array_equal(image.pixels, np.moveaxis(bands, 0, 2))
    assert image.place is None
    assert len(image.notes) == 1
    assert "f.tif is a GeoTIFF: its georeference and its mask are lost" in image.notes[0]
    assert "pip install 'diffmf[geo]'" in image.notes[0]


def test_a_file_without_a_place_is_refused_without_a_word_of_rasterio(tmp_path):
    """In a process of its own: a test run has its own filters of warnings."""
    cv2.imwrite(str(tmp_path / "plain.tif"), np.zeros((9, 9), np.uint8))
    code = f"""
import pathlib
from diffmf_cli.errors import ImageError
from diffmf_cli.images.geotiff import read_place
try:
    read_place(pathlib.Path({str(tmp_path / "plain.tif")!r}))
except ImageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("has no place on Earth")
    assert done.stderr == ""
