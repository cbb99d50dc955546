"""Checkpoints: what goes in comes out, and nothing unsound gets in."""

import json
import os
import pickle
import struct

import pytest
import torch
from safetensors.torch import save

from diffmf_cli.errors import WeightsError
from diffmf_cli.model.catalogue import read_metadata
from diffmf_cli.model.checkpoint import load_checkpoint, save_checkpoint
from diffmf_cli.model.network import Config, DiffMF


@pytest.fixture
def model():
    torch.manual_seed(0)
    return DiffMF(Config(width=16, extraction=1))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def write(path, model, **changes):
    """A checkpoint whose header, or whose weights, were tampered with."""
    header = {"architecture": "diff-mf", "config": json.dumps(model.config.to_dict())}
    weights = {name: t.detach().contiguous() for name, t in model.state_dict().items()}
    weights |= changes.pop("weights", {})
    header |= changes
    path.write_bytes(save(weights, {k: v for k, v in header.items() if v is not None}))


def test_round_trip(path, model):
    save_checkpoint(path, model, {"name": "mine", "task": "ir-vis"})
    loaded, metadata = load_checkpoint(path)
    assert loaded.config == model.config
    assert metadata["name"] == "mine"
    assert metadata["task"] == "ir-vis"
    assert metadata["architecture"] == "diff-mf"
    assert not loaded.training
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, expected[name]), name
    picture = torch.rand(1, 1, 20, 30)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(picture, picture), model.eval()(picture, picture))


def test_metadata_is_read_without_the_weights(path, model):
    save_checkpoint(path, model, {"version": "3"})
    assert read_metadata(path)["version"] == "3"
    assert json.loads(read_metadata(path)["config"]) == model.config.to_dict()


def test_half_precision_weights_become_float32(path, model):
    write(path, model, weights={name: t.half() for name, t in model.state_dict().items()})
    loaded, _ = load_checkpoint(path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_saving_replaces_what_is_there_and_leaves_nothing_beside_it(path, model):
    path.write_bytes(b"old")
    save_checkpoint(path, model, {})
    load_checkpoint(path)
    assert list(path.parent.iterdir()) == [path]


def test_failed_save_leaves_the_old_file(path, model, monkeypatch):
    save_checkpoint(path, model, {"version": "1"})
    before = path.read_bytes()

    def full_disk(self, data):
        with self.open("wb") as file:
            file.write(data[:1000])
        raise OSError(28, os.strerror(28), str(self))

    monkeypatch.setattr(type(path), "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, model, {"version": "2"})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_file_itself_is_never_written_to(path, model, monkeypatch):
    written = []
    original = type(path).write_bytes
    monkeypatch.setattr(
        type(path), "write_bytes", lambda self, data: (written.append(self), original(self, data))
    )
    save_checkpoint(path, model, {})
    assert written
    assert path not in written


# Bad files: each gives one line that names the file.


@pytest.fixture
def refused(path):
    def call(*says, at=path):
        with pytest.raises(WeightsError) as error:
            load_checkpoint(at)
        message = str(error.value)
        assert message.startswith(f"{at}: ")
        assert "\n" not in message
        for word in says:
            assert word in message
        assert error.value.exit_code == 3

    return call


def test_missing(refused):
    refused("No such file")


def test_folder(refused, path):
    path.mkdir()
    refused("Is a directory")


def test_empty(refused, path):
    path.touch()
    refused("not a safetensors file")


@pytest.mark.parametrize("kept", [4, 100, 0.5, -1])
def test_truncated(refused, path, model, kept):
    save_checkpoint(path, model, {})
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    refused("cut short" if kept in (0.5, -1) else "not a safetensors file")


def test_bytes_too_many(refused, path, model):
    save_checkpoint(path, model, {})
    path.write_bytes(path.read_bytes() + b"more")
    refused("damaged")


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 64,
        b"[" * 100_000,
        b"[1, 2]",
        b"{}",
        b'{"w": 3}',
        b'{"w": {"data_offsets": []}}',
        b'{"__metadata__": null, "w": {"data_offsets": [0, 0]}}',
        b'{"__metadata__": [1], "w": {"data_offsets": [0, 0]}}',
    ],
    ids=["bytes", "deep", "list", "empty", "number", "no offsets", "null metadata", "list metadata"],
)
def test_corrupt_header(refused, path, header):
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    refused("not a safetensors file")


def test_header_that_claims_more_than_memory(refused, path):
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    refused("not a safetensors file")


def test_tensor_that_safetensors_refuses(refused, path):
    header = json.dumps(
        {
            "__metadata__": {"architecture": "diff-mf", "config": json.dumps(Config(width=16).to_dict())},
            "w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]},
        }
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    refused("damaged weights")


class Bomb:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_is_not_run(refused, path, protocol):
    path.write_bytes(pickle.dumps(Bomb(), protocol=protocol))
    refused("pickle", "may run code")


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_file_is_not_run(refused, path, zipped):
    torch.save({"w": Bomb()}, path, _use_new_zipfile_serialization=zipped)
    refused("pickle", "may run code")


@pytest.mark.parametrize("length", [640, 0x4B50, 0x10280])
def test_header_whose_length_looks_like_a_pickle(path, model, length):
    """The length's first bytes are those of a pickle (80 02) or of a zip (PK): still safetensors."""

    def header_length():
        return struct.unpack("<Q", path.read_bytes()[:8])[0]

    weights = {"w": torch.zeros(1)}
    path.write_bytes(save(weights, {"note": ""}))
    path.write_bytes(save(weights, {"note": "x" * (length - header_length())}))
    assert header_length() == length
    assert read_metadata(path)["note"].startswith("x")


def test_other_architecture(refused, path, model):
    write(path, model, architecture="cddfuse")
    refused("not DIFF-MF weights", "cddfuse")


def test_safetensors_of_anything_else(refused, path):
    path.write_bytes(save({"w": torch.zeros(3)}))
    refused("not DIFF-MF weights")


@pytest.mark.parametrize(
    "config",
    [
        None,
        "",
        "7",
        "[1]",
        "{}",
        '{"width": 16}',
        '["width", "extraction", "d_state", "expand"]',
        '{"width": -16, "extraction": 1, "d_state": 1, "expand": 1.5}',
        '{"width": 16.5, "extraction": 1, "d_state": 1, "expand": 1.5}',
        '{"width": 16, "extraction": 1.5, "d_state": 1, "expand": 1.5}',
        '{"width": 16, "extraction": 1, "d_state": 1, "expand": 1e400}',
        '{"width": "16", "extraction": 1, "d_state": 1, "expand": 1.5}',
    ],
)
def test_wrong_configuration(refused, path, model, config):
    write(path, model, config=config)
    refused("its configuration is unusable")


def test_configuration_of_another_size(refused, path, model):
    write(path, model, config=json.dumps(Config(width=32, extraction=1).to_dict()))
    refused("weights of another architecture")


def test_missing_and_additional_tensors(refused, path, model):
    write(path, model, weights={"more": torch.zeros(1)})
    refused("weights of another architecture", "more")
    weights = dict(model.state_dict())
    del weights["decoder.out.bias"]
    path.write_bytes(save(weights, {"architecture": "diff-mf", "config": json.dumps(model.config.to_dict())}))
    refused("weights of another architecture", "decoder.out.bias")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(refused, path, model, value):
    write(path, model, weights={"decoder.out.bias": torch.tensor([value])})
    refused("not finite")
