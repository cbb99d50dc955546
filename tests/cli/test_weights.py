import pytest


def test_lists_what_is_shipped(cli, shipped):
    result = cli("download-weights", "--list")
    assert (result.code, result.err) == (0, "")
    text = result.out.decode()
    assert text.startswith("tiny  infrared-visible, version 0, ")
    assert "random weights" in text
    assert str(shipped / "tiny.safetensors") in text


def test_says_that_nothing_had_to_be_downloaded(cli, shipped):
    assert "nothing had to be downloaded" in cli("download-weights").err
    assert cli("download-weights", "-q").err == ""


def test_json(cli, shipped):
    record = cli("download-weights", "tiny", "--check", "--json").json
    assert record["type"] == "weights"
    (row,) = record["weights"]
    assert (row["name"], row["state"], row["path"]) == ("tiny", "whole", str(shipped / "tiny.safetensors"))


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
    result = cli("download-weights", *options)
    assert result.code == 3
    assert "tiny (missing)" in result.err


def test_unknown_name(cli, shipped):
    result = cli("download-weights", "tinny")
    assert result.code == 3
    assert "did you mean 'tiny'?" in result.err


def test_a_file_is_not_in_the_catalogue(cli, shipped, tiny_model):
    result = cli("download-weights", tiny_model)
    assert result.code == 2
    assert str(tiny_model) in result.err


def test_list_and_check_are_two_questions(cli, shipped):
    assert cli("download-weights", "--list", "--check").code == 2
