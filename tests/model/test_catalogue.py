"""Which file `--model` means, without importing torch."""

import json
import subprocess
import sys

import pytest

from diffmf_cli.errors import WeightsError
from diffmf_cli.model import catalogue


@pytest.fixture
def refused():
    def call(name, *says):
        with pytest.raises(WeightsError) as error:
            catalogue.find_weights(name)
        assert "\n" not in str(error.value)
        for word in says:
            assert str(word) in str(error.value)

    return call


def test_name(shipped):
    assert catalogue.find_weights("tiny") == shipped / "tiny.safetensors"


def test_path_goes_before_everything(shipped, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFMF_WEIGHTS", str(tmp_path))
    assert catalogue.find_weights(str(tiny_model)) == tiny_model


def test_home_folder_in_a_path(tiny_model, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_model.parent))
    assert catalogue.find_weights(f"~/{tiny_model.name}") == tiny_model


def test_file_without_extension(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_bytes(tiny_model.read_bytes())
    assert catalogue.find_weights("mine").samefile(tmp_path / "mine")


def test_missing_path(refused, shipped, tmp_path):
    refused(str(tmp_path / "no.safetensors"), tmp_path / "no.safetensors", "no such checkpoint", "--list")
    refused("no.safetensors", "no.safetensors: no such checkpoint")


def test_folder(refused, shipped, tmp_path):
    refused(str(tmp_path), tmp_path, "is a folder")


def test_unknown_name(refused, shipped):
    refused("tinny", "unknown model 'tinny'", "did you mean 'tiny'?")
    refused("resnet", "unknown model 'resnet'", "known: tiny")
    refused("", "unknown model ''")


def test_missing_file_of_a_known_name(refused, shipped):
    (shipped / "tiny.safetensors").unlink()
    refused("tiny", shipped / "tiny.safetensors", "missing", "reinstall")


def test_environment_names_a_file_that_replaces_every_name(shipped, tiny_model, monkeypatch):
    monkeypatch.setenv("DIFFMF_WEIGHTS", str(tiny_model))
    assert catalogue.find_weights("anything") == tiny_model


def test_environment_names_a_folder(refused, shipped, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFMF_WEIGHTS", str(tmp_path))
    (tmp_path / "mine.safetensors").write_bytes(tiny_model.read_bytes())
    assert catalogue.find_weights("mine") == tmp_path / "mine.safetensors"
    assert catalogue.find_weights("tiny") == shipped / "tiny.safetensors"
    (tmp_path / "tiny.safetensors").write_bytes(tiny_model.read_bytes())
    assert catalogue.find_weights("tiny") == tmp_path / "tiny.safetensors"
    refused("mone", "unknown model 'mone'")


@pytest.fixture
def downloaded(shipped, tiny_model):
    """A folder of downloaded weights that holds `tiny` and `more`."""
    folder = catalogue.downloaded_folder()
    folder.mkdir(parents=True)
    (row,) = json.loads((shipped / "catalogue.json").read_text())
    (folder / "catalogue.json").write_text(json.dumps([row, {**row, "name": "more"}]))
    for name in ("tiny", "more"):
        (folder / f"{name}.safetensors").write_bytes(tiny_model.read_bytes())
    return folder


def test_downloaded_weights_come_after_shipped_ones(shipped, downloaded):
    assert catalogue.find_weights("more") == downloaded / "more.safetensors"
    assert catalogue.find_weights("tiny") == shipped / "tiny.safetensors"
    (shipped / "tiny.safetensors").unlink()
    assert catalogue.find_weights("tiny") == downloaded / "tiny.safetensors"
    assert [(e.name, e.place) for e in catalogue.catalogue()] == [
        ("tiny", "shipped"),
        ("tiny", "downloaded"),
        ("more", "downloaded"),
    ]


def test_broken_catalogue_of_downloads(refused, shipped, downloaded):
    (downloaded / "catalogue.json").write_text("{}")
    refused("more", downloaded / "catalogue.json", "not a list", "download the weights again")


def test_where_downloads_are(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", "$PLACE/hf")
    monkeypatch.setenv("PLACE", str(tmp_path))
    assert catalogue.downloaded_folder() == tmp_path / "hf" / "diffmf"
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert catalogue.downloaded_folder() == tmp_path / "cache" / "huggingface" / "diffmf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert catalogue.downloaded_folder() == tmp_path / ".cache" / "huggingface" / "diffmf"


def test_environment_names_nothing(refused, shipped, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFMF_WEIGHTS", str(tmp_path / "no"))
    refused("tiny", tmp_path / "no", "DIFFMF_WEIGHTS")


@pytest.mark.parametrize("content", [None, b"not json", b"\xff\xfe"])
def test_broken_catalogue(refused, shipped, content):
    path = shipped / "catalogue.json"
    path.unlink() if content is None else path.write_bytes(content)
    refused("tiny", path, "no catalogue of weights", "reinstall")


def test_check(shipped):
    (entry,) = catalogue.catalogue()
    assert catalogue.check(entry) is None
    data = entry.path.read_bytes()
    entry.path.write_bytes(data[:-1])
    assert catalogue.check(entry) == f"{len(data) - 1} bytes instead of {len(data)}"
    entry.path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "sha256" in catalogue.check(entry)
    entry.path.unlink()
    (entry,) = catalogue.catalogue()
    assert catalogue.check(entry) == "missing"


def test_folder_in_a_checkout():
    assert catalogue.shipped_folder().name == "weights"
    rows = catalogue.shipped_folder() / "catalogue.json"
    if rows.exists():
        assert {row["name"] for row in json.loads(rows.read_text())}


def test_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'safetensors', 'huggingface_hub'}"
    code = f"import sys, diffmf_cli.model.catalogue; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
