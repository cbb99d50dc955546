"""Batches that are interrupted or killed, in real processes.

`BATCH_KILLS=20 pytest tests/cli/test_batch_crash.py -k kill` kills as often as wanted, at random moments.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

KILLS = int(os.environ.get("BATCH_KILLS", "1"))
PAIRS = 40  # take four times as long as a kill amid the work is late at most


@pytest.fixture
def folder(tmp_path):
    """`PAIRS` small pairs in `ir` and `vis`."""
    rng = np.random.default_rng(0)
    for name in ("ir", "vis"):
        (tmp_path / name).mkdir()
        for index in range(PAIRS):
            y, x = np.mgrid[:48, :64]
            pixels = 60 + (x * (index % 7) + 2 * y) % 150 + rng.normal(0, 5, (48, 64))
            cv2.imwrite(str(tmp_path / name / f"{index:02}.png"), pixels.clip(0, 255).astype(np.uint8))
    return tmp_path


def start(folder, out, model, *args, before=""):
    """`diffmf batch` in a process of its own, in which the code `before` runs first."""
    script = f"import sys\n{before}\nfrom diffmf_cli.__main__ import main\nmain()"
    words = ["batch", folder, "-o", folder / out, "-m", model, "--device", "cpu", *args]
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "DIFFMF_SCAN": "torch"},
        # A job in the background starts with SIGINT ignored, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def results(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def test_kill_at_any_moment_then_resume_ends_with_the_full_set(folder, tiny_model, cli, monkeypatch):
    monkeypatch.setenv("DIFFMF_SCAN", "torch")
    began = time.monotonic()
    assert cli("batch", folder, "-o", folder / "undisturbed", "-m", tiny_model, "--device", "cpu").code == 0
    lasted = 2 + time.monotonic() - began  # a process of its own imports torch first
    expected = results(folder / "undisturbed")
    assert len(expected) == PAIRS
    left = []
    for number in range(KILLS):
        out = folder / f"killed-{number}"
        process = start(folder, out.name, tiny_model)
        if number % 2 == 0:  # half of them amid the work for sure
            wait_for(lambda out=out: results(out))
            time.sleep(random.uniform(0, 0.15))
        else:
            time.sleep(random.uniform(0, lasted))
        process.kill()
        process.communicate()
        left.append(len(results(out)))
        for name, data in results(out).items():
            assert data == expected[name], f"{name} is not whole"
        code = cli("batch", folder, "-o", out, "-m", tiny_model, "--device", "cpu", "--resume").code
        assert code == 0
        assert results(out) == expected
        assert sorted(path.name for path in out.iterdir()) == sorted([*expected, "manifest.jsonl"])
    assert any(0 < count < PAIRS for count in left), f"no kill came amid the work: {left}"


# After some pairs the network never answers again, as one that is at a very large picture.
STUCK = """
import time
from diffmf_cli.fusion.fuser import Fuser
run, calls = Fuser.run, []
def stuck(self, pairs):
    calls.append(1)
    if len(calls) > 5:
        time.sleep(60)
    return run(self, pairs)
Fuser.run = stuck
"""


PROCESSES = ("--watch", "0.2", "--gpus", "cpu,cpu", "--device", "auto")


@pytest.mark.parametrize("args", [(), PROCESSES])
def test_interrupt_ends_within_two_seconds(folder, tiny_model, args):
    # Worker processes do not know STUCK: what waits there is the watching parent.
    process = start(folder, "out", tiny_model, "--json", *args, before="" if args else STUCK)
    manifest = folder / "out" / "manifest.jsonl"
    wait_for(lambda: sum(record["type"] == "pair" for record in lines(manifest)) >= 5)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 2
    assert process.returncode == 130
    assert err.decode().rstrip().endswith("Interrupted.")
    assert "Traceback" not in err.decode()
    *told, summary, interrupted = [json.loads(line) for line in out.splitlines()]
    assert interrupted["exit_code"] == 130
    kept = lines(manifest)
    assert kept[-1] == summary
    done = [record["output"] for record in kept if record.get("status") == "done"]
    assert sorted(done) == sorted(results(folder / "out"))
    assert [record for record in kept if record["type"] == "pair"] == told
    assert summary["done"] == len(done)
    assert not list((folder / "out").glob(".diffmf-*"))


def test_workers_end_with_a_parent_that_was_killed(folder, tiny_model):
    process = start(folder, "out", tiny_model, *PROCESSES)
    wait_for(lambda: len(results(folder / "out")) >= 5)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("needs /proc")
    pids = [int(word) for word in children.read_text().split()]
    assert len(pids) >= 2
    process.kill()
    process.communicate()
    wait_for(lambda: not any(alive(pid) for pid in pids))


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
