import json

import cv2
import numpy as np
import pytest

import diffmf_cli


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.fixture
def fuse(cli, pair, tiny_model):
    """`diffmf fuse` on the small pair with the small model."""
    return lambda *args: cli("fuse", *pair, "-m", tiny_model, *args)


def test_writes_beside_vis_what_the_api_gives(fuse, pair, scene, tiny_model):
    result = fuse()
    fused = read(pair[1].with_name("vis_fused.png"))
    assert result.code == 0
    assert result.out == b""
    assert "vis_fused.png: 64x48" in result.err
    assert np.array_equal(fused[:, :, ::-1], diffmf_cli.fuse(*scene, model=str(tiny_model), device="cpu"))


def test_json_is_one_object_with_the_facts(fuse, pair, tmp_path):
    record = fuse("-o", tmp_path / "out.png", "--json", "--device", "cpu", "--scan-backend", "torch").json
    assert record["type"] == "pair"
    assert [record["ir"], record["vis"]] == [str(p) for p in pair]
    assert record["output"] == str(tmp_path / "out.png")
    assert (record["width"], record["height"], record["channels"], record["dtype"]) == (64, 48, 3, "uint8")
    assert (record["device"], record["scan_backend"], record["precision"]) == ("cpu", "torch", "fp32")
    assert set(record["seconds"]) == {"read", "load", "model", "write"}
    assert record["notices"] == []


def test_quiet_says_nothing(fuse):
    result = fuse("-q")
    assert (result.code, result.out, result.err) == (0, b"", "")


def test_verbose_says_where_the_time_went(fuse):
    assert "load" in fuse("-v").err


def test_overwrite_replaces(fuse, tmp_path):
    out = tmp_path / "out.png"
    out.write_bytes(b"old")
    assert fuse("-o", out, "--overwrite").code == 0
    assert read(out).shape == (48, 64, 3)


def test_gray_drops_colour(fuse, tmp_path):
    assert fuse("-o", tmp_path / "out.png", "--color", "gray").code == 0
    assert read(tmp_path / "out.png").shape == (48, 64)


@pytest.mark.parametrize(("depth", "dtype"), [("8", np.uint8), ("16", np.uint16)])
def test_depth_of_the_result(fuse, tmp_path, depth, dtype):
    assert fuse("-o", tmp_path / "out.png", "--depth", depth).code == 0
    assert read(tmp_path / "out.png").dtype == dtype


@pytest.mark.parametrize(
    ("vis_name", "options", "expected"),
    [
        ("a.jpg", [], "a_fused.png"),
        ("a.tif", [], "a_fused.tif"),
        ("a.png", ["--format", "webp"], "a_fused.webp"),
        ("a.b.png", ["--format", "jpg"], "a.b_fused.jpg"),
    ],
)
def test_name_of_the_result(cli, pair, scene, tiny_model, tmp_path, vis_name, options, expected):
    vis = tmp_path / vis_name
    cv2.imwrite(str(vis), scene[1])
    assert cli("fuse", pair[0], vis, "-m", tiny_model, *options).code == 0
    assert read(tmp_path / expected).shape == (48, 64, 3)


def test_alpha_of_vis_stays(cli, pair, scene, tiny_model, tmp_path):
    alpha = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)
    cv2.imwrite(str(tmp_path / "rgba.png"), np.dstack([scene[1], alpha]))
    assert cli("fuse", pair[0], tmp_path / "rgba.png", "-m", tiny_model).code == 0
    assert np.array_equal(read(tmp_path / "rgba_fused.png")[:, :, 3], alpha)


def test_what_the_format_cannot_hold_is_said(cli, pair, scene, tiny_model, tmp_path):
    cv2.imwrite(str(tmp_path / "vis16.png"), scene[1].astype(np.uint16) * 257)
    result = cli(
        "fuse", pair[0], tmp_path / "vis16.png", "-m", tiny_model, "-o", tmp_path / "out.jpg", "--json"
    )
    assert result.code == 0
    assert "8 bits" in result.err
    assert ["8 bits" in notice for notice in result.json["notices"]] == [True]


