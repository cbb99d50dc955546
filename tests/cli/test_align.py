"""`diffmf align`, and `diffmf fuse --align`."""

import json

import cv2
import numpy as np
import pytest

SIZE = 320, 240
SHIFT = np.array([[1, 0, 24], [0, 1, -15], [0, 0, 1]], np.float64)


def save(path, picture):
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), np.rint(picture * 255).astype(np.uint8))
    return path


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.fixture
def shifted(scene_of, tmp_path):
    """Files of a pair whose infrared picture is shifted by `SHIFT`."""
    ir, vis = scene_of(0, SIZE)
    ir = cv2.warpPerspective(ir, SHIFT, SIZE)
    return save(tmp_path / "ir.png", ir), save(tmp_path / "vis.png", vis)


@pytest.fixture
def fuse(cli, shifted, tiny_model):
    return lambda *args, pair=shifted: cli("fuse", *pair, "-m", tiny_model, *args)


def near_truth(matrix):
    at = np.array([[0, 0, 1], [319, 0, 1], [319, 239, 1], [0, 239, 1]]).T
    return np.abs(np.array(matrix) @ at - np.linalg.inv(SHIFT) @ at).max() < 1


def test_auto_finds_saves_and_a_saved_one_gives_the_same(fuse, tmp_path):
    result = fuse(
        "--align", "auto", "--save-align", tmp_path / "rig.json", "-o", tmp_path / "a.png", "--json"
    )
    assert result.code == 0
    assert near_truth(result.json["align"]["matrix"])
    assert result.json["notices"] == []
    assert "align" in result.json["seconds"]
    assert near_truth(json.loads((tmp_path / "rig.json").read_text())["matrix"])
    again = fuse("--align", tmp_path / "rig.json", "-o", tmp_path / "b.png", "--json")
    assert again.code == 0
    assert np.abs(read(tmp_path / "a.png").astype(int) - read(tmp_path / "b.png")).max() <= 1
    assert fuse("-o", tmp_path / "c.png", "--json").json["align"] is None
    assert not np.array_equal(read(tmp_path / "a.png"), read(tmp_path / "c.png"))


def test_outside(fuse, shifted, tmp_path):
    vis = read(shifted[1])
    for word in ("vis", "blank", "crop"):
        assert fuse("--align", "auto", "--outside", word, "-o", tmp_path / f"out_{word}.png").code == 0
    # IR lies 24 to the left and 15 down: the right strip and the top are beyond it.
    filled, blank, crop = (read(tmp_path / f"out_{word}.png") for word in ("vis", "blank", "crop"))
    assert np.array_equal(filled[:12, :290], vis[:12, :290])
    assert np.array_equal(filled[20:, 300:], vis[20:, 300:])
    assert not blank[:12].any()
    assert not blank[:, 300:].any()
    assert blank[60, 100] > 0
    assert crop.shape[0] == pytest.approx(225, abs=2)
    assert crop.shape[1] == pytest.approx(296, abs=2)


