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


@pytest.fixture
def survey(tmp_path):
    """A thermal raster of 2 m over a part of a visible one of 0.5 m, as two flights leave them."""
    random = np.random.default_rng(1)
    ir = cv2.GaussianBlur(random.uniform(280, 310, (40, 50)).astype(np.float32), (0, 0), 2)[None]
    vis = random.integers(1, 255, (3, 120, 160)).astype(np.uint8)
    ir_place = PLACE @ rasterio.Affine.translation(-8, 12) @ rasterio.Affine.scale(4)
    paths = tmp_path / "thermal.tif", tmp_path / "ortho.tif"
    for path, bands, place in ((paths[0], ir, ir_place), (paths[1], vis, PLACE)):
        count, height, width = bands.shape
        profile = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
        with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32632", transform=place, **profile) as file:
            file.write(bands)
    return paths, (ir[0], np.moveaxis(vis, 0, 2))


def test_coordinates_align(cli, survey, tiny_model, tmp_path):
    import diffmf_cli
    from diffmf_cli.alignment.transform import Transform

    paths, (ir, vis) = survey
    result = cli("fuse", *paths, "-m", tiny_model, "--align", "geo", "--device", "cpu", "--json")
    assert result.code == 0
    matrix = [[4, 0, -8 + 1.5], [0, 4, 12 + 1.5], [0, 0, 1]]
    np.testing.assert_allclose(result.json["align"]["matrix"], matrix, atol=1e-5)
    transform = Transform(np.array(matrix, float), "affine", (50, 40), (160, 120), 0.0)
    expected = diffmf_cli.load_model(str(tiny_model), device="cpu").fuse(ir, vis, align=transform)
    with rasterio.open(tmp_path / "ortho_fused.tif") as dataset:
        np.testing.assert_allclose(np.moveaxis(dataset.read(), 0, 2).astype(int), expected, atol=1)


def test_coordinates_that_differ_are_told_where_they_are_not_used(cli, survey, geo, tiny_model, tmp_path):
    said = "thermal.tif and"
    result = cli("fuse", *survey[0], "-m", tiny_model, "--stretch")
    assert said in result.err
    assert "--align geo" in result.err
    (tmp_path / "pairs.csv").write_text(f"ir,vis\n{survey[0][0]},{survey[0][1]}\n")
    result = cli(
        "batch", "--pairs", tmp_path / "pairs.csv", "-o", tmp_path / "o", "-m", tiny_model, "--stretch"
    )
    assert said in result.err
    assert "--align geo" not in cli("fuse", *geo, "-m", tiny_model).err


def test_a_region_is_the_same_as_files_cut_before(cli, survey, tiny_model, tmp_path, monkeypatch):
    (ir_path, vis_path), (_, vis) = survey
    common = ("-m", tiny_model, "--align", "geo", "--device", "cpu", "--ir-range", "280,310")
    cut = tmp_path / "cut.tif"
    place = PLACE @ rasterio.Affine.translation(48, 24)
    profile = {"count": 3, "height": 64, "width": 80, "dtype": "uint8"}
    with rasterio.open(cut, "w", driver="GTiff", crs="EPSG:32632", transform=place, **profile) as dataset:
        dataset.write(np.moveaxis(vis[24:88, 48:128], 2, 0))
    assert cli("fuse", ir_path, cut, *common).code == 0

    def whole(path):
        raise AssertionError(f"{path} was read whole")

    monkeypatch.setattr("diffmf_cli.fusion.files.load", whole)
    monkeypatch.setattr("diffmf_cli.images.read.load", whole)
    result = cli("fuse", ir_path, vis_path, *common, "--region", "48,24,80,64", "--json")
    assert result.code == 0
    assert (result.json["width"], result.json["height"]) == (80, 64)
    assert (result.json["ir_width"], result.json["ir_height"]) == (26, 22)  # of 50x40: 20x16 and a margin
    with (
        rasterio.open(tmp_path / "ortho_fused.tif") as part,
        rasterio.open(tmp_path / "cut_fused.tif") as all_,
    ):
        assert part.transform == all_.transform == place
        np.testing.assert_allclose(part.read().astype(int), all_.read(), atol=1)


@pytest.mark.parametrize(
    ("region", "says"),
    [
        ("1,2,3", "region '1,2,3' is not understood"),
        ("0,0,0,9", "has no pixels"),
        ("100,0,80,64", "is not within"),
    ],
)
def test_regions_that_are_none(cli, survey, tiny_model, region, says):
    result = cli("fuse", *survey[0], "-m", tiny_model, "--align", "geo", "--region", region)
    assert result.code == 2
    assert says in result.err


def test_regions_of_files_that_are_none(cli, survey, pair, tiny_model, tmp_path):
    (ir, vis), _ = survey
    half, plain = tmp_path / "half.tif", tmp_path / "plain.tif"
    half.write_bytes(ir.read_bytes()[: ir.stat().st_size // 2])
    cv2.imwrite(str(plain), np.zeros((9, 9), np.uint8))
    for path, says in (
        (half, "half.tif is no GeoTIFF, or a damaged one"),
        (pair[0], "is no GeoTIFF, or a damaged one"),
        (plain, "plain.tif has no place on Earth"),
        (tmp_path / "no.tif", "no.tif does not exist"),
        (tmp_path, "is a folder"),
    ):
        options = ("--align", "geo", "--region", "48,24,80,64", "-o", tmp_path / "out.tif")
        result = cli("fuse", path, vis, "-m", tiny_model, *options)
        assert result.code == 1
        assert says in result.err
        assert len(result.err.splitlines()) == 1
        assert not (tmp_path / "out.tif").exists()


def test_a_region_needs_coordinates(cli, survey, pair, tiny_model):
    result = cli("fuse", *survey[0], "-m", tiny_model, "--region", "0,0,9,9")
    assert result.code == 2
    assert "add --align geo" in result.err
    result = cli("fuse", *pair, "-m", tiny_model, "--align", "geo")
    assert result.code == 2
    assert "has no place on Earth" in result.err


def test_a_batch_aligns_by_coordinates(cli, survey, tiny_model, tmp_path):
    paths, _ = survey
    (tmp_path / "pairs.csv").write_text(f"ir,vis\n{paths[0]},{paths[1]}\n")
    out = tmp_path / "out"
    common = ("-m", tiny_model, "--align", "geo", "--device", "cpu")
    assert cli("batch", "--pairs", tmp_path / "pairs.csv", "-o", out, *common).code == 0
    assert cli("fuse", *paths, *common).code == 0
    with rasterio.open(out / "ortho_fused.tif") as one, rasterio.open(tmp_path / "ortho_fused.tif") as other:
        np.testing.assert_array_equal(one.read(), other.read())
