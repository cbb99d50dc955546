"""The scan in one launch: its source as ordinary C++, and on a Hopper processor."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diffmf_cli.scan import resident_scan, torch_scan, triton_scan

SOURCES = Path(resident_scan.__file__).parent
# Maps, height, width, channels, sets of parameters, maps in a row that share one, places, softplus, half.
CASES = {
    "one tile": (1, 16, 16, 32, 1, 1, 1, True, False),
    "one token": (1, 1, 1, 32, 1, 1, 1, True, False),
    "ragged, places go from job to job": (3, 21, 20, 64, 2, 1, 2, True, False),
    "a warp for each of eight lines": (1, 5, 100, 32, 1, 1, 1, True, False),
    "step sizes themselves": (2, 18, 20, 32, 2, 1, 1, False, False),
    "lanes without a channel": (2, 17, 20, 40, 1, 1, 1, True, False),
    "channels of two maps": (3, 17, 20, 48, 3, 1, 2, True, False),
    "half": (2, 17, 33, 32, 1, 2, 2, True, True),
}


def made(maps, h, w, d, sets, softplus, dtype, device="cpu"):
    g = torch.Generator().manual_seed(0)

    def normal(*size):
        return torch.randn(*size, generator=g)

    x, delta = (normal(maps, h, w, d) for _ in range(2))
    B, C = (normal(maps, h, w, 1) for _ in range(2))
    A, D, bias = -torch.exp(0.3 * normal(sets, d, 1)), normal(sets, d), normal(sets, d) - 3
    if not softplus:
        delta, bias = delta.abs() * 0.1, None
    arguments = x.to(dtype), delta.to(dtype), A, B, C, D, bias
    return [None if t is None else t.to(device) for t in arguments]


def expected(x, delta, A, B, C, D, bias, shared):
    """What float64 makes of maps, each with its own parameters."""
    results = []
    for i in range(len(x)):
        k = min(i // shared, len(A) - 1)
        values, steps, b, c = (t[i : i + 1].double() for t in (x, delta, B, C))
        own = A[k].double(), b, c, D[k].double()
        if bias is None:  # what softplus makes of it is the step size
            own_bias, steps = torch.zeros_like(own[3]), torch.log(torch.expm1(steps))
        else:
            own_bias = bias[k].double()
        results.append(torch_scan.selective_scan_2d(values, steps, *own, own_bias))
    return torch.cat(results)


def error(got, wanted):
    return ((got - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_source_as_ordinary_cpp(case, tmp_path):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    maps, h, w, d, sets, shared, places, softplus, half = case
    flags = [f"-DCHANNELS={d}", *["-DSOFTPLUS"] * softplus, *["-DHALF"] * half]
    program = tmp_path / "emulator"
    source = Path(__file__).parent / "emulator.cpp"
    command = [compiler, "-std=c++17", "-O1", "-w", *flags, f"-I{SOURCES}", "-o", program, source]
    built = subprocess.run(command, capture_output=True, text=True)
    if half and "_Float16" in built.stderr:
        pytest.skip("this g++ has no _Float16")
    assert built.returncode == 0, built.stderr
    arguments = made(maps, h, w, d, sets, softplus, torch.float16 if half else torch.float32)
    names = "x", "delta", "A", "B", "C", "D", "bias"
    for name, t in zip(names, arguments, strict=True):
        (tmp_path / name).write_bytes(b"" if t is None else t.numpy().tobytes())
    team = resident_scan.team_of_warps(h, w)
    np.array([maps, h, w, sets, shared, places, team], np.int32).tofile(tmp_path / "sizes")
    ran = subprocess.run([program, tmp_path, "0"], capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    launches = np.fromfile(tmp_path / "y", np.float16 if half else np.float32).reshape(3, maps, h, w, d)
    wanted = expected(*arguments, shared)
    for y in launches:  # each finds what the one before left
        assert error(torch.from_numpy(y), wanted) < (1e-3 if half else 2e-6)


@pytest.mark.parametrize(
    ("size", "team"),
    [
        ((1, 1), 1),
        ((16, 16), 1),
        ((62, 82), 4),
        ((80, 240), 8),
        ((124, 164), 8),
        ((64, 256), 8),
        ((64, 257), None),
        ((48, 96), 4),
        ((250, 250), None),
    ],
)
def test_teams_have_few_lines_a_thread(size, team):
    assert resident_scan.team_of_warps(*size) == team


def test_memory_is_kept_for_the_last_shapes():
    memory, device = resident_scan.Memory(), torch.device("cpu")
    made = memory.of(device, (2, 20, 40, 48), 3)
    assert made is memory.of(device, (2, 20, 40, 48), 3)
    assert made is not memory.of(device, (2, 20, 40, 48), 2)  # of another processor or type
    # Six tiles: three values of 16 lines of two kinds and 32 channels; three jobs for both maps.
    lines, states, counters = (t.numel() for t in made)
    assert (lines, states, counters) == (
        3 * 6 * 3 * 2 * 32 * 16,
        3 * (6 * 2 * 2 * 32 * 16 + 64),
        3 * 2 + 3,
    )
    for maps in range(3, 11):
        memory.of(device, (maps, 20, 40, 48), 3)
    assert made is not memory.of(device, (2, 20, 40, 48), 3)
    assert not any(t.any() for t in memory.of(device, (2, 20, 40, 48), 3))


@pytest.mark.parametrize(
    ("shape", "rounds", "change", "fits"),
    [
        ((1, 124, 164, 96), 1, {}, True),
        ((1, 124, 164, 96), 2, {}, False),  # one round of the chip
        ((2, 124, 164, 96), 2, {}, True),
        ((2, 124, 164, 48), 2, {}, False),
        ((1, 31, 41, 192), 1, {}, False),
        ((1, 260, 324, 192), 1, {}, False),  # more than 256 columns
        ((8, 124, 164, 20), 1, {}, False),  # not 16 bytes from token to token
        ((8, 124, 164, 96), 1, {"capability": (8, 0)}, False),
        ((8, 124, 164, 96), 1, {"dtype": torch.bfloat16}, False),
        ((8, 124, 164, 96), 1, {"delta": torch.float32}, False),
        ((8, 124, 164, 96), 1, {"states": 2}, False),
        ((8, 124, 164, 96), 1, {"address": 8}, False),
    ],
)
def test_what_fits(monkeypatch, shape, rounds, change, fits):
    compiled = []

    def kernel(*kind):
        compiled.append(kind)
        return resident_scan._Kernel(None, 0, 264)

    monkeypatch.setattr(resident_scan, "_kernel", kernel)
    capability = change.get("capability", (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    h200 = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: h200)

    def on_cuda(dtype):
        device, address = torch.device("cuda"), change.get("address", 0)
        return SimpleNamespace(
            shape=shape, is_cuda=True, device=device, dtype=dtype, data_ptr=lambda: address
        )

    dtype = change.get("dtype", torch.float16)
    x, delta = on_cuda(dtype), on_cuda(change.get("delta", dtype))
    A = torch.zeros(1, shape[3], change.get("states", 1))
    assert (resident_scan._fitting(x, delta, A, False, rounds) is not None) == fits
    assert bool(compiled) == fits  # nothing is compiled in vain


def test_nothing_is_done_without_a_fitting_device():
    x, delta, A, B, C, D, bias = made(1, 4, 4, 32, 1, True, torch.float32)
    out = torch.full_like(x, 7)
    assert not resident_scan.scan(x, delta, A, B, C, D, bias, out, 1, resident_scan.Memory())
    assert (out == 7).all()


@pytest.fixture
def on_hopper():
    if not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("no Hopper device")
    if triton_scan.unavailable(torch.device("cuda")):
        pytest.skip("no Triton")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize(
    "shape", [(4, 124, 164, 96), (3, 62, 90, 192), (2, 128, 256, 64), (24, 37, 53, 32), (5, 124, 164, 48)]
)
def test_a_hopper_device_agrees_with_float64(on_hopper, shape, softplus, dtype):
    arguments = made(*shape, 2, softplus, dtype, "cuda")
    out, memory = torch.empty_like(arguments[0]), resident_scan.Memory()
    wanted = expected(*arguments, 1)
    for _ in range(3):  # each launch finds what the one before left
        out.fill_(float("nan"))
        assert resident_scan.scan(*arguments, out, 1, memory)
        assert error(out, wanted) < (1e-3 if dtype == torch.float16 else 2e-6)


def test_graphs_and_streams_on_a_hopper_device(on_hopper):
    arguments = made(8, 124, 164, 96, 1, True, torch.float32, "cuda")
    x, delta, A, B, C, D, bias = arguments
    plain = x, delta, A[0], B, C, D[0], bias[0]
    with torch.no_grad():
        wanted = triton_scan.selective_scan_2d(*plain)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = triton_scan.selective_scan_2d(*plain)
        streams = [torch.cuda.Stream() for _ in range(4)]
        for _ in range(5):
            captured.fill_(float("nan"))
            graph.replay()
            results = []
            for stream in streams:  # each wants the whole chip
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    results.append(triton_scan.selective_scan_2d(*plain))
            torch.cuda.synchronize()
            assert all(torch.equal(y, wanted) for y in (captured, *results))
