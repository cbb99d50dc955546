"""`diffmf fuse` on what thermal cameras write, and its panel."""

import sys

import cv2
import numpy as np
import pytest

import diffmf_cli


@pytest.fixture
def flir(tmp_path, flir_jpeg, scene):
    """A FLIR file with `scene`: its infrared picture as counts around room temperature."""
    pytest.importorskip("flyr")
    path = tmp_path / "flir.jpg"
    path.write_bytes(flir_jpeg(13000 + 20 * scene[0].astype(np.uint16), scene[1]))
    return path


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_one_flir_file_is_a_pair(cli, flir, scene, tiny_model, tmp_path):
    from diffmf_cli.images.read import read_image

    result = cli("fuse", flir, "--ir-range", "10C,40C", "-m", tiny_model, "--device", "cpu", "--json")
    assert result.code == 0
    assert result.json["output"] == str(tmp_path / "flir_fused.png")
    fuser = diffmf_cli.load_model(str(tiny_model), device="cpu")
    expected = fuser.fuse(read_image(flir).pixels, scene[1], ir_range="10,40")
    np.testing.assert_array_equal(read(tmp_path / "flir_fused.png")[:, :, ::-1], expected)
    other = fuser.fuse(read_image(flir).pixels, scene[1])
    assert not np.array_equal(other, expected)  # the range counts


def test_kelvin_and_fahrenheit_mean_the_same(cli, flir, tiny_model, tmp_path):
    files = []
    for name, span in (("c", "10C,40C"), ("f", "50F,104F"), ("k", "283.15K,313.15K")):
        files.append(tmp_path / f"{name}.png")
        assert cli("fuse", flir, "--ir-range", span, "-m", tiny_model, "-o", files[-1]).code == 0
    pictures = [read(file).astype(int) for file in files]
    assert max(np.abs(picture - pictures[0]).max() for picture in pictures) <= 1


def test_degrees_of_a_picture_without_any(cli, pair, tiny_model, tmp_path):
    result = cli("fuse", *pair, "--ir-range", "10C,40C", "-m", tiny_model)
    assert result.code == 2
    assert f"{pair[0]} holds no temperatures" in result.err
    assert not (tmp_path / "vis_fused.png").exists()


def test_without_flyr(cli, flir, tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "flyr", None)
    result = cli("fuse", flir, "-m", tiny_model)
    assert result.code == 1
    assert result.err.strip().count("\n") == 0
    assert "pip install 'diffmf[thermal]'" in result.err


def test_vis_is_missing(cli, pair, tiny_model):
    for arguments in ((pair[0],), ("-",)):
        result = cli("fuse", *arguments, "-m", tiny_model)
        assert result.code == 2
        assert "VIS is missing" in result.err


def test_raw(cli, pair, scene, tiny_model, tmp_path):
    raw = tmp_path / "ir.raw"
    raw.write_bytes((scene[0].astype("<u2") * 30 + 7000).tobytes())
    common = ("-m", tiny_model, "--device", "cpu", "--ir-range", "7000,14650")
    assert cli("fuse", raw, pair[1], "--raw", "64x48:u16le", "-o", tmp_path / "a.png", *common).code == 0
    cv2.imwrite(str(tmp_path / "ir16.png"), scene[0].astype(np.uint16) * 30 + 7000)
    assert cli("fuse", tmp_path / "ir16.png", pair[1], "-o", tmp_path / "b.png", *common).code == 0
    np.testing.assert_array_equal(read(tmp_path / "a.png"), read(tmp_path / "b.png"))
    wrong = cli("fuse", raw, pair[1], "--raw", "640x512:u16le", "-o", tmp_path / "c.png", *common)
    assert wrong.code == 1
    assert f"{raw} has 6144 bytes" in wrong.err


