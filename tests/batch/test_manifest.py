import json

import pytest

from diffmf_cli.batch.manifest import Manifest, read_history
from diffmf_cli.errors import DiffmfError, UsageError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "manifest.jsonl"


def pair(output, status="done"):
    return {"type": "pair", "output": output, "status": status}


def test_history_is_that_of_the_last_run_and_its_continuations(path):
    with Manifest(path) as kept:
        kept.begin({"model": "base"}, ir_range="", resumed=False)
        kept.append(pair("old.png"))
        kept.begin({"model": "lite"}, ir_range="1.0,2.0", resumed=False)
        kept.append(pair("a.png"))
        kept.append(pair("b.png", "failed"))
        kept.begin({"model": "lite"}, ir_range="1.0,2.0", resumed=True)
        kept.append(pair("c.png"))
        kept.append(pair("a.png", "failed"))
    history = read_history(path)
    assert history.settings == {"model": "lite"}
    assert history.ir_range == "1.0,2.0"
    assert history.done == {"c.png"}


def test_missing_manifest_is_no_history(path):
    assert read_history(path).settings == {}
    path.mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot be read"):
        read_history(path)


@pytest.mark.parametrize("cut", [2, 10, 30])
def test_a_line_that_was_cut_short_costs_only_itself(path, cut):
    with Manifest(path) as kept:
        kept.begin({"model": "base"}, ir_range="", resumed=False)
        kept.append(pair("a.png"))
        kept.append(pair("b.png"))
    path.write_bytes(path.read_bytes()[:-cut])
    with Manifest(path) as kept:
        kept.append(pair("c.png"))
    assert read_history(path).done == {"a.png", "c.png"}


def test_each_line_is_on_file_at_once(path):
    with Manifest(path) as kept:
        kept.append(pair("a.png"))
        assert json.loads(path.read_text()) == pair("a.png")


def test_two_batches_do_not_share_a_manifest(path):
    with Manifest(path), pytest.raises(UsageError, match="in use"):
        Manifest(path)
    Manifest(path).close()


def test_manifest_that_cannot_be_written(path):
    path.mkdir(parents=True)
    with pytest.raises(DiffmfError, match="cannot be written"):
        Manifest(path)


def test_a_full_disk_costs_lines_not_the_run(path):
    class Full:
        room = 20

        def write(self, data):
            taken, self.room = data[: self.room], max(0, self.room - len(data))
            if not taken:
                raise OSError(28, "No space left on device")
            return real.write(taken)

        def __getattr__(self, name):
            return getattr(real, name)

    kept = Manifest(path)
    real, kept._file = kept._file, Full()
    kept.append(pair("a.png"))
    kept.append(pair("b.png"))
    assert kept.trouble
    kept._file = real
    kept.append(pair("c.png"))
    kept.close()
    assert read_history(path).done == {"c.png"}
