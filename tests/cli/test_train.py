import json

import cv2
import numpy as np
import pytest

from diffmf_cli.model.checkpoint import load_checkpoint

RECIPE = """
name = "tiny"
[model]
size = "lite"
change = { width = 16, extraction = 1 }
[data]
sources = ["train"]
hold_out = 0
crop = 48
batch = 1
[optimization]
steps = 2
"""


@pytest.fixture
def data(tmp_path):
    """A recipe beside one pair of random pictures."""
    random = np.random.default_rng(0)
    for name in ("ir", "vi"):
        (tmp_path / "train" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "train" / name / "0.png"), random.integers(0, 255, (48, 48), np.uint8))
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return tmp_path


def test_trains_and_the_weights_fuse(process, cli, data, pair):
    command = ["train", "--config", data / "tiny.toml", "--out", data / "run", "--device", "cpu", "--json"]
    result = process(*command, OMP_NUM_THREADS="1")
    assert result.code == 0, result.err
    events = [json.loads(line) for line in result.out.splitlines()]
    assert [event["type"] for event in events] == ["start", "step", "step", "saved"]
    assert f"Weights: {data / 'run' / 'tiny.safetensors'}" in result.err
    fused = cli("fuse", *pair, "-m", data / "run/tiny.safetensors", "-o", data / "out.png")
    assert fused.code == 0, fused.err
    assert cv2.imread(str(data / "out.png")).shape == (48, 64, 3)


def test_talks_on_stderr_and_goes_on(cli, data, tmp_path):
    command = [
        "train",
        "--config",
        data / "tiny.toml",
        "--data",
        data,
        "--out",
        tmp_path / "run",
        "--device",
        "cpu",
    ]
    first = cli(*command, "--minutes", "0")
    assert (first.code, first.out) == (0, b"")
    assert "1 pairs to train on, 0 held out; 2 steps on cpu" in first.err
    assert "step      1" in first.err
    second = cli(*command)
    assert "step      1" not in second.err
    assert "step      2" in second.err
    assert load_checkpoint(tmp_path / "run/tiny.safetensors")[1]["steps"] == "2"


def test_quiet(cli, data, tmp_path):
    result = cli("train", "--config", data / "tiny.toml", "--out", tmp_path / "run", "--minutes", "0", "-q")
    assert (result.code, result.out, result.err) == (0, b"", "")


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--config", "no.toml"], 2, "no.toml: cannot read the recipe"),
        (["--config", "bad.toml"], 2, "bad.toml, [data]: unknown key 'corp'"),
        (["--config", "tiny.toml", "--data", "nowhere"], 2, "nowhere/train: training reads pairs from"),
        (["--config", "tiny.toml", "--start", "no.safetensors"], 3, "no.safetensors: no such checkpoint"),
        (["--config", "tiny.toml", "--device", "cuda:9"], 2, "cuda:9"),
        (["--config", "tiny.toml", "--scan-backend", "trch"], 2, "did you mean 'torch'?"),
        (["--config", "tiny.toml", "--minutes", "-1"], 2, "--minutes"),
        (["--config", "tiny.toml", "--device", "cpu", "--compile"], 2, "--compile is for CUDA"),
        ([], 2, "--config"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_run(cli, data, monkeypatch, options, code, says):
    monkeypatch.chdir(data)
    (data / "bad.toml").write_text("[data]\ncorp = 96\n")
    result = cli("train", "--out", "run", *options)
    assert result.code == code
    assert result.err.count("\n") == 1
    assert says in result.err
    assert result.out == b""
    assert not (data / "run").exists()


def test_out_that_is_a_file(cli, data):
    (data / "run").write_text("mine")
    result = cli("train", "--config", data / "tiny.toml", "--out", data / "run")
    assert result.code in (1, 2)
    assert result.err.count("\n") == 1
    assert str(data / "run") in result.err
    assert (data / "run").read_text() == "mine"
