"""Every mistake: one line on stderr that names the culprit, the right exit code, and no output file."""

import errno
import io
import os
import pickle

import cv2
import numpy as np
import pytest


@pytest.fixture
def refused(cli, pair, tiny_model, tmp_path):
    """Runs `fuse` and checks all that failures have in common."""

    def call(code, says, *args, ir=pair[0], vis=pair[1], model=tiny_model, out=tmp_path / "out.png"):
        before = set(tmp_path.rglob("*"))
        result = cli("fuse", ir, vis, "-m", model, *(() if out is None else ("-o", out)), *args)
        assert result.err.count("\n") == 1, result.err
        assert result.err.startswith("Error: ")
        for word in says if isinstance(says, tuple) else (says,):
            assert str(word) in result.err
        assert result.code == code
        assert result.out == b""
        assert set(tmp_path.rglob("*")) == before
        return result

    return call


def test_missing_file(refused, tmp_path):
    refused(1, tmp_path / "no.png", ir=tmp_path / "no.png")


def test_folder_instead_of_file(refused, tmp_path):
    refused(1, (tmp_path, "folder"), vis=tmp_path)


def test_text_named_png(refused, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    refused(1, "text.png", ir=tmp_path / "text.png")


@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_truncated_picture(refused, scene, tmp_path, extension):
    whole = cv2.imencode(f".{extension}", scene[1])[1].tobytes()
    (tmp_path / f"cut.{extension}").write_bytes(whole[: len(whole) // 2])
    refused(1, (f"cut.{extension}", "truncated"), vis=tmp_path / f"cut.{extension}")


def test_zero_byte_file(refused, tmp_path):
    (tmp_path / "empty.png").touch()
    refused(1, ("empty.png", "empty"), ir=tmp_path / "empty.png")


def test_picture_without_pixels(refused, tmp_path):
    png = bytearray(cv2.imencode(".png", np.zeros((1, 1), np.uint8))[1].tobytes())
    png[16:24] = bytes(8)  # width and height
    (tmp_path / "none.png").write_bytes(png)
    refused(1, "none.png", ir=tmp_path / "none.png")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(refused, tmp_path, value):
    pixels = np.full((48, 64), 0.5, np.float32)
    pixels[3, 4] = value
    cv2.imwrite(str(tmp_path / "bad.tiff"), pixels)
    refused(1, ("bad.tiff", "NaN"), ir=tmp_path / "bad.tiff")


def test_float_vis_outside_the_unit_interval(refused, tmp_path):
    cv2.imwrite(
        str(tmp_path / "kelvin.tiff"), np.linspace(280, 320, 48 * 64, dtype=np.float32).reshape(48, 64)
    )
    refused(1, ("kelvin.tiff", "[0, 1]"), vis=tmp_path / "kelvin.tiff")


def test_same_file_twice(refused, pair):
    refused(2, "same picture", vis=pair[0])


def test_same_bytes_twice(refused, pair, tmp_path):
    (tmp_path / "copy.png").write_bytes(pair[0].read_bytes())
    refused(2, ("copy.png", "same picture"), vis=tmp_path / "copy.png")


def test_aspect_ratios_that_differ(refused, cli, scene, pair, tiny_model, tmp_path):
    cv2.imwrite(str(tmp_path / "square.png"), scene[0][:, :48])
    refused(2, ("48x48", "64x48", "--stretch"), ir=tmp_path / "square.png")
    assert cli("fuse", tmp_path / "square.png", pair[1], "-m", tiny_model, "--stretch").code == 0


def test_existing_output(refused, tmp_path):
    (tmp_path / "out.png").write_bytes(b"precious")
    refused(1, ("out.png", "--overwrite"))
    assert (tmp_path / "out.png").read_bytes() == b"precious"


def test_output_that_is_an_input(refused, pair):
    before = pair[1].read_bytes()
    refused(2, ("vis.png", "input"), "--overwrite", out=pair[1])
    assert pair[1].read_bytes() == before


def test_output_of_no_known_format(refused, tmp_path):
    refused(2, ("'.pgn'", "did you mean '.png'"), out=tmp_path / "out.pgn")


def test_output_name_against_format(refused, tmp_path):
    refused(2, ("out.png", "--format jpg"), "--format", "jpg")


def test_folder_that_is_a_file(refused, pair):
    refused(1, "ir.png", out=pair[0] / "out.png")


def test_unwritable_folder(refused, tmp_path, monkeypatch):
    # Root may write anywhere, so the system's answer is replaced.
    monkeypatch.setattr(os, "access", lambda *args, **kwargs: False)
    refused(1, (tmp_path, "permission"))


class FullDisk(io.FileIO):
    """Takes half of what is written, as a disk does that fills up."""

    def write(self, data):
        super().write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk(refused, monkeypatch):
    from diffmf_cli.images import write

    monkeypatch.setattr(write, "open", FullDisk, raising=False)
    refused(1, ("out.png", "space"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_standard_output(process, pair, tiny_model):
    import subprocess
    import sys

    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "diffmf_cli", "fuse", *pair, "-m", tiny_model, "-o", "-"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"Error: standard output: No space left on device\n")


def test_unknown_model(refused, shipped):
    refused(3, ("'tinny'", "did you mean 'tiny'?"), model="tinny")


def test_missing_checkpoint(refused, tmp_path):
    refused(3, "no.safetensors", model=tmp_path / "no.safetensors")


def test_checkpoint_of_another_architecture(refused, tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "other.safetensors", {"architecture": "unet"})
    refused(3, ("other.safetensors", "unet"), model=tmp_path / "other.safetensors")


@pytest.mark.parametrize("kept", [4, 100, 0.5, 0.999])
def test_truncated_checkpoint(refused, tiny_model, tmp_path, kept):
    whole = tiny_model.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(
        whole[: kept if isinstance(kept, int) else int(kept * len(whole))]
    )
    refused(3, "cut.safetensors", model=tmp_path / "cut.safetensors")


def test_corrupt_checkpoint(refused, tiny_model, tmp_path):
    whole = bytearray(tiny_model.read_bytes())
    whole[20:40] = bytes(20)
    (tmp_path / "corrupt.safetensors").write_bytes(whole)
    refused(3, "corrupt.safetensors", model=tmp_path / "corrupt.safetensors")


def test_checkpoint_with_nan(refused, tiny_model, tmp_path):
    whole = tiny_model.read_bytes()
    (tmp_path / "nan.safetensors").write_bytes(whole[:-4] + np.float32(np.nan).tobytes())
    refused(3, "nan.safetensors", model=tmp_path / "nan.safetensors")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_pickle_as_weights_is_never_loaded(refused, tmp_path, name):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    (tmp_path / name).write_bytes(pickle.dumps(Trap(), protocol=2))
    refused(3, (name, "pickle"), model=tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_cuda_where_there_is_none(refused, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    refused(2, ("'cuda'", "use one of"), "--device", "cuda")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--device", "gpu"], "'gpu'"),
        (["--device", "cdua"], ("'cdua'", "cuda:N")),
        (["--scan-backend", "nmuba"], "did you mean 'numba'?"),
        (["--tile", "7"], "'7'"),
        (["--tile", "auot"], "'auot'"),
        (["--precision", "fp23"], "did you mean 'fp32'?"),
        (["--color", "grey"], "did you mean 'gray'?"),
        (["--format", "tif"], "did you mean 'tiff'?"),
        (["--ir-range", "9,1"], "9,1"),
        (["--ir-range", "percentle:1,99"], "did you mean 'percentile'"),
        (["--quality", "101"], "101"),
        (["--quality", "80"], "--quality 80 is of JPEG and WebP"),
        (["--depth", "12"], "12"),
        (["--colour", "gray"], "--color"),
    ],
)
def test_option_values(refused, args, says):
    refused(2, says, *args)


def test_value_from_the_environment(refused, monkeypatch):
    monkeypatch.setenv("DIFFMF_TILE", "-1")
    refused(2, "'-1'")


def test_both_from_stdin(refused):
    refused(2, "stdin", ir="-", vis="-")


def test_no_name_for_the_output(refused):
    refused(2, "-o", vis="-", out=None)


def test_broken_picture_on_stdin(process, pair, tiny_model, tmp_path):
    result = process(
        "fuse", "-", pair[1], "-m", tiny_model, "-o", tmp_path / "o.png", stdin=b"\x89PNG\r\n\x1a\n12"
    )
    assert result.code == 1
    assert result.err.startswith("Error: stdin")
    assert not (tmp_path / "o.png").exists()


def test_json_and_picture_both_to_stdout(cli, pair):
    result = cli("fuse", *pair, "-o", "-", "--json")
    assert (result.code, result.json["error"]) == (2, "UsageError")


def test_usage_errors_are_json_too(cli):
    result = cli("fuse", "--json")
    assert (result.code, result.json["error"], result.json["exit_code"]) == (2, "UsageError", 2)


def test_unknown_command(cli):
    result = cli("fues")
    assert (result.code, result.err) == (
        2,
        "Error: No such command 'fues'. Did you mean 'fuse'? (see diffmf --help)\n",
    )


@pytest.mark.parametrize("result", [np.nan, 0.5])
def test_unusable_result_is_no_file(refused, monkeypatch, result):
    from diffmf_cli.fusion.fuser import Fuser

    monkeypatch.setattr(Fuser, "_run", lambda self, ir, vis: np.full_like(vis, result))
    refused(1, "NaN" if np.isnan(result) else "constant")


def test_out_of_memory(refused, monkeypatch):
    from diffmf_cli.fusion.fuser import Fuser

    monkeypatch.setattr(Fuser, "_forward", lambda self, ir, vis, tile: None)
    refused(1, ("64x48", "memory"))


def test_a_bug_is_called_one(refused, cli, pair, tiny_model, tmp_path, monkeypatch):
    from diffmf_cli.fusion.fuser import Fuser

    def broken(*args, **kwargs):
        raise KeyError("x")

    monkeypatch.setattr(Fuser, "fuse", broken)
    refused(1, ("this is a bug", "KeyError: 'x'", "-v"))
    assert "Traceback" in cli("fuse", *pair, "-m", tiny_model, "-v").err
    monkeypatch.setenv("DIFFMF_DEBUG", "1")
    assert "Traceback" in cli("fuse", *pair, "-m", tiny_model).err


def test_mistakes_answer_before_torch_is_imported(without_torch, pair, tmp_path, tiny_model):
    (tmp_path / "exists.png").write_bytes(b"")
    cv2.imwrite(str(tmp_path / "square.png"), np.zeros((9, 9), np.uint8))
    mistakes = (
        ("-o", tmp_path / "exists.png"),
        ("--device", "cdua"),
        ("--model", "no/such.safetensors"),
        ("--tile", "3"),
        ("-o", tmp_path / "new.png", "--ir-range", "9,1"),
    )
    *results, square, right = without_torch(
        [
            *(["fuse", *pair, "-m", tiny_model, *args] for args in mistakes),
            ["fuse", tmp_path / "square.png", pair[1], "-m", tiny_model],
            ["fuse", *pair, "-m", tiny_model],
        ]
    )
    for result in (*results, square):
        assert "torch was imported" not in result.err
        assert result.code in (1, 2, 3)
    assert (square.code, "--stretch" in square.err) == (2, True)
    assert "torch was imported" in right.err
