import numpy as np
import pytest

from diffmf_cli.alignment.coordinates import by_coordinates
from diffmf_cli.alignment.geometry import project
from diffmf_cli.errors import ImageError, UsageError
from diffmf_cli.images.geotiff import Georeference
from diffmf_cli.images.read import Image

rasterio = pytest.importorskip("rasterio")
UTM32, UTM33, WGS84 = (rasterio.CRS.from_epsg(code).to_wkt() for code in (32632, 32633, 4326))
NORTH_UP = (0.5, 0, 447000.0, 0, -0.5, 5411000.0)


def image(size, transform, crs=UTM32, name="f.tif"):
    return Image(np.zeros(size[::-1], np.float32), None, name, place=Georeference(crs, transform))


VIS = image((200, 150), NORTH_UP, name="vis.tif")


def test_same_system_is_exact():
    """Pixels of 2 m in those of 0.5 m, whose first corner is 10 m east and 5 m south."""
    found = by_coordinates(image((20, 16), (2, 0, 447010, 0, -2, 5410995)), VIS)
    np.testing.assert_allclose(found.matrix, [[4, 0, 21.5], [0, 4, 11.5], [0, 0, 1]], atol=1e-6)
    assert (found.model, found.ir_size, found.vis_size, found.score) == ("affine", (20, 16), (200, 150), 0)


def test_a_turned_grid():
    turned = tuple(
        rasterio.Affine(*NORTH_UP) @ rasterio.Affine.rotation(10) @ rasterio.Affine.translation(20, 3)
    )
    found = by_coordinates(image((50, 40), turned[:6]), VIS)
    inner = rasterio.Affine.rotation(10) @ rasterio.Affine.translation(20, 3)
    assert project(found.matrix, np.array([[7, 9]]))[0] == pytest.approx(np.array(inner @ (7.5, 9.5)) - 0.5)


@pytest.mark.parametrize("crs", [UTM33, WGS84])
def test_other_systems(crs):
    """Held to GDAL's own transformation of single points."""
    from rasterio.warp import transform

    east, north = transform(rasterio.CRS.from_wkt(UTM32), rasterio.CRS.from_wkt(crs), [447020], [5410990])
    step = 1e-5 if crs == WGS84 else 1.0
    place = (step, 0, east[0], 0, -step, north[0])
    found = by_coordinates(image((40, 30), place, crs), VIS)
    assert found.model == "homography"
    for x, y in ((0, 0), (39, 0), (20, 29)):
        lon, lat = rasterio.Affine(*place) @ (x + 0.5, y + 0.5)
        back = transform(rasterio.CRS.from_wkt(crs), rasterio.CRS.from_wkt(UTM32), [lon], [lat])
        expected = np.array(~rasterio.Affine(*NORTH_UP) @ (back[0][0], back[1][0])) - 0.5
        assert project(found.matrix, np.array([[x, y]]))[0] == pytest.approx(expected, abs=0.02)


def test_projections_that_no_matrix_joins():
    wide = (0.05, 0, 5.0, 0, -0.05, 55.0)  # 10 degrees
    with pytest.raises(ImageError, match="gdalwarp"):
        by_coordinates(image((200, 200), wide, WGS84), image((2000, 2000), (400, 0, 1e5, 0, -400, 6.1e6)))


@pytest.mark.parametrize(
    ("ir", "kind", "says"),
    [
        (Image(np.zeros((4, 4)), None, "plain.tif"), UsageError, "plain.tif has no place on Earth"),
        (
            image((20, 16), NORTH_UP, "", "no.tif"),
            UsageError,
            "no.tif does not say in which coordinate system",
        ),
        (
            image((20, 16), (2, 0, 449000, 0, -2, 5410995)),
            ImageError,
            "f.tif and vis.tif show different places",
        ),
    ],
)
def test_what_cannot_be_placed(ir, kind, says):
    with pytest.raises(kind, match=says):
        by_coordinates(ir, VIS)