def test_panel_shows_no_soft_border_of_the_infrared_picture(cli, pair, tiny_model, tmp_path):
    """Where the result is blended, false colours would show something cold."""
    from diffmf_cli.alignment.transform import Transform

    saved = Transform(np.array([[1, 0, 10], [0, 1, 4], [0, 0, 1]], float), "affine", (64, 48), (64, 48), 1.0)
    (tmp_path / "rig.json").write_bytes(saved.to_json())
    panel = tmp_path / "panel.png"
    options = ("--align", tmp_path / "rig.json", "--outside", "vis", "--panel", panel)
    assert cli("fuse", *pair, "-m", tiny_model, "-o", tmp_path / "o.png", *options).code == 0
    ir = np.zeros((48, 64), np.uint8)
    ir[4:, 10:] = read(pair[0])[:44, :54]
    assert np.abs(read(panel)[-48:, :64, 0].astype(int) - ir).max() <= 1


@pytest.mark.parametrize("align", ["none", "crop"])
def test_panel(cli, pair, tiny_model, tmp_path, align):
    panel, out = tmp_path / "panel.png", tmp_path / "out.png"
    options = []
    if align == "crop":
        from diffmf_cli.alignment.transform import Transform

        shift = np.array([[1, 0, 10], [0, 1, 4], [0, 0, 1]], float)
        saved = Transform(shift, "affine", (64, 48), (64, 48), 1.0)
        (tmp_path / "rig.json").write_bytes(saved.to_json())
        options = ["--align", tmp_path / "rig.json", "--outside", "crop"]
    result = cli("fuse", *pair, "-m", tiny_model, "-o", out, "--panel", panel, "--json", *options)
    assert result.code == 0
    assert result.json["panel"] == str(panel)
    fused, vis, whole = read(out), read(pair[1]), read(panel)
    height, width = fused.shape[:2]
    np.testing.assert_array_equal(whole[-height:, -width:], fused)
    gap = (whole.shape[1] - 3 * width) // 2
    shown = vis[48 - height :, 64 - width :]  # what a shift to the lower right leaves
    np.testing.assert_array_equal(whole[-height:, width + gap : 2 * width + gap], shown)
    ir = cv2.cvtColor(read(pair[0]), cv2.COLOR_GRAY2BGR)[:height, :width]
    assert np.abs(whole[-height:, :width].astype(int) - ir).max() <= 1


