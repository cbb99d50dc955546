"""Ctrl-C, in real processes: code 130, one line, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

# Says that it began, by a file beside it.
BEGAN = "import pathlib\npathlib.Path(__file__).with_suffix('.began').touch()\n"


def start(args, path, **streams):
    return subprocess.Popen(
        [sys.executable, "-m", "diffmf_cli", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": f"{path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        },
        # A job in the background starts with SIGINT ignored, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **streams,
    )


def assert_interrupted(process, folder, before):
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"Interrupted.\n")
    assert set(folder.iterdir()) == before
    return out


@pytest.mark.parametrize("json_too", [False, True])
def test_during_the_import_of_torch(pair, tiny_model, tmp_path, json_too):
    # A stand-in that swallows KeyboardInterrupt while it is imported, as compiled modules can.
    sleep = "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass\n"
    (tmp_path / "torch.py").write_text(BEGAN + sleep)
    args = ["fuse", *pair, "-m", tiny_model, "-o", tmp_path / "out.png", *(["--json"] if json_too else [])]
    process = start(args, tmp_path)
    wait_for(tmp_path / "torch.began")
    before = set(tmp_path.iterdir())
    process.send_signal(signal.SIGINT)
    out = assert_interrupted(process, tmp_path, before)
    assert (json.loads(out)["exit_code"] == 130) if json_too else (out == b"")


def test_while_the_output_is_written(pair, tiny_model, tmp_path):
    """A rename that never comes: the temporary file must go."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib, time\n"
        "def replace(a, b):\n"
        "    pathlib.Path(__file__).with_suffix('.began').touch()\n"
        "    time.sleep(60)\n"
        "os.replace = replace\n"
    )
    process = start(["fuse", *pair, "-m", tiny_model, "-o", tmp_path / "out.png"], tmp_path)
    wait_for(tmp_path / "sitecustomize.began")
    before = {path for path in tmp_path.iterdir() if path.suffix != ".tmp"}
    assert len(before) < len(list(tmp_path.iterdir())), "no temporary file: the test tests nothing"
    process.send_signal(signal.SIGINT)
    assert_interrupted(process, tmp_path, before)


def test_while_waiting_for_stdin(pair, tiny_model, tmp_path):
    args = ["fuse", "-", pair[1], "-m", tiny_model, "-o", tmp_path / "out.png"]
    process = start(args, tmp_path, stdin=subprocess.PIPE)
    process.stdin.write(bytes(2**20))  # more than a pipe holds: returns when most of it was read
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    assert assert_interrupted(process, tmp_path, {*pair}) == b""


@pytest.mark.parametrize("delay", [0.05, 0.2])
def test_during_start_up(pair, tiny_model, tmp_path, delay):
    """From the first moment after the interpreter itself has started, which `sitecustomize` marks."""
    (tmp_path / "sitecustomize.py").write_text(BEGAN)
    process = start(["fuse", *pair, "-m", tiny_model, "-o", tmp_path / "out.png"], tmp_path)
    wait_for(tmp_path / "sitecustomize.began")
    before = set(tmp_path.iterdir())
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    assert_interrupted(process, tmp_path, before)


def wait_for(path):
    for _ in range(1000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} never came")
