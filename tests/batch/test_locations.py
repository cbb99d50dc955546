"""Files behind URLs: `memory://` and `file://` here, a real S3 API in `test_s3.py`."""

import json
from pathlib import Path

import pytest

from diffmf_cli.batch import locations
from diffmf_cli.errors import ImageError, UsageError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def memory():
    """An empty file system in memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


def test_file_urls_are_paths():
    assert locations.without_file_scheme("file:///a%20b/c") == "/a b/c"
    assert locations.without_file_scheme("s3://b/a%20b") == "s3://b/a%20b"
    assert locations.without_file_scheme("plain/a%20b") == "plain/a%20b"


def test_listing(memory):
    for name in (
        "a/2.png",
        "a/1.JPG",
        "a/notes.txt",
        "a/.hidden.png",
        "a/day/3.png",
        "a/out/4.png",
        "b/1.png",
    ):
        memory.pipe_file(f"/{name}", b"x")
    names = [str(name) for name in locations.list_pictures("memory://a", False).names]
    assert names == ["1.JPG", "2.png"]
    names = [str(name) for name in locations.list_pictures("memory://a/", True, "memory://a/out").names]
    assert names == ["1.JPG", "2.png", "day/3.png"]
    assert locations.list_folders("memory://a") == ["day", "out"]


def test_reading_and_writing(memory):
    locations.write("memory://o/x/1.png", b"one", overwrite=False)
    assert locations.source_of("memory://o/x/1.png") == b"one"
    with pytest.raises(ImageError, match=r"memory://o/x/1\.png exists"):
        locations.write("memory://o/x/1.png", b"two", overwrite=False)
    locations.write("memory://o/x/1.png", b"two", overwrite=True)
    assert locations.source_of("memory://o/x/1.png") == b"two"
    found = locations.ExistingResults("memory://o")
    assert "memory://o/x/1.png" in found
    assert "memory://o/x/2.png" not in found


def test_stamps_change_with_the_file(memory, tmp_path):
    for place in ("memory://s/1.png", str(tmp_path / "1.png")):
        assert locations.stamp(place) is None
        locations.write(place, b"one", overwrite=True)
        before = locations.stamp(place)
        assert before == locations.stamp(place)
        locations.write(place, b"longer", overwrite=True)
        assert locations.stamp(place) != before


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda: locations.source_of("memory://no/1.png"), ImageError, "does not exist"),
        (lambda: locations.list_pictures("memory://no", True), UsageError, "does not exist"),
        (lambda: locations.list_pictures("nosuch://x", True), UsageError, "no file system nosuch://"),
        (lambda: locations.source_of("gcs://b/1.png"), UsageError, "not installed"),
    ],
)
def test_what_goes_wrong_is_one_line(memory, monkeypatch, call, kind, says):
    import sys

    monkeypatch.setitem(sys.modules, "gcsfs", None)  # also where it is installed
    with pytest.raises(kind, match=says) as error:
        call()
    assert "\n" not in str(error.value)


def test_batch_from_and_to_urls(memory, cli, make_pairs, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ir, vis = make_pairs(3)
    options = ("-m", tiny_model, "--device", "cpu", "--json")
    assert cli("batch", ir, vis, "-o", f"file://{tmp_path / 'out'}", *options).code == 0
    for folder in (ir, vis):
        for path in folder.iterdir():
            memory.pipe_file(f"/set/{folder.name}/{path.name}", path.read_bytes())
    assert cli("batch", "memory://set", "-o", "memory://set/fused", *options).code == 0
    for index in range(3):
        name = f"{index:03}_fused.png"
        assert memory.cat_file(f"/set/fused/{name}") == (tmp_path / "out" / name).read_bytes()
    kept = [json.loads(line) for line in Path("fused-manifest.jsonl").read_text().splitlines()]
    assert kept[1]["ir"].startswith("memory://set/ir/")
    again = cli("batch", "memory://set", "-o", "memory://set/fused", *options)
    assert json.loads(again.out.splitlines()[-1])["skipped"] == 3
