"""`diffmf export`: files that run without diffmf, and what costs one line instead."""

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import diffmf_cli
from diffmf_cli.model import export as exporting
from diffmf_cli.model import onnx_graph
from diffmf_cli.model.checkpoint import load_checkpoint
from diffmf_cli.model.network import Conv3x3

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def weights(exporting):
    return exporting[0]


@pytest.fixture(scope="module")
def exports(exporting):
    """Format -> what the command said as JSON, and the file."""
    weights, process = exporting
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert len(err.splitlines()) == 2, err  # exporters have a lot to say
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["format"] for record in records] == ["torch", "onnx"]
    return {record["format"]: (record, weights.with_name(Path(record["output"]).name)) for record in records}


@pytest.fixture(scope="module")
def session(exports):
    import onnxruntime

    return onnxruntime.InferenceSession(exports["onnx"][1], providers=["CPUExecutionProvider"])


def pair(height, width):
    """Two random pictures with structure, `(1, 1, H, W)` float32 in [0, 1]."""
    random = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width]
    waves = [0.5 + 0.3 * np.sin(x / 7 + i) * np.cos(y / 5) for i in range(2)]
    noisy = [(wave + 0.2 * random.random(wave.shape)).clip(0, 1) for wave in waves]
    return [picture[None, None].astype(np.float32) for picture in noisy]


def expected_of(weights, ir, vis):
    network, _ = load_checkpoint(weights)
    with torch.inference_mode():
        return network(torch.from_numpy(ir), torch.from_numpy(vis)).numpy()


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 40), (8, 8), (9, 9), (16, 16), (33, 47), (47, 33), (160, 96)], ids=str
)
def test_onnx_gives_the_same_for_any_size(weights, session, size):
    ir, vis = pair(*size)
    (fused,) = session.run(["fused"], {"ir": ir, "vis": vis})
    expected = expected_of(weights, ir, vis)
    assert fused.shape == expected.shape
    assert np.abs(fused - expected).max() < 1e-5
    assert max(size) < 9 or expected.std() > 0.03


def test_onnx_says_what_it_is(weights, exports, session):
    record, path = exports["onnx"]
    assert [(i.name, i.type, i.shape[:2]) for i in session.get_inputs()] == [
        (name, "tensor(float)", [1, 1]) for name in ("ir", "vis")
    ]
    assert all(isinstance(side, str) for side in session.get_inputs()[0].shape[2:])
    facts = session.get_modelmeta().custom_metadata_map
    assert facts == record["model"]
    assert (facts["name"], facts["task"], facts["version"]) == ("small", "ir-vis", "7")
    assert facts["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert json.loads(facts["config"])["width"] == 16
    assert (record["type"], record["format"], record["output"]) == ("export", "onnx", str(path))
    assert record["bytes"] == path.stat().st_size
    assert 0 < record["difference"] < exporting.TOLERANCE


def test_torch_program_says_what_it_is(exports):
    record, path = exports["torch"]  # the command has run it already, which takes long
    with zipfile.ZipFile(path) as file:
        (name,) = (name for name in file.namelist() if name.endswith(exporting.METADATA_FILE))
        assert json.loads(file.read(name)) == record["model"]
    assert (record["format"], record["bytes"]) == ("torch", path.stat().st_size)
    assert 0 < record["difference"] < exporting.TOLERANCE


def test_the_comparison_runs_a_torch_program(weights, exports):
    from torch.export import export, save

    class Other(torch.nn.Module):
        def forward(self, ir, vis):
            return 0.5 * (ir + vis)

    network, _ = load_checkpoint(weights)
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = export(Other(), (torch.zeros(1, 1, 40, 50),) * 2, dynamic_shapes=(sides, sides))
    file = io.BytesIO()
    save(program, file)
    assert exporting.largest_difference(network, file.getvalue(), "torch") > exporting.TOLERANCE


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_nothing_of_this_machine_is_inside(exports, format):
    content = exports[format][1].read_bytes()
    for trace in (str(REPOSITORY), "network.py", "site-packages"):
        assert trace.encode() not in content


def onnx_of(write):
    """A session of `write(graph)`, whose input is `x` and whose last node is the output."""
    import onnx
    import onnxruntime
    from onnx import helper

    graph = onnx_graph._Graph()
    write(graph)
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in ("x", graph.nodes[-1].output[0])
    ]
    made = helper.make_graph(graph.nodes, "test", ends[:1], ends[1:], graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_onnx_keeps_the_digits_of_small_steps():
    x = torch.cat([torch.linspace(-30, 30, 1001), torch.tensor([-80.0, 0.0, 200.0])])
    (got,) = onnx_of(lambda g: onnx_graph._softplus(g, "x")).run(None, {"x": x.numpy()})
    exact = torch.nn.functional.softplus(x.double()).numpy()
    assert np.abs(got / exact - 1).max() < 1e-6


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 8), (16, 16), (8, 1), (4, 4), (24, 8), (1, 6)])
def test_onnx_convolutions_of_few_channels(inputs, outputs, stride):
    torch.manual_seed(0)
    conv = Conv3x3(inputs, outputs, stride).double()
    x = torch.randn(1, inputs, 6, 32)
    weights = [t.detach().numpy() for t in (conv.weight, conv.bias)]
    session = onnx_of(lambda g: onnx_graph._convolve(g, "x", *weights, stride=stride))
    (got,) = session.run(None, {"x": x.permute(0, 2, 3, 1).contiguous().numpy()})
    expected = conv(x.double()).permute(0, 2, 3, 1).detach().numpy()
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < 1e-5


