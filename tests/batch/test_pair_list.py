import io
import sys
from types import SimpleNamespace

import pytest

from diffmf_cli.batch.pair_list import Row, read_pair_list
from diffmf_cli.errors import UsageError


@pytest.fixture
def read(tmp_path):
    def call(text, name="list.csv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_pair_list(str(tmp_path / name))

    return call


def test_csv_with_header_in_any_order(read, tmp_path):
    rows = read("\ufeffkey,vis,note,ir\nk1,v/1.png,x,i/1.png\n\n# comment\n,/abs/2.png,,s3://b/2.png\n")
    assert rows == [
        Row(str(tmp_path / "i/1.png"), str(tmp_path / "v/1.png"), key="k1"),
        Row("s3://b/2.png", "/abs/2.png"),
    ]


def test_csv_without_header_and_quotes(read, tmp_path):
    rows = read('"a, b.png",v.png,out/x.png\n')
    assert rows == [Row(str(tmp_path / "a, b.png"), str(tmp_path / "v.png"), "out/x.png")]


def test_tabs(read):
    assert len(read("ir\tvis\n/a.png\t/b.png\n")) == 1


def test_json_lines(read):
    text = (
        '{"ir": "/a.png", "vis": "file:///b%20c.png", "output": "o.png"}\n'
        '{"type": "orphan", "path": "x"}\n{"type": "pair", "ir": "/c.png", "vis": "/d.png", "exists": true}\n'
    )
    assert read(text) == [Row("/a.png", "/b c.png", "o.png"), Row("/c.png", "/d.png")]


def test_stdin_is_relative_to_the_current_folder(monkeypatch):
    stdin = SimpleNamespace(buffer=io.BytesIO(b"i.png,v.png\n"), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert read_pair_list("-") == [Row("i.png", "v.png")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lists no pair"),
        ("ir,vis\n", "lists no pair"),
        ("a.png\n", "line 1: no vis"),
        ("ir,vis\na.png,b.png\n,c.png\n", "line 3: no ir"),
        ("a.png,b.png,c.png,k,extra\n", "line 1: 5 columns"),
        ('{"ir": "a.png"}\n', "line 1: no vis"),
        ('{"ir": "a.png", "vis": 3}\n', "line 1: vis is no text"),
        ('{"ir": "a.png", "vis": "b.png"}\n{"ir": \n', "line 2: no JSON object"),
        ('{"ir": "a.png", "vis": "b.png"}\n[1]\n', "line 2: no JSON object"),
        (b"\xff\xfe\x00a", "UTF-8"),
        ("a.png,b\0.png", "line 1: .*null"),
    ],
)
def test_bad_lists_name_the_line(read, text, says):
    with pytest.raises(UsageError, match=says):
        read(text)


def test_missing_list(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_pair_list(str(tmp_path / "no.csv"))
    with pytest.raises(UsageError, match="cannot be read"):
        read_pair_list(str(tmp_path))
