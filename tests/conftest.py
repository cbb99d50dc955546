"""What all tests share: a small checkpoint, pictures, and the command line in and out of process."""

import gc
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diffmf_cli  # noqa: F401 - before any test imports torch: it says how long threads wait awake

REPOSITORY = Path(__file__).resolve().parent.parent
gc.set_threshold(5_000)  # as the command does; among all that tests keep, looking for garbage took a tenth


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("DIFFMF_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # set by --offline, and restored only if it was set here


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of torch, also in processes: pictures of tests are too small to share.

    Beside a busy core, threads waited ten times as long as they worked.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights, small enough to fuse in milliseconds."""
    import torch

    from diffmf_cli.model.checkpoint import save_checkpoint
    from diffmf_cli.model.network import Config, DiffMF

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    save_checkpoint(path, DiffMF(Config(width=16, extraction=1)), {"task": "ir-vis", "version": "0"})
    return path


@pytest.fixture(scope="session", autouse=True)
def exporting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, subprocess.Popen] | None]:
    """Weights, and the process that exports them as `.pt2` and `.onnx` beside them, if a test asks for it.

    It works for half a minute, on one core: so it begins before the first test, which uses another one.
    """
    if not any("exports" in item.fixturenames for item in request.session.items):
        yield None
        return
    import torch

    from diffmf_cli.model.checkpoint import save_checkpoint
    from diffmf_cli.model.network import Config, DiffMF

    torch.manual_seed(0)
    network = DiffMF(Config(width=16, extraction=1))
    with torch.no_grad():  # nothing that matters stays near zero, so that a wrong scan shows
        for name, parameter in network.named_parameters():
            if "gain_" in name:
                parameter.fill_(1.0)
            elif "guide" in name:
                parameter.normal_(0, 0.3)
            elif "select" in name:
                parameter *= 6
        network.decoder.out.weight *= 20
    path = tmp_path_factory.mktemp("export") / "small.safetensors"
    save_checkpoint(path, network, {"task": "ir-vis", "version": "7"})
    code = f"""
from diffmf_cli.cli.app import run
for file in {[str(path.with_suffix(suffix)) for suffix in (".pt2", ".onnx")]}:
    assert run(["export", "-m", {str(path)!r}, "-o", file, "--json"]) == 0
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("DIFFMF_")} | {"OMP_NUM_THREADS": "1"},
    ) as process:
        yield path, process
        process.kill()


