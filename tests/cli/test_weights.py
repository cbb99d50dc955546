import json
import re

import pytest

REPO = "org/fusion"


@pytest.fixture
def data(tiny_model):
    return tiny_model.read_bytes()


@pytest.fixture
def downloaded(tmp_path):
    """Where weights go by default, and where `-m` looks."""
    return tmp_path / "hf" / "diffmf"


@pytest.fixture
def download(cli, hub, shipped):
    """`diffmf download-weights --repo org/fusion` beside a shipped `tiny`."""
    return lambda *args, repo=REPO: cli("download-weights", *args, "--repo", repo)


def refused(result, *words, code=3):
    """One line that holds the words, and nothing on stdout."""
    assert result.code == code, result.err
    assert result.out == b""
    error = re.sub(r"\A(\w+: \d\.\d of \d\.\d MB\n)+", "", result.err)  # progress
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    for word in words:
        assert str(word) in error


# What is here


def test_lists_what_is_shipped(cli, shipped):
    result = cli("download-weights", "--list")
    assert (result.code, result.err) == (0, "")
    text = result.out.decode()
    assert text.startswith("tiny  ir-vis, version 0, ")
    assert "random weights" in text
    assert "heat from the first (infrared)" in text
    assert f"shipped: {shipped / 'tiny.safetensors'}" in text


def test_says_that_nothing_had_to_be_downloaded(cli, shipped):
    assert "nothing had to be downloaded" in cli("download-weights").err
    assert cli("download-weights", "-q").err == ""
    assert "nothing had to be downloaded" in cli("download-weights", "tiny").err
    assert "nothing had to be downloaded" in cli("download-weights", "--all").err


def test_json(cli, shipped):
    record = cli("download-weights", "tiny", "--check", "--json").json
    assert record["type"] == "weights"
    (row,) = record["weights"]
    assert (row["name"], row["state"], row["path"]) == ("tiny", "whole", str(shipped / "tiny.safetensors"))
    assert cli("download-weights", "--list", "--check", "--json").json["weights"] == [row]
    assert (row["task"], row["version"], row["place"]) == ("ir-vis", "0", "shipped")


def test_check_finds_a_changed_byte(cli, shipped):
    assert cli("download-weights", "--check").code == 0
    file = shipped / "tiny.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    result = cli("download-weights", "--check", "--json")
    assert result.code == 3
    assert "tiny (sha256" in result.err
    assert result.err.count("\n") == 1
    assert result.json["exit_code"] == 3


@pytest.mark.parametrize("options", [[], ["--list"], ["--check"]])
def test_missing_file(cli, shipped, options):
    (shipped / "tiny.safetensors").unlink()
    refused(cli("download-weights", *options), "tiny (missing)", "reinstall")


def test_unknown_name(cli, shipped):
    refused(cli("download-weights", "tinny"), "did you mean 'tiny'?")


def test_a_file_is_not_in_the_catalogue(cli, shipped, tiny_model):
    refused(cli("download-weights", tiny_model), tiny_model, code=2)


def test_questions_that_contradict_each_other(cli, shipped, tmp_path):
    refused(cli("download-weights", "tiny", "--all"), "--all and tiny", code=2)
    refused(cli("download-weights", "tiny", "--dest", tmp_path), "needs --repo", code=2)


# Downloads that succeed


def test_downloads_into_the_folder_that_fuse_looks_in(download, cli, hub, data, downloaded, pair):
    hub.put("other", data)
    result = download("other")
    assert result.code == 0, result.err
    assert result.out.decode().startswith("other  ir-vis, version 1.0.0, ")
    assert f"downloaded: {downloaded / 'other.safetensors'}" in result.out.decode()
    assert "other: 0." in result.err  # progress
    assert (downloaded / "other.safetensors").read_bytes() == data
    assert json.loads((downloaded / "catalogue.json").read_text())[0]["name"] == "other"
    assert cli("fuse", *pair, "-m", "other", "--offline").code == 0
    rows = cli("download-weights", "--check", "--json").json["weights"]
    assert [(row["name"], row["place"], row["state"]) for row in rows] == [
        ("tiny", "shipped", "whole"),
        ("other", "downloaded", "whole"),
    ]


