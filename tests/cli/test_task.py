"""Weights for another task than asked for, or than their name means; which picture gives what."""

import hashlib
import json

import cv2
import numpy as np
import pytest

import diffmf_cli
from diffmf_cli.errors import UsageError, WeightsError


@pytest.fixture
def medical(shipped, tmp_path):
    """A checkpoint for medical pictures, shipped as `scans` beside `tiny`; its file."""
    import torch

    from diffmf_cli.model.checkpoint import save_checkpoint
    from diffmf_cli.model.network import Config, DiffMF

    path = shipped / "scans.safetensors"
    torch.manual_seed(1)
    save_checkpoint(path, DiffMF(Config(width=16, extraction=1)), {"task": "medical", "version": "1"})
    rows = json.loads((shipped / "catalogue.json").read_text())
    data = path.read_bytes()
    row = {"name": "scans", "task": "medical", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (shipped / "catalogue.json").write_text(json.dumps([*rows, {**rows[0], **row}]))
    return path


def refused(result, *words, code=3):
    assert result.code == code, result.err
    assert result.err.startswith("Error: ")
    assert result.err.count("\n") == 1
    for word in words:
        assert str(word) in result.err


def test_says_which_picture_gives_what(cli, pair, medical):
    result = cli("fuse", *pair, "-m", "scans")
    assert result.code == 0
    ir, vis = pair
    assert f"structure from {ir} (MRI, taken in grey), colour from {vis} (CT, PET or SPECT)" in result.err
    assert "structure from" not in cli("fuse", *pair, "-m", "scans", "-q", "--overwrite").err
    assert cli("fuse", *pair, "-m", "scans", "--json", "--overwrite").json["task"] == "medical"


def test_infrared_and_visible_need_no_explanation(cli, pair, shipped):
    assert "heat from" not in cli("fuse", *pair, "-m", "tiny").err
    assert f"heat from {pair[0]}" in cli("fuse", *pair, "-m", "tiny", "-v", "--overwrite").err


def test_the_second_picture_keeps_its_colour(cli, pair, scene, medical, tmp_path):
    """The chroma of the result is that of the second picture."""
    out = tmp_path / "out.tiff"
    assert cli("fuse", *pair, "-m", "scans", "-o", out).code == 0
    fused = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    had, has = (
        cv2.cvtColor(t, cv2.COLOR_BGR2YCrCb)[..., 1:].astype(int) for t in (scene[1][..., ::-1], fused)
    )
    assert np.abs(had - has).mean() < 2


def test_help_and_lists_say_it(cli, medical):
    assert "-m medical" in cli("fuse", "--help").out.decode()
    assert "structure from the first (MRI, taken in grey)" in cli("download-weights", "--list").out.decode()


def test_info_says_it(cli, medical):
    assert "structure from the first (MRI, taken in grey)" in cli("info").out.decode()


def test_wrong_task_is_refused(cli, pair, medical, shipped):
    before = set(pair[0].parent.rglob("*"))
    result = cli("fuse", *pair, "-m", "scans", "--task", "ir-vis")
    refused(result, medical, "for the task medical, not ir-vis", "use -m tiny")
    result = cli("fuse", *pair, "-m", "tiny", "--task", "medical")
    refused(result, shipped / "tiny.safetensors", "for the task ir-vis, not medical", "use -m scans")
    result = cli("fuse", *pair, "-m", medical, "--task", "ir-vis", "--json")
    assert (result.code, result.json["error"]) == (3, "WeightsError")
    assert set(pair[0].parent.rglob("*")) == before
    # Before any picture is read.
    refused(cli("fuse", "no.png", "none.png", "-m", "scans", "--task", "ir-vis"), medical)


def test_right_task_is_taken(cli, pair, medical):
    assert cli("fuse", *pair, "-m", "scans", "--task", "medical").code == 0
    assert cli("fuse", *pair, "-m", "tiny", "--task", "ir-vis", "--overwrite").code == 0


def test_task_from_the_environment(cli, pair, medical, monkeypatch):
    monkeypatch.setenv("DIFFMF_TASK", "ir-vis")
    refused(cli("fuse", *pair, "-m", "scans"), "not ir-vis")


def test_weights_that_take_the_place_of_a_name_have_its_task(cli, pair, medical, monkeypatch):
    monkeypatch.setenv("DIFFMF_WEIGHTS", str(medical))
    refused(cli("fuse", *pair, "-m", "tiny"), medical, "in the place of 'tiny', which is for ir-vis", "unset")
    assert cli("fuse", *pair, "-m", "tiny", "--task", "medical").code == 0  # that is what was meant
    assert cli("fuse", *pair, "-m", medical, "--overwrite").code == 0


def test_unknown_task(cli, pair, medical):
    refused(cli("fuse", *pair, "-m", "scans", "--task", "medicla"), "did you mean 'medical'?", code=2)


def test_weights_that_do_not_say(cli, pair, tiny_model, tmp_path, shipped):
    data = tiny_model.read_bytes().replace(b'"task":"ir-vis"', b'"tusk":"ir-vis"')
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(data)
    assert cli("fuse", *pair, "-m", mine).code == 0
    refused(cli("fuse", *pair, "-m", mine, "--task", "ir-vis", "--overwrite"), mine, "for the task unknown")


def test_python(scene, medical):
    with pytest.raises(WeightsError, match="not ir-vis"):
        diffmf_cli.load_model("scans", task="ir-vis")
    with pytest.raises(WeightsError, match="not ir-vis"):
        diffmf_cli.fuse(*scene, model="scans", task="ir-vis")
    with pytest.raises(UsageError, match="unknown task"):
        diffmf_cli.load_model("scans", task="x")
    assert diffmf_cli.load_model("scans", task="medical").task == "medical"
