import numpy
import torch

import diffmf_cli


def test_json_holds_what_a_bug_report_needs(cli, shipped, monkeypatch):
    monkeypatch.setenv("DIFFMF_TILE", "0")
    facts = cli("info", "--json").json
    assert facts["type"] == "info"
    assert facts["diffmf"] == diffmf_cli.__version__
    assert facts["packages"]["numpy"] == numpy.__version__
    assert facts["packages"]["torch"] == torch.__version__
    assert "cpu" in facts["devices"]
    assert facts["scan"]["unavailable"][facts["scan"]["chosen"]] is None
    assert [(row["name"], row["state"]) for row in facts["weights"]] == [("tiny", "whole")]
    assert facts["environment"] == {"DIFFMF_TILE": "0"}


def test_page_names_every_backend_and_why_it_cannot_run(cli, shipped):
    page = cli("info").out.decode()
    facts = cli("info", "--json").json
    for name, reason in facts["scan"]["unavailable"].items():
        assert f"{name}: {reason or 'can run'}" in page
    assert str(shipped / "tiny.safetensors") in page


def test_what_is_broken_is_shown_instead_of_failing(cli, shipped, monkeypatch):
    (shipped / "catalogue.json").write_text("{")
    monkeypatch.setenv("DIFFMF_SCAN", "nubma")
    result = cli("info")
    assert result.code == 0
    assert b"catalogue.json" in result.out
    assert b"did you mean 'numba'" in result.out