def test_json_of_a_download_is_one_object(download, hub, data, downloaded):
    hub.put("other", data)
    record = download("other", "--json").json
    (row,) = record["weights"]
    assert (row["state"], row["path"]) == ("whole", str(downloaded / "other.safetensors"))


def test_quiet_downloads_say_nothing(download, hub, data):
    hub.put("other", data)
    assert download("other", "-q").err == ""


def test_all_goes_into_the_folder_that_is_named(download, hub, data, downloaded, tmp_path):
    hub.put("one", data)
    hub.put("two", data, task="medical")
    result = download("--all", "--dest", tmp_path / "mine")
    assert result.code == 0, result.err
    assert sorted(p.name for p in (tmp_path / "mine").glob("[!.]*")) == [
        "catalogue.json",
        "one.safetensors",
        "two.safetensors",
    ]
    assert not downloaded.exists()
    assert download("--check", "--dest", tmp_path / "mine").code == 0
    (tmp_path / "mine" / "two.safetensors").write_bytes(data[:-1])
    refused(download("--check", "--dest", tmp_path / "mine"), "two (", "bytes instead of")


def test_what_is_there_is_not_fetched_again(download, hub, data, downloaded):
    hub.put("other", data)
    download("other")
    before = (downloaded / "other.safetensors").stat().st_ino
    result = download("other")
    assert result.code == 0
    assert "was there already" in result.err
    assert len(hub.transfers("other.safetensors")) == 1
    assert (downloaded / "other.safetensors").stat().st_ino == before


def test_the_file_that_is_shipped_is_not_fetched(download, hub, data, downloaded):
    hub.put("tiny", data)
    result = download("tiny")
    assert result.code == 0
    assert "shipped with diffmf, nothing had to be downloaded" in result.err
    assert hub.transfers("tiny.safetensors") == []


def test_another_version_of_a_shipped_name_says_how_to_use_it(download, hub, data, downloaded):
    newer = data.replace(b'"version":"0"', b'"version":"2"')
    assert newer != data
    hub.put("tiny", newer, version="2")
    result = download("tiny")
    assert result.code == 0
    assert f"use -m {downloaded / 'tiny.safetensors'}" in result.err


def test_a_newer_version_replaces_the_downloaded_one(download, hub, data, downloaded):
    hub.put("other", data)
    download("other")
    hub.files.clear()
    newer = data.replace(b'"version":"0"', b'"version":"2"')
    hub.put("other", newer, version="2")
    result = download("other")
    assert result.code == 0, result.err
    assert (downloaded / "other.safetensors").read_bytes() == newer
    assert [row["version"] for row in json.loads((downloaded / "catalogue.json").read_text())] == ["2"]


def test_lists_what_the_repository_offers(download, hub, data):
    hub.put("tiny", data)
    hub.put("scans", data, task="medical", sha256="1" * 64)
    text = download("--list").out.decode()
    assert text.count("tiny  ") == 1  # the shipped one: the same file
    assert "scans  medical, version 1.0.0" in text
    assert "structure from the first (MRI" in text
    assert hub.transfers("scans.safetensors") == []


def test_a_token_is_sent_to_the_hub_and_not_to_the_storage(download, hub, data, monkeypatch):
    hub.put("other", data)
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert download("other").code == 0
    for _, path, _, has_token in hub.log:
        assert has_token != path.startswith("/storage/"), path


def test_revision(download, hub, data):
    hub.put("other", data)
    assert download("other", repo=f"{REPO}@v1").code == 0
    asked = [path for _, path, _, _ in hub.log]
    assert "/org/fusion/resolve/v1/catalogue.json" in asked
    # The tag may move meanwhile: the file is that of the catalogue.
    assert f"/org/fusion/resolve/{hub.commit}/other.safetensors" in asked
    assert "/org/fusion/resolve/v1/other.safetensors" not in asked
    refused(download("other", repo=f"{REPO}@v9"), "v9", "no revision")