@pytest.fixture
def shipped(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A catalogue of its own in place of the shipped one, which holds `tiny`; its folder."""
    from diffmf_cli.model import catalogue

    folder = tmp_path_factory.mktemp("shipped")
    data = tiny_model.read_bytes()
    (folder / "tiny.safetensors").write_bytes(data)
    row = {
        "name": "tiny",
        "task": "ir-vis",
        "version": "0",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "description": "random weights",
    }
    (folder / "catalogue.json").write_text(json.dumps([row]))
    monkeypatch.setattr(catalogue, "shipped_folder", lambda: folder)
    return folder


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A small registered pair: uint8 `(48, 64)` with a hot blob, and RGB `(48, 64, 3)` with texture."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64]
    ir = 60 + 180 * np.exp(-((x - 40) ** 2 + (y - 20) ** 2) / 50)
    vis = np.stack([40 + 2 * x, 30 + 3 * y, 120 + 40 * np.sin(x / 3)], 2) + rng.normal(0, 4, (48, 64, 3))
    return ir.clip(0, 255).astype(np.uint8), vis.clip(0, 255).astype(np.uint8)


@pytest.fixture
def pair(tmp_path: Path, scene: tuple[np.ndarray, np.ndarray]) -> tuple[Path, Path]:
    """`scene` as `ir.png` and `vis.png` in `tmp_path`."""
    import cv2

    ir, vis = tmp_path / "ir.png", tmp_path / "vis.png"
    cv2.imwrite(str(ir), scene[0])
    cv2.imwrite(str(vis), scene[1][:, :, ::-1])
    return ir, vis


@pytest.fixture
def write_clip(tmp_path: Path) -> Callable[..., Path]:
    """Makes a video in `tmp_path` of uint8 frames, grey or RGB; lossless (FFV1) unless told otherwise."""
    from diffmf_cli.images.opencv import cv2

    def write(name: str, frames: list[np.ndarray], fps: float = 25, fourcc: str = "FFV1") -> Path:
        height, width = frames[0].shape[:2]
        coloured = frames[0].ndim == 3
        code = cv2.VideoWriter.fourcc(*fourcc)
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, (width, height), coloured)
        assert writer.isOpened()
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[:, :, ::-1]) if coloured else frame)
        writer.release()
        return path

    return write


@pytest.fixture
def clip_frames(scene: tuple[np.ndarray, np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Six frames of `scene`, in which everything moves: infrared and visible ones."""
    ir, vis = scene
    return [np.roll(ir, 3 * i, 1) for i in range(6)], [np.roll(vis, 2 * i, 1) for i in range(6)]


@pytest.fixture
def clips(
    write_clip: Callable[..., Path], clip_frames: tuple[list[np.ndarray], list[np.ndarray]]
) -> tuple[Path, Path]:
    """`clip_frames` as lossless `ir.mkv` and `vis.mkv` of 25 frames a second."""
    return write_clip("ir.mkv", clip_frames[0]), write_clip("vis.mkv", clip_frames[1])


@pytest.fixture(scope="session")
def scene_of() -> Callable[[int, tuple[int, int]], tuple[np.ndarray, np.ndarray]]:
    """Draws what two cameras see of one scene: the same outlines in brightness that has nothing in common.

    From a seed and `(width, height)`: infrared and visible `(H, W)` float32 in [0, 1].
    """
    import cv2

    def draw(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        ir, vis = (np.full(size[::-1], 0.4, np.float32) for _ in range(2))
        for number in range(40):
            centre, reach = rng.uniform((0, 0), size), rng.uniform(0.03, 0.15) * size[0]
            shape = [np.rint(centre + rng.uniform(-reach, reach, (5, 2))).astype(np.int32)]
            cv2.fillPoly(vis, shape, float(rng.uniform(0, 1)))
            if number % 4:
                cv2.fillPoly(ir, shape, float(rng.uniform(0, 1)))
        for picture, noise in ((ir, 0.02), (vis, 0.01)):
            cv2.GaussianBlur(picture, (0, 0), 0.8, dst=picture)
            picture += rng.normal(0, noise, picture.shape).astype(np.float32)
        return ir.clip(0, 1), vis.clip(0, 1)

    return draw


@pytest.fixture(scope="session")
def street_in() -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
    """Renders the street of examples/ in a light, 480x360, 8-bit; each once, since it takes two seconds."""
    path = REPOSITORY / "examples" / "render_street.py"
    spec = importlib.util.spec_from_file_location("render_street", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cache(lambda light: module.render(light, (480, 360), 7))


@pytest.fixture(scope="session")
def flir_jpeg() -> Callable[..., bytes]:
    """Composes a FLIR radiometric JPEG as cameras lay it out, of counts and an optional visible picture.

    With its constants (R1 = 14364.633, B = 1385.4, F = 1, O = -5753, R2 = 0.010603162, nothing between camera
    and object, emissivity 1) a count S is B / ln(R1 / (R2 (S + O)) + F) kelvin.
    """
    import io
    import struct

    from PIL import Image as Pillow

    def compose(
        counts: np.ndarray, visible: np.ndarray | None = None, chunk: int = 60000, emissivity: float = 1.0
    ) -> bytes:
        rendered = io.BytesIO()
        Pillow.fromarray((counts >> 8).astype(np.uint8)).save(rendered, "JPEG")
        height, width = counts.shape
        png = io.BytesIO()
        Pillow.fromarray(counts.astype(np.uint16).byteswap()).save(png, "PNG")  # byte order as in the files
        records = {1: struct.pack("<HHH26x", 2, width, height) + png.getvalue()}
        camera = bytearray(836)
        struct.pack_into("<6f", camera, 32, emissivity, 0, 293.15, 293.15, 293.15, 1)
        struct.pack_into("<f", camera, 60, 0.5)
        struct.pack_into("<3f", camera, 88, 14364.633, 1385.4, 1)
        struct.pack_into("<5f", camera, 112, 0.006569, 0.01262, -0.002276, -0.00667, 1.9)
        struct.pack_into("<if", camera, 776, -5753, 0.010603162)
        records[32] = bytes(camera)
        if visible is not None:
            photo = io.BytesIO()
            Pillow.fromarray(visible).save(photo, "PNG")
            size = visible.shape[1::-1]
            records[14] = struct.pack("<HHH26x", 2, *size) + photo.getvalue()
        places = len(records) + 4  # the directory of real files ends with free places
        offset, entries, body = 64 + 32 * places, b"", b""
        for kind, content in records.items():
            place = offset + len(body)
            entries += struct.pack(">HHIIIIIII", kind, 3, 100, 1, place, len(content), 0, 0, 0)
            body += content
        header = b"FFF\0" + b"\0" * 16 + struct.pack(">III", 100, 64, places) + b"\0" * 32
        data = header + entries.ljust(32 * places, b"\0") + body
        parts = [data[i : i + chunk] for i in range(0, len(data), chunk)]
        segments = b"".join(
            b"\xff\xe1"
            + struct.pack(">H", len(part) + 10)
            + b"FLIR\0\1"
            + bytes([number, len(parts) - 1])
            + part
            for number, part in enumerate(parts)
        )
        whole = rendered.getvalue()
        return whole[:2] + segments + whole[2:]

    return compose


@dataclass
class Result:
    """What a run of the command line left behind."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Stdout as the one JSON object that it must be."""
        return json.loads(self.out)


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Result]:
    """Runs `diffmf` in this process."""
    from diffmf_cli.cli.app import run

    def call(*args: object) -> Result:
        code = run([str(arg) for arg in args])
        captured = capfdbinary.readouterr()
        return Result(code, captured.out, captured.err.decode())

    return call


@pytest.fixture(scope="session")
def by_triton_interpreter() -> Callable[[str], None]:
    """Runs code that ends by printing `agreed` in a process where Triton kernels run on the CPU."""
    import torch

    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if torch.cuda.is_available():
        pytest.skip("the kernels run for real in other tests")
    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        pytest.skip("Triton 3.6's interpreter needs NumPy before 2.4")

    def run(code: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "TRITON_INTERPRET": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == "agreed", done.stderr

    return run


@pytest.fixture
def without_torch(tmp_path: Path) -> Callable[[list[list[object]]], list[Result]]:
    """Runs several lines of `diffmf` in one process, in which importing torch is a failure that says so."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "torch.py").write_text("raise RuntimeError('torch was imported')")

    def call(lines: list[list[object]]) -> list[Result]:
        words = [[str(word) for word in line] for line in lines]
        code = (
            "import sys\nfrom diffmf_cli.cli.app import run\n"
            f"for line in {words}:\n"
            "    code = run(line)\n"
            "    print('\\0', code, end='\\0', file=sys.stderr, flush=True)\n"
        )
        path = f"{tmp_path / 'fake'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        told = done.stderr.split("\0")[:-1]
        return [Result(int(code), b"", err) for err, code in zip(told[::2], told[1::2], strict=True)]

    return call


@pytest.fixture
def process() -> Callable[..., Result]:
    """Runs `python -m diffmf_cli` in a process of its own, where streams and imports are the real ones."""

    def call(*args: object, stdin: bytes | None = None, **settings: str) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "diffmf_cli", *map(str, args)],
            input=stdin,
            capture_output=True,
            env={**os.environ, **settings},
            timeout=120,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr.decode())

    return call