def test_crop_keeps_alpha_and_colours_together(cli, shifted, tiny_model, tmp_path):
    grey = read(shifted[1])
    x, y = np.meshgrid(np.arange(320), np.arange(240))
    save(tmp_path / "rgba.png", np.dstack([grey, grey, grey // 2, (x + y) % 256]) / 255)
    result = cli(
        "fuse", shifted[0], tmp_path / "rgba.png", "-m", tiny_model, "--align", "auto", "--outside", "crop"
    )
    fused = read(tmp_path / "rgba_fused.png")
    assert result.code == 0
    assert fused.shape[2] == 4
    assert (fused.shape[0], fused.shape[1]) == (pytest.approx(225, abs=2), pytest.approx(296, abs=2))
    top = 240 - fused.shape[0]
    assert np.array_equal(fused[:, :, 3], ((x + y) % 256)[top:, : fused.shape[1]])


def test_a_pair_without_a_clear_gain_is_left_with_a_warning(fuse, scene_of, tmp_path):
    pair = save(tmp_path / "a.png", scene_of(0, SIZE)[0]), save(tmp_path / "b.png", scene_of(0, SIZE)[1])
    assert fuse("-o", tmp_path / "plain.png", pair=pair).code == 0
    result = fuse(
        "--align", "auto", "--save-align", tmp_path / "r.json", "-o", tmp_path / "o.png", "--json", pair=pair
    )
    assert result.code == 0
    assert "Note: not aligned" in result.err
    assert "r.json is not written" in result.err
    assert result.json["align"] is None
    assert not (tmp_path / "r.json").exists()
    assert np.array_equal(read(tmp_path / "o.png"), read(tmp_path / "plain.png"))


def test_a_narrow_view_of_another_shape_needs_no_stretch(fuse, scene_of, shifted, tmp_path):
    ir, vis = scene_of(5, (800, 600))
    save(tmp_path / "wide.png", vis)
    save(tmp_path / "narrow.png", cv2.resize(ir[100:420, 200:600], (320, 256), interpolation=cv2.INTER_AREA))
    pair = tmp_path / "narrow.png", tmp_path / "wide.png"
    result = fuse("--align", "auto", "--fov-ratio", "0.5", "-o", tmp_path / "o.png", "--json", pair=pair)
    assert result.code == 0
    assert np.allclose(
        result.json["align"]["matrix"], [[1.25, 0, 200], [0, 1.25, 100], [0, 0, 1]], atol=2, rtol=0.01
    )
    assert read(tmp_path / "o.png").shape == (600, 800)


def test_shapes_that_differ_and_do_not_match_are_an_error(fuse, scene_of, tmp_path):
    pair = (
        save(tmp_path / "a.png", scene_of(0, (200, 240))[0]),
        save(tmp_path / "b.png", scene_of(7, SIZE)[1]),
    )
    result = fuse("--align", "auto", "-o", tmp_path / "o.png", pair=pair)
    assert result.code == 2
    assert "200x240" in result.err
    assert "--fov-ratio R helps --align auto" in result.err
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--align", "atuo"], 2, "did you mean 'auto'?"),
        (["--align", "no.json"], 2, "no.json: cannot read the alignment"),
        (["--align", "bad.json"], 2, "bad.json is not a JSON file"),
        (["--align", "singular.json"], 2, "singular.json: 'matrix' is singular"),
        (["--align", "sizes.json"], 2, "sizes.json is for IR pictures of 640x512, this one has 320x240"),
        (["--align", "auto", "--outside", "blnk"], 2, "did you mean 'blank'?"),
        (["--outside", "blank"], 2, "--outside blank is for an aligned IR: add --align, or leave it out"),
        (["--align", "auto", "--fov-ratio", "0"], 2, "ratio 0 is out of range"),
        (["--fov-ratio", "0.5"], 2, "--fov-ratio 0.5 helps --align auto only"),
        (["--save-align", "new.json"], 2, "--save-align new.json keeps what --align auto finds"),
        (["--align", "auto", "--save-align", "bad.json"], 1, "bad.json exists"),
    ],
)
def test_mistakes(fuse, tmp_path, monkeypatch, args, code, says):
    monkeypatch.chdir(tmp_path)
    good = {"matrix": np.eye(3).tolist(), "ir_size": [640, 512], "vis_size": [320, 240]}
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "singular.json").write_text(json.dumps(good | {"matrix": [[0] * 3] * 3}))
    (tmp_path / "sizes.json").write_text(json.dumps(good))
    before = set(tmp_path.iterdir())
    result = fuse("-o", "o.png", *args)
    assert (result.code, result.err.count("\n")) == (code, 1), result.err
    assert says in result.err
    assert set(tmp_path.iterdir()) == before


@pytest.fixture
def folders(scene_of, tmp_path):
    for seed in range(5):
        ir, vis = scene_of(seed, SIZE)
        save(tmp_path / "ir" / f"{seed}.png", cv2.warpPerspective(ir, SHIFT, SIZE))
        save(tmp_path / "vis" / f"{seed}.png", vis)
    return tmp_path / "ir", tmp_path / "vis"


def test_rig(cli, folders, tmp_path):
    # One pair of another rig, one without edges, one broken file.
    save(folders[0] / "3.png", read(folders[0] / "3.png")[::-1, ::-1] / 255)
    save(folders[0] / "4.png", np.full(SIZE[::-1], 0.5))
    (folders[0] / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    result = cli("align", *folders, "-o", tmp_path / "rig.json", "--json")
    assert result.code == 0
    assert near_truth(result.json["matrix"])
    assert (result.json["pairs"], result.json["agreeing"]) == (5, 2)
    assert ["2.png" in note for note in result.json["notices"]].count(True) == 1
    assert "4: a picture is constant" in result.err
    saved = json.loads((tmp_path / "rig.json").read_text())
    assert saved["pairs"] == 2
    assert saved["matrix"] == result.json["matrix"]


@pytest.mark.parametrize(
    ("break_it", "code", "says"),
    [
        (
            lambda ir, vis: (vis / "0.png").unlink() or [(vis / f"{n}.png").unlink() for n in range(1, 4)],
            2,
            "1 pairs",
        ),
        (lambda ir, vis: save(ir / "3.png", np.zeros((9, 9))), 2, "3.png"),
        (
            lambda ir, vis: [save(ir / f"{n}.png", np.zeros(SIZE[::-1])) for n in range(5)],
            1,
            "none of 5 pairs",
        ),
        (lambda ir, vis: (ir.parent / "rig.json").write_text("old"), 1, "rig.json exists"),
    ],
    ids=["one pair", "sizes", "featureless", "exists"],
)
def test_rig_mistakes(cli, folders, tmp_path, break_it, code, says):
    break_it(*folders)
    before = set(tmp_path.rglob("*"))
    result = cli("align", *folders, "-o", tmp_path / "rig.json", "-q")
    assert (result.code, result.err.count("\n")) == (code, 1), result.err
    assert says in result.err
    assert set(tmp_path.rglob("*")) == before


def test_missing_folder(cli, tmp_path):
    result = cli("align", tmp_path / "no", tmp_path, "-o", tmp_path / "rig.json")
    assert (result.code, "no does not exist" in result.err) == (2, True)