def test_the_comparison_sees_other_weights(weights, exports):
    network, _ = load_checkpoint(weights)
    with torch.no_grad():
        network.extraction[0].ir.scan.A_log += 0.5
    content = exports["onnx"][1].read_bytes()
    assert exporting.largest_difference(network, content, "onnx") > exporting.TOLERANCE


def test_the_example_of_the_docs(weights, exports, tmp_path, monkeypatch):
    import cv2

    text = (REPOSITORY / "docs" / "export.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    ir, vis = (np.rint(255 * picture[0, 0]).astype(np.uint8) for picture in pair(30, 41))
    cv2.imwrite(str(tmp_path / "ir.png"), ir)
    cv2.imwrite(str(tmp_path / "vis.png"), np.dstack([vis, vis // 2 + 60, vis]))
    (tmp_path / "lite.onnx").write_bytes(exports["onnx"][1].read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    model = diffmf_cli.load_model(weights)
    expected = model.fuse(ir, cv2.imread("vis.png")[:, :, ::-1], color="gray")
    fused = cv2.imread("fused.png")
    assert np.abs(cv2.cvtColor(fused, cv2.COLOR_BGR2GRAY).astype(int) - expected).mean() < 1
    assert fused.std(2).mean() > 3  # in colour


@pytest.fixture
def stub(monkeypatch, shipped, tmp_path):
    """What takes long replaced; the comparison finds what is put into the dict."""
    found = {"difference": 0.0}
    monkeypatch.setattr(exporting, "to_onnx", lambda network, facts: b"onnx")
    monkeypatch.setattr(exporting, "to_torch", lambda network, facts: b"torch")
    monkeypatch.setattr(exporting, "largest_difference", lambda *a: found["difference"])
    monkeypatch.chdir(tmp_path)
    return found


def refused(result, code, *words):
    assert (result.code, result.out) == (code, b"")
    assert result.err.startswith("Error: ")
    assert result.err.count("\n") == 1
    for word in words:
        assert str(word) in result.err


def test_names_and_formats(cli, stub, tmp_path):
    assert cli("export", "-m", "tiny").code == 0
    assert (tmp_path / "tiny.onnx").read_bytes() == b"onnx"
    assert cli("export", "-m", "tiny", "--format", "torch").code == 0
    assert (tmp_path / "tiny.pt2").read_bytes() == b"torch"
    assert cli("export", "-m", "tiny", "-o", "deep/er/X.PT2").code == 0
    assert (tmp_path / "deep" / "er" / "X.PT2").read_bytes() == b"torch"
    result = cli("export", "-m", "tiny", "-o", "y.onnx", "--no-check", "--json")
    assert result.json["difference"] is None


@pytest.mark.parametrize("difference", [1e-3, float("nan")])
def test_results_that_differ_leave_no_file(cli, stub, tmp_path, difference):
    stub["difference"] = difference
    refused(cli("export", "-m", "tiny", "-o", "a.onnx"), 1, "a.onnx", "is not written", "differ by")
    assert not list(tmp_path.glob("*.onnx"))
    assert cli("export", "-m", "tiny", "-o", "a.onnx", "--no-check").code == 0


def test_an_existing_file_is_kept(cli, stub, tmp_path):
    (tmp_path / "a.onnx").write_text("mine")
    refused(cli("export", "-m", "tiny", "-o", "a.onnx"), 1, "a.onnx", "--overwrite")
    assert (tmp_path / "a.onnx").read_text() == "mine"
    assert cli("export", "-m", "tiny", "-o", "a.onnx", "--overwrite").code == 0
    assert (tmp_path / "a.onnx").read_bytes() == b"onnx"


def test_what_cannot_be_meant(cli, stub, tmp_path):
    refused(cli("export", "-m", "tiny", "-o", "a.png"), 2, "a.png", ".onnx", ".pt2")
    refused(cli("export", "-m", "tiny", "-o", tmp_path), 2, tmp_path, "is a folder")
    refused(cli("export", "-m", "tiny", "-o", "a.onnx", "--format", "torch"), 2, "a.onnx", "--format torch")
    refused(cli("export", "-m", "tiny", "--format", "onx"), 2, "did you mean 'onnx'?")
    refused(cli("export", "-m", "tinny"), 3, "did you mean 'tiny'?")
    refused(cli("export", "-m", "tiny", "--task", "medical"), 3, "medical")
    (tmp_path / "file").write_text("")
    refused(cli("export", "-m", "tiny", "-o", "file/a.onnx"), 1, "file/a.onnx", "not a folder")
    refused(cli("export", "-m", "file", "-o", "b.onnx"), 3, "file", "not a safetensors file")
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(cli, stub, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    refused(cli("export", "-m", "tiny", "-o", "closed/a.onnx"), 1, "closed", "no permission")


def test_missing_packages(cli, stub, monkeypatch):
    monkeypatch.setattr("diffmf_cli.cli.export.find_spec", lambda name: None)
    refused(cli("export", "-m", "tiny"), 2, "onnxruntime", "pip install 'diffmf[export]'")
    assert cli("export", "-m", "tiny", "--format", "torch").code == 0
