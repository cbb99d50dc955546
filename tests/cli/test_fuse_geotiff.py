"""`diffmf fuse` keeps where the visible picture lies."""

import cv2
import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio")
PLACE = rasterio.Affine(0.5, 0, 447000, 0, -0.5, 5411000)


@pytest.fixture
def geo(tmp_path, scene):
    """`scene`: a thermal raster of half the resolution, and a visible one with no data in a corner."""
    vis = np.moveaxis(scene[1], 2, 0).clip(1, 255)
    vis[:, :6, :9] = 0
    ir = cv2.resize(scene[0], (32, 24)).astype(np.float32) / 10 + 280
    paths = tmp_path / "ir.tif", tmp_path / "vis.tif"
    for path, bands, scale, nodata in ((paths[0], ir[None], 2, -9999), (paths[1], vis, 1, 0)):
        count, height, width = bands.shape
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype=bands.dtype,
            crs="EPSG:32632",
            transform=PLACE @ rasterio.Affine.scale(scale),
            nodata=nodata,
        ) as dataset:
            dataset.write(bands)
    return paths


@pytest.mark.parametrize("outside", ["vis", "crop"])
def test_the_result_lies_where_vis_does(cli, geo, tiny_model, tmp_path, outside):
    from diffmf_cli.alignment.transform import Transform

    moved = Transform(np.array([[2, 0, 10], [0, 2, 4], [0, 0, 1]], float), "affine", (32, 24), (64, 48), 1.0)
    (tmp_path / "rig.json").write_bytes(moved.to_json())
    result = cli("fuse", *geo, "-m", tiny_model, "--align", tmp_path / "rig.json", "--outside", outside)
    assert result.code == 0
    assert "georeference" not in result.err
    with rasterio.open(tmp_path / "vis_fused.tif") as dataset:
        left, top = (64 - dataset.width, 48 - dataset.height)
        assert (outside == "crop") == (left > 0 and top > 0)
        assert dataset.transform.almost_equals(PLACE @ rasterio.Affine.translation(left, top))
        assert dataset.crs == rasterio.CRS.from_epsg(32632)
        valid = dataset.dataset_mask() > 0
    expected = np.ones((48, 64), bool)
    expected[:6, :9] = False
    np.testing.assert_array_equal(valid, expected[top:, left:])


def test_a_format_without_georeference_is_told(cli, geo, tiny_model, tmp_path):
    result = cli("fuse", *geo, "-m", tiny_model, "-o", tmp_path / "out.png")
    assert result.code == 0
    assert "PNG holds no georeference: write .tif" in result.err


def test_a_batch_keeps_it_too(cli, geo, tiny_model, tmp_path):
    (tmp_path / "pairs.csv").write_text(f"ir,vis\n{geo[0]},{geo[1]}\n")
    out = tmp_path / "out"
    assert cli("batch", "--pairs", tmp_path / "pairs.csv", "-o", out, "-m", tiny_model).code == 0
    with rasterio.open(out / "vis_fused.tif") as dataset:
        assert dataset.transform == PLACE