@pytest.mark.parametrize("lossy", ["jpg", "webp"])
def test_quality_of_what_is_lossy(fuse, tmp_path, lossy):
    sizes = []
    for quality in (95, 20):
        out = tmp_path / f"{quality}.{lossy}"
        assert fuse("-o", out, "--quality", quality).code == 0
        sizes.append(out.stat().st_size)
    assert sizes[1] < 0.8 * sizes[0]
    panel = tmp_path / f"panel.{lossy}"
    assert fuse("-o", tmp_path / "out.png", "--panel", panel, "--quality", 20).code == 0


def test_quality_from_the_environment_is_for_what_has_one(fuse, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFMF_QUALITY", "20")
    assert fuse("-o", tmp_path / "set.jpg").code == 0
    assert fuse("-o", tmp_path / "given.jpg", "--quality", 20).code == 0
    assert (tmp_path / "set.jpg").read_bytes() == (tmp_path / "given.jpg").read_bytes()
    assert fuse("-o", tmp_path / "out.png").code == 0
    assert fuse("-o", tmp_path / "no.png", "--quality", 30).code == 2
    assert not (tmp_path / "no.png").exists()


def test_ir_of_another_size_is_resampled_with_a_notice(cli, pair, scene, tiny_model, tmp_path):
    cv2.imwrite(str(tmp_path / "small.png"), scene[0][::2, ::2])
    result = cli("fuse", tmp_path / "small.png", pair[1], "-m", tiny_model)
    assert result.code == 0
    assert "Note: IR of 32x24 was resampled to the 64x48 of VIS" in result.err


def test_swapped_looking_inputs_get_a_warning(cli, pair, tiny_model):
    result = cli("fuse", pair[1], pair[0], "-m", tiny_model)
    assert result.code == 0
    assert "swapped" in result.err


def test_streams(process, cli, pair, tiny_model, tmp_path):
    assert cli("fuse", *pair, "-m", tiny_model, "-o", tmp_path / "out.png", "-q").code == 0
    streamed = process("fuse", "-", pair[1], "-m", tiny_model, "-o", "-", stdin=pair[0].read_bytes())
    assert streamed.code == 0
    assert streamed.out == (tmp_path / "out.png").read_bytes()
    assert "stdout: 64x48" in streamed.err


def test_options_come_from_the_environment(fuse, monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFMF_OUTPUT", str(tmp_path / "named.png"))
    monkeypatch.setenv("DIFFMF_SCAN_BACKEND", "reference")
    monkeypatch.setenv("DIFFMF_JSON", "1")
    record = fuse().json
    assert record["scan_backend"] == "reference"
    assert record["output"] == str(tmp_path / "named.png")
    monkeypatch.delenv("DIFFMF_SCAN_BACKEND")
    monkeypatch.setenv("DIFFMF_SCAN", "torch")
    assert fuse("--overwrite").json["scan_backend"] == "torch"


def test_model_can_be_named_by_a_folder_of_weights(cli, pair, tiny_model, monkeypatch):
    monkeypatch.setenv("DIFFMF_WEIGHTS", str(tiny_model.parent))
    assert cli("fuse", *pair, "-m", "tiny", "--json").json["model"] == "tiny"


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (17, 33)])
def test_any_size_works(cli, tiny_model, tmp_path, size):
    rng = np.random.default_rng(0)
    for name in ("ir", "vis"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), rng.integers(0, 255, size, np.uint8))
    result = cli("fuse", tmp_path / "ir.png", tmp_path / "vis.png", "-m", tiny_model)
    assert (result.code, result.err.count("Error")) == (0, 0)
    assert read(tmp_path / "vis_fused.png").shape == size


def test_two_runs_give_the_same_bytes(fuse, tmp_path):
    for name in ("a.png", "b.png"):
        assert fuse("-o", tmp_path / name).code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_json_error_is_one_object_too(cli, pair):
    result = cli("fuse", *pair, "-m", "nonsense/x.safetensors", "--json")
    assert result.code == 3
    assert result.json["type"] == "error"
    assert (result.json["error"], result.json["exit_code"]) == ("WeightsError", 3)
    assert result.err == f"Error: {result.json['message']}\n"
    assert json.loads(result.out) == result.json
