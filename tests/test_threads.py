"""Parts of a picture on threads, and how many."""

import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from diffmf_cli.threads import in_lanes, on_threads


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_order_and_values():
    assert on_threads(lambda n: n * n, list(range(50))) == [n * n for n in range(50)]
    assert on_threads(lambda n: n, []) == []


def test_all_threads_work_each_with_one_of_torchs(threads):
    together = threading.Barrier(threads, timeout=20)

    def work(_part):
        together.wait()  # breaks if fewer threads than parts
        return threading.get_ident(), torch.get_num_threads()

    for _ in range(2):
        seen = on_threads(work, range(threads))
        assert len({ident for ident, _ in seen}) == threads
        assert {count for _, count in seen} == {1}


def test_a_part_may_have_parts():
    inner = lambda n: on_threads(lambda m: n * 10 + m, [1, 2])  # noqa: E731
    assert on_threads(inner, list(range(9))) == [[n * 10 + 1, n * 10 + 2] for n in range(9)]


def test_modes_of_the_caller():
    def modes(_part):
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")

    assert set(on_threads(modes, [0, 1])) == {(False, True, False)}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert set(on_threads(modes, [0, 1])) == {(True, False, True)}
    with torch.no_grad():
        assert set(on_threads(modes, [0, 1])) == {(False, False, False)}


def test_numbers_near_zero_are_flushed():
    tiny = torch.full((1000,), 1e-38)
    assert (tiny * 0.01 != 0).any()  # elsewhere they are kept
    assert on_threads(lambda _: bool((tiny * 0.01 != 0).any()), [0, 1]) == [False, False]


def test_an_error_comes_back_and_nothing_runs_on():
    done = []

    def work(n):
        if n == 0:
            raise ValueError("part 0")
        done.append(n)

    with pytest.raises(ValueError, match="part 0"):
        on_threads(work, list(range(200)))
    count = len(done)
    on_threads(lambda _: None, [0, 1, 2])
    assert len(done) <= count + 2


def lane(name, counts, seen):
    """Phases of so many parts, each of which looks whether the phase before it was done."""
    for phase, count in enumerate(counts):
        done = [0]

        def work(part, phase=phase, done=done):
            time.sleep(0.001 * (part % 3))
            with lock:
                seen.append((name, phase, part))
                done[0] += 1

        yield work, range(count)
        assert done == [count]


lock = threading.Lock()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_lanes_have_phases_in_order(count):
    torch.set_num_threads(count)
    seen, counts = [], {"a": [3, 1, 0, 5], "b": [2, 2], "c": []}
    try:
        in_lanes(*(lane(name, sizes, seen) for name, sizes in counts.items()))
    finally:
        torch.set_num_threads(3)
    expected = [(n, i, k) for n, sizes in counts.items() for i, size in enumerate(sizes) for k in range(size)]
    assert sorted(seen) == expected


def test_a_lane_that_waits_leaves_its_threads_to_others(threads):
    """The first lane's phases have one part each, which waits for parts of the second."""
    others = threading.Semaphore(0)

    def wait(_part):
        for _ in range(3):
            assert others.acquire(timeout=20)

    in_lanes([(wait, [0]), (wait, [0])], [(lambda _: others.release(), range(6))])


@pytest.mark.parametrize("where", ["a part", "between"])
def test_an_error_in_a_lane_comes_back_and_ends_the_others(where):
    done = []

    def failing():
        yield (lambda _: 1 / 0) if where == "a part" else print, [""]
        raise ZeroDivisionError

    def slow(part):
        time.sleep(0.002)
        done.append(part)

    with pytest.raises(ZeroDivisionError):  # of another thread than the first, which the caller waits for
        in_lanes([(lambda _: time.sleep(0.2), [0]), (slow, range(500))], failing())
    on_threads(lambda _: None, [0, 1, 2])
    assert not done


@pytest.mark.parametrize(("count", "before"), [(1, "2"), (None, "1")])
def test_a_limit_holds_for_every_library(count, before):
    code = f"""
from diffmf_cli.threads import limit_threads
limit_threads({count})
import sys
assert "torch" not in sys.modules
import cv2, numba, torch
print(torch.get_num_threads(), numba.get_num_threads(), cv2.getNumThreads())
"""
    variables = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
    environment = {**os.environ, **dict.fromkeys(variables, before)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["1", "1", "1"], done.stderr
