"""`--threads` and `DIFFMF_THREADS`: every command that computes passes it on before it computes."""

import os
import subprocess
import sys

import pytest

COMMANDS = {
    "fuse": ["ir.png", "vis.png"],
    "batch": ["ir", "vis", "-o", "out"],
    "video": ["ir.mp4", "vis.mp4"],
    "align": ["ir", "vis", "-o", "rig.json"],
    "evaluate": ["--ir", "ir", "--vis", "vis", "--fused", "out"],
    "export": ["-m", "nowhere.safetensors"],
}


def output_of(code, **settings):
    environment = {**os.environ, **settings}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_command_passes_it_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = f"""
import os
from diffmf_cli.cli.app import run
variables = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
for command, args in {COMMANDS}.items():
    for option in (["--threads", "3"], []):
        for variable in variables:
            os.environ.pop(variable, None)
        assert run([command, *args, *option]) != 0  # there are no such files
        print(command, *map(os.environ.get, variables))
"""
    lines = [f"{name} {count} {count} {count}" for name in COMMANDS for count in (3, 2)]
    assert output_of(code, DIFFMF_THREADS="2") == lines


def test_fuse_computes_with_so_many(pair, tiny_model, tmp_path):
    ir, vis = map(str, pair)
    args = ["fuse", ir, vis, "-m", str(tiny_model), "-o", str(tmp_path / "out.png"), "-q", "--threads", "1"]
    code = f"""
from diffmf_cli.cli.app import run
assert run({args}) == 0
import cv2, torch
print(torch.get_num_threads(), cv2.getNumThreads())
"""
    assert output_of(code, OMP_NUM_THREADS="2", OPENCV_FOR_THREADS_NUM="2") == ["1 1"]


@pytest.mark.parametrize("count", ["0", "-1", "many", "1.5"])
@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_meant(cli, command, count):
    result = cli(command, *COMMANDS[command], "--threads", count)
    assert (result.code, result.out) == (2, b"")
    assert result.err.count("\n") == 1
    assert "'--threads'" in result.err