def test_palette_colours_the_infrared_picture(cli, pair, tiny_model, tmp_path):
    panel = tmp_path / "panel.png"
    common = ("fuse", *pair, "-m", tiny_model, "-o", tmp_path / "o.png")
    assert cli(*common, "--panel", panel, "--palette", "inferno").code == 0
    ir, shown = read(pair[0]), read(panel)[-48:, :64]
    expected = cv2.applyColorMap(ir, cv2.COLORMAP_INFERNO)
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--palette", "inferno"), "add --panel"),
        (("--panel", "p.png", "--palette", "infernal"), "unknown palette 'infernal'"),
        (("--panel", "p.xyz"), "'.xyz' names no picture format"),
        (("--panel", "vis_fused.png"), "is OUT as well"),
        (("--panel", "vis.png"), "is an input"),
        (("--raw", "640x"), "raw layout '640x' is not understood"),
    ],
)
def test_what_cannot_be_meant(cli, pair, tiny_model, tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    result = cli("fuse", "ir.png", "vis.png", "-m", tiny_model, *options)
    assert (result.code, result.err.strip().count("\n")) == (2, 0)
    assert says in result.err
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["ir.png", "vis.png"]


def test_a_flight_in_one_range(cli, flir_jpeg, scene, tiny_model, tmp_path):
    """`diffmf batch` over FLIR files that are both pictures; `set:` spans the degrees of all of them."""
    pytest.importorskip("flyr")
    counts = 13000 + 20 * scene[0].astype(np.uint16)
    for index in range(2):
        (tmp_path / f"{index}.jpg").write_bytes(flir_jpeg(counts + 1000 * index, scene[1]))
    rows = "".join(f"{tmp_path}/{index}.jpg,{tmp_path}/{index}.jpg\n" for index in range(2))
    (tmp_path / "pairs.csv").write_text(f"ir,vis\n{rows}")
    common = ("batch", "--pairs", tmp_path / "pairs.csv", "-m", tiny_model, "--device", "cpu")
    assert cli(*common, "-o", tmp_path / "out", "--ir-range", "set:0,100").code == 0
    from diffmf_cli.images.read import read_image

    both = [read_image(tmp_path / f"{index}.jpg").pixels for index in range(2)]
    span = f"{min(b.min() for b in both)}C,{max(b.max() for b in both)}C"
    assert cli(*common, "-o", tmp_path / "degrees", "--ir-range", span).code == 0
    for index in range(2):
        fused = read(tmp_path / "out" / f"{index}_fused.png").astype(int)
        assert np.abs(fused - read(tmp_path / "degrees" / f"{index}_fused.png")).max() <= 1


@pytest.mark.parametrize("command", ["batch", "evaluate", "align"])
def test_degrees_elsewhere(cli, pair, tiny_model, tmp_path, command):
    """No command takes degrees for counts."""
    for path, folder in zip(pair, ("ir", "vis"), strict=True):
        (tmp_path / folder).mkdir()
        for name in ("a.png", "b.png"):
            (tmp_path / folder / name).write_bytes(path.read_bytes())
    folders = (tmp_path / "ir", tmp_path / "vis")
    calls = {
        "batch": ("batch", *folders, "-o", tmp_path / "out", "-m", tiny_model),
        "align": ("align", *folders, "-o", tmp_path / "rig.json"),
        "evaluate": ("evaluate", "--ir", folders[0], "--vis", folders[1], "--baselines"),
    }
    result = cli(*calls[command], "--ir-range", "10C,40C")
    assert result.code != 0
    assert "a.png holds no temperatures" in result.err


def test_a_list_of_raw_files_in_one_range(cli, pair, scene, tiny_model, tmp_path):
    counts = scene[0].astype("<u2") * 30 + 7000
    for index in range(2):
        (tmp_path / f"{index}.raw").write_bytes((counts + 100 * index).astype("<u2").tobytes())
    rows = "".join(f"{tmp_path}/{index}.raw,{pair[1]},{index}.png\n" for index in range(2))
    (tmp_path / "pairs.csv").write_text(f"ir,vis,output\n{rows}")
    common = ("batch", "--pairs", tmp_path / "pairs.csv", "-m", tiny_model, "--device", "cpu")
    raw = ("--raw", "64x48:u16le")
    result = cli(*common, "-o", tmp_path / "out", *raw, "--ir-range", "set:0,100")
    assert result.code == 0
    span = f"{counts.min()},{counts.max() + 100}"
    for index in range(2):
        single = tmp_path / f"{index}.png"
        files = (tmp_path / f"{index}.raw", pair[1])
        common_one = ("-o", single, "-m", tiny_model, "--device", "cpu", "--ir-range", span)
        assert cli("fuse", *files, *raw, *common_one).code == 0
        np.testing.assert_array_equal(read(tmp_path / "out" / f"{index}.png"), read(single))


def test_raw_in_a_batch_that_cannot_be_meant(cli, pair, tiny_model, tmp_path):
    (tmp_path / "pairs.csv").write_text(f"ir,vis\n{pair[0]},{pair[1]}\n")
    for inputs, raw, says in (
        ((tmp_path, tmp_path), "4x4:u8", "give --pairs instead"),
        (("--pairs", tmp_path / "pairs.csv"), "4x4:u9", "raw layout '4x4:u9' is not understood"),
    ):
        result = cli("batch", *inputs, "-o", tmp_path / "out", "-m", tiny_model, "--raw", raw)
        assert result.code == 2
        assert says in result.err
        assert not (tmp_path / "out").exists()


def test_one_focal_length_says_nothing_of_two_cameras(cli, flir, tiny_model, tmp_path, monkeypatch):
    """The file's EXIF is that of one of its cameras: it must not hint that both see the same view."""
    from diffmf_cli.alignment import focal

    asked = []
    monkeypatch.setattr(focal, "fov_ratio", lambda *sources: asked.append(sources))
    assert cli("fuse", flir, "--align", "auto", "-m", tiny_model, "-o", tmp_path / "a.png").code == 0
    assert asked == []
    photo = tmp_path / "photo.png"
    photo.write_bytes((tmp_path / "a.png").read_bytes())
    assert cli("fuse", flir, photo, "--align", "auto", "-m", tiny_model, "-o", tmp_path / "b.png").code == 0
    assert asked == [(flir, photo)]
