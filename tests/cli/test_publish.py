import hashlib
import json

import pytest
import yaml
from safetensors import safe_open

from diffmf_cli.model.catalogue import shipped_folder

REPO = "org/fusion"
CARD = """# Weights

Made with care ([how](../docs/how.md), [recipe](tiny.toml)).

![sky](sky.png) ![far](../far.png)
"""


@pytest.fixture
def publish(cli, shipped, tmp_path, monkeypatch):
    """`diffmf publish-weights --repo org/fusion` in an empty folder, beside a shipped `tiny` with a card."""
    (shipped / "README.md").write_text(CARD)
    (shipped / "tiny.toml").write_text("name = 'tiny'\n")
    (shipped / "sky.png").write_bytes(b"a picture")
    (shipped.parent / "far.png").write_bytes(b"outside")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *args: cli("publish-weights", "--repo", REPO, *args)


@pytest.fixture
def with_token(hub, monkeypatch):
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return hub


def refused(result, *words, code):
    assert result.code == code, result.err
    assert result.out == b""
    assert result.err.startswith("Error: ")
    assert result.err.count("\n") == 1
    for word in words:
        assert str(word) in result.err


def test_dry_run_writes_a_folder_of_weights(publish, cli, tmp_path, tiny_model):
    result = publish("--dry-run")
    assert result.code == 0, result.err
    assert "nothing was uploaded" in result.err
    folder = tmp_path / "here" / "fusion"
    names = ["README.md", "catalogue.json", "config.json", "sky.png", "tiny.safetensors", "tiny.toml"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "tiny.safetensors").read_bytes() == tiny_model.read_bytes()
    assert cli("download-weights", "--check", "--dest", folder).code == 0
    config = json.loads((folder / "config.json").read_text())["checkpoints"]["tiny"]
    assert config["config"]["width"] == 16
    with safe_open(folder / config["file"], "numpy") as weights:
        assert config["parameters"] == sum(weights.get_tensor(key).size for key in weights.keys())  # noqa: SIM118


def test_model_card(publish, tmp_path, tiny_model):
    assert publish("--dry-run", "--dest", tmp_path / "out").code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    _, header, body = card.split("---\n", 2)
    header = yaml.safe_load(header)
    assert header["library_name"] == "diffmf"
    assert header["pipeline_tag"] == "image-to-image"
    assert {"image-fusion", "infrared"} <= set(header["tags"])
    assert header["license"] == "unknown"  # the checkpoint of the tests does not say
    assert "diffmf download-weights tiny --repo org/fusion" in body
    assert hashlib.sha256(tiny_model.read_bytes()).hexdigest() in body
    assert "heat from the first picture (infrared)" in body
    # Links keep their target where it comes along, and become words where it does not.
    assert "Made with care (how, [recipe](tiny.toml))." in body
    assert "![sky](sky.png) far" in body
    assert body.count("\n# ") == 1


def test_what_is_shipped_here_can_be_published(cli, tmp_path):
    if not (shipped_folder() / "catalogue.json").is_file():
        pytest.skip("no weights in weights/")
    record = cli("publish-weights", "--repo", REPO, "--dry-run", "--dest", tmp_path / "out", "--json").json
    assert (record["type"], record["commit"], record["folder"]) == ("publish", None, str(tmp_path / "out"))
    for file in record["files"]:
        content = (tmp_path / "out" / file["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])
    header = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---\n")[1])
    assert header["license"] == "mit"
    assert "](../" not in (tmp_path / "out" / "README.md").read_text()


def test_a_checkpoint_of_ones_own(publish, tmp_path, tiny_model):
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(tiny_model.read_bytes())
    assert publish(mine, "--dry-run", "--dest", tmp_path / "out").code == 0
    (row,) = json.loads((tmp_path / "out" / "catalogue.json").read_text())
    assert (row["name"], row["task"], row["bytes"]) == ("mine", "ir-vis", mine.stat().st_size)
    assert (
        "Made with care" not in (tmp_path / "out" / "README.md").read_text()
    )  # that is about the shipped ones


def test_round_trip(publish, cli, with_token, tmp_path, tiny_model):
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(tiny_model.read_bytes())
    result = publish(mine, "tiny")
    assert result.code == 0, result.err
    assert f"{with_token.url}/org/fusion/commit/" in result.err
    assert len(with_token.commits) == 1
    assert not list((tmp_path / "here").iterdir())
    result = cli("download-weights", "mine", "--repo", REPO)
    assert result.code == 0, result.err
    assert (tmp_path / "hf" / "diffmf" / "mine.safetensors").read_bytes() == tiny_model.read_bytes()


def test_no_token(publish, hub):
    refused(publish(), f"no token for {hub.url}", "hf auth login", "HF_TOKEN", code=1)
    assert hub.log == []


def test_a_token_without_rights(publish, with_token, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(publish(), REPO, "not uploaded", "refuses the token (401)", code=1)
    assert with_token.commits == []


def test_no_connection(publish, with_token):
    with_token.shutdown()
    with_token.server_close()
    refused(publish(), REPO, "not uploaded", "check the network", code=1)


def test_offline(publish, with_token, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(publish(), "HF_HUB_OFFLINE", "--dry-run", code=2)


def test_files_that_are_there_are_kept(publish, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("mine")
    refused(publish("--dry-run", "--dest", out), out / "config.json", "--overwrite", code=2)
    assert [path.name for path in out.iterdir()] == ["config.json"]
    assert publish("--dry-run", "--dest", out, "--overwrite").code == 0
    assert (out / "config.json").read_text() != "mine"


def test_damaged_weights_are_not_published(publish, shipped, tmp_path):
    data = bytearray((shipped / "tiny.safetensors").read_bytes())
    data[-1] ^= 1
    (shipped / "tiny.safetensors").write_bytes(data)
    refused(publish("--dry-run"), shipped / "tiny.safetensors", "sha256", "not published", code=3)
    assert not list((tmp_path / "here").iterdir())


def test_what_cannot_be_meant(publish, cli, shipped, tmp_path, tiny_model):
    refused(cli("publish-weights"), "--repo ORG/NAME", code=2)
    refused(publish("--dest", tmp_path), "--dest", "--dry-run", code=2)
    refused(publish("tinny", "--dry-run"), "did you mean 'tiny'?", code=3)
    refused(publish("tiny", tiny_model, "--dry-run"), "two checkpoints are called tiny", code=2)
    refused(publish(shipped / "tiny.toml", "--dry-run"), "tiny.toml", "not a safetensors file", code=3)
    odd = tmp_path / "my weights.safetensors"
    odd.write_bytes(tiny_model.read_bytes())
    refused(publish(odd, "--dry-run"), odd, "rename it", code=2)