# Trouble on the way


def test_a_cut_connection_is_taken_up_where_it_broke(download, hub, data, downloaded):
    hub.put("other", data)
    hub.cuts["other.safetensors"] = [100_000, 200_000]
    result = download("other")
    assert result.code == 0, result.err
    # In steps of 64 KB.
    assert hub.transfers("other.safetensors") == [None, f"bytes={1 << 16}-", f"bytes={3 << 16}-"]
    assert result.err.count("other: ") >= 3
    assert (downloaded / "other.safetensors").read_bytes() == data


def test_a_connection_that_is_reset(download, hub, data, downloaded):
    hub.put("other", data)
    hub.storage.resets = 2
    result = download("other")
    assert result.code == 0, result.err
    assert len(hub.transfers("other.safetensors")) == 3
    assert (downloaded / "other.safetensors").read_bytes() == data


def test_a_connection_that_is_always_cut(download, hub, data, downloaded):
    hub.put("other", data)
    hub.cuts["other.safetensors"] = [1000] * 100
    refused(download("other"), REPO, "run it again")
    assert not downloaded.exists() or not list(downloaded.glob("*"))
    hub.cuts.clear()
    assert download("other").code == 0


def test_wrong_bytes_are_refused_and_not_kept(download, cli, hub, data, downloaded):
    hub.put("other", data)
    hub.storage.corrupt = True
    refused(download("other"), REPO, "other.safetensors has sha256")
    assert not downloaded.exists()
    refused(cli("fuse", "a", "b", "-m", "other"), "unknown model 'other'")
    hub.storage.corrupt = False
    assert download("other").code == 0
    assert (downloaded / "other.safetensors").read_bytes() == data


def test_wrong_size_is_refused(download, hub, data, downloaded):
    hub.put("other", data, bytes=len(data) + 1)
    refused(download("other"), f"{len(data)} bytes instead of {len(data) + 1}")
    assert not downloaded.exists()


def test_a_hub_that_is_down_for_a_moment(download, hub, data):
    hub.put("other", data)
    hub.statuses = [503, 500]
    assert download("other").code == 0


def test_a_hub_that_is_down(download, hub, data):
    hub.put("other", data)
    hub.always = 503
    refused(download("other"), hub.url, "503", "try again later")


def test_no_connection(download, hub, data):
    hub.put("other", data)
    hub.shutdown()
    hub.server_close()
    refused(download("other"), hub.url, "check the network")


def test_no_such_repository(download, hub):
    refused(download("other", repo="org/nothing"), "org/nothing", "no such repository, or a private one")


def test_a_private_repository(download, hub, data, monkeypatch):
    hub.put("other", data)
    hub.token = "hf_secret"
    refused(download("other"), "a private one", "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(download("other"), "refuses the token (401)")


def test_a_gated_repository(download, hub, data):
    hub.put("other", data)
    hub.gated = True
    refused(download("other"), "gated: ask for access")


def test_a_repository_of_something_else(download, hub):
    refused(download("other"), REPO, "no catalogue.json", "publish-weights")


def test_a_server_that_is_no_hub(download, hub, monkeypatch):
    hub.always = 200
    refused(download("other"), hub.url, "does not answer like a Hub", "HF_ENDPOINT")


def test_a_listed_file_that_is_not_there(download, hub, data):
    hub.put("other", data)
    del hub.files["other.safetensors"]
    refused(download("other"), "no other.safetensors")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"<html>", "Expecting value"),
        (b"{}", "not a list"),
        (b'[{"name": "x"}]', "without a 'task'"),
        (b"\xff", "decode"),
    ],
)
def test_an_unusable_catalogue(download, hub, text, says):
    hub.files["catalogue.json"] = text
    refused(download("other"), REPO, "unusable catalogue.json", says)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/b", ".hidden", "a.b", ""])
def test_a_name_that_leaves_the_folder(download, hub, data, name):
    hub.put(name, data)
    refused(download("--all"), "unusable catalogue.json", "is no name")


def test_columns_of_a_later_version_are_passed_over(download, hub, data):
    hub.put("other", data, licence="MIT")
    assert download("other").code == 0


def test_unknown_name_in_the_repository(download, hub, data):
    hub.put("other", data)
    refused(download("othr"), "did you mean 'other'?")
    refused(download("zzz"), "org/fusion has: other")


def test_which_one_is_a_question(download, hub, data):
    hub.put("other", data)
    refused(download(), "org/fusion has other", "--all", code=2)


@pytest.mark.parametrize("repo", ["fusion", "org/", "/x", "org/fusion@", "a/b/c", "../x", "org/a b", ""])
def test_a_repository_that_is_none(download, repo):
    refused(download("other", repo=repo), f"'{repo}'", "ORG/NAME", code=2)


def test_a_file_of_ones_own_is_not_replaced(download, hub, data, tmp_path):
    hub.put("other", data)
    mine = tmp_path / "mine" / "other.safetensors"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    refused(download("other", "--dest", mine.parent), mine, "--overwrite")
    assert mine.read_bytes() == b"mine"
    assert download("other", "--dest", mine.parent, "--overwrite").code == 0
    assert mine.read_bytes() == data


def test_a_folder_that_is_a_file(download, hub, data, tmp_path):
    hub.put("other", data)
    (tmp_path / "file").write_bytes(b"")
    refused(download("other", "--dest", tmp_path / "file"), tmp_path / "file", code=2)
    assert hub.log == []


# Without the network


def test_offline_takes_the_cache_and_nothing_else(download, hub, data, tmp_path):
    hub.put("other", data)
    refused(download("other", "--offline"), "catalogue.json is not in the cache", "--offline")
    assert hub.log == []


def test_offline_after_a_download(download, hub, data, tmp_path):
    hub.put("other", data)
    download("other")
    hub.log.clear()
    assert download("other", "--offline", "--dest", tmp_path / "mine").code == 0
    assert hub.log == []
    assert (tmp_path / "mine" / "other.safetensors").read_bytes() == data


# -m asks the repository that is configured


def test_fuse_asks_the_configured_repository(cli, hub, shipped, data, pair, downloaded, monkeypatch):
    hub.put("other", data)
    monkeypatch.setenv("DIFFMF_HUB_REPO", REPO)
    result = cli("fuse", *pair, "-m", "other")
    assert result.code == 0, result.err
    assert f"asking {REPO}" in result.err
    assert (downloaded / "other.safetensors").read_bytes() == data
    hub.log.clear()
    assert cli("fuse", *pair, "-m", "other", "--overwrite").code == 0
    assert hub.log == []


def test_fuse_offline_asks_nobody(cli, hub, shipped, data, pair, monkeypatch):
    hub.put("other", data)
    monkeypatch.setenv("DIFFMF_HUB_REPO", REPO)
    refused(cli("fuse", *pair, "-m", "other", "--offline"), "unknown model 'other'")
    assert hub.log == []


def test_shipped_names_ask_nobody(cli, hub, shipped, pair, monkeypatch):
    monkeypatch.setenv("DIFFMF_HUB_REPO", REPO)
    assert cli("fuse", *pair, "-m", "tiny").code == 0
    assert hub.log == []


def test_a_process_of_its_own_reads_the_settings(process, hub, data, downloaded):
    """HF_ENDPOINT, HF_HOME and DIFFMF_HUB_REPO as the libraries read them."""
    hub.put("other", data)
    result = process("download-weights", "other", DIFFMF_HUB_REPO=REPO)
    assert (result.code, result.err.count("Error")) == (0, 0), result.err
    assert (downloaded / "other.safetensors").read_bytes() == data
    result = process("download-weights", "other", "--repo", REPO, HF_HUB_OFFLINE="1", HF_HOME="/tmp/none")
    refused(result, "not in the cache")
