"""The engine of one device: equal to single calls, several at once, bounded, and never stopped by a pair."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffmf_cli.batch.pipeline import Buckets, Pipeline, PixelRoom, automatic_batch_size, load_fuser
from diffmf_cli.errors import DiffmfError
from diffmf_cli.images.read import read_image


@pytest.fixture
def fuser(settings):
    return load_fuser(settings)


def written(jobs):
    return {job.key: read_image(Path(job.output)).pixels for job in jobs}


def test_results_equal_single_calls(fuser, settings, jobs, finish, alone):
    outcomes = finish(Pipeline(fuser, settings), jobs)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert set(outcomes["000"].seconds) == {"read", "model", "write"}
    assert (outcomes["000"].width, outcomes["000"].height) == (64, 48)
    expected = alone(jobs)
    for key, pixels in written(jobs).items():
        assert np.array_equal(pixels, expected[key])


def test_pairs_of_one_size_go_through_the_network_together(fuser, settings, jobs, finish, alone, monkeypatch):
    run, sizes, everything_read = fuser.run, [], threading.Event()

    def recorded(pairs):
        if not sizes:
            everything_read.wait(5)  # the first one; meanwhile all others arrive
        sizes.append((len(pairs), pairs[0].vis.shape))
        return run(pairs)

    monkeypatch.setattr(fuser, "run", recorded)
    engine = Pipeline(fuser, replace(settings, batch_size=3))
    threading.Timer(0.5, everything_read.set).start()
    assert {outcome.status for outcome in finish(engine, jobs).values()} == {"done"}
    assert sum(count for count, _ in sizes) == 8
    assert max(count for count, _ in sizes) == 3
    for key, pixels in alone(jobs).items():
        assert np.abs(written(jobs)[key].astype(int) - pixels).max() <= 1


def test_a_pair_that_fails_in_a_batch_fails_alone(fuser, settings, jobs, finish, monkeypatch):
    run, everything_read = fuser.run, threading.Event()

    def picky(pairs):
        everything_read.wait(5)  # the first one; meanwhile all others arrive
        if any(pair.vis[0, 0] == poison for pair in pairs):
            raise DiffmfError("poison")
        return run(pairs)

    from diffmf_cli.fusion.fuser import prepare

    victim = jobs[2]
    poison = prepare(*(read_image(Path(p)).pixels for p in (victim.ir, victim.vis))).vis[0, 0]
    monkeypatch.setattr(fuser, "run", picky)
    threading.Timer(0.4, everything_read.set).start()
    outcomes = finish(Pipeline(fuser, replace(settings, batch_size=8)), jobs)
    failed = {key: (o.reason, o.message) for key, o in outcomes.items() if o.status != "done"}
    assert failed == {victim.key: ("unusable", "poison")}
    assert not Path(victim.output).exists()


def test_an_unexpected_error_is_one_failure(fuser, settings, jobs, finish, monkeypatch):
    monkeypatch.setattr(fuser, "restore", lambda pair, fused: {}["x"])
    outcomes = finish(Pipeline(fuser, settings), jobs[:1])
    assert (outcomes["000"].reason, "KeyError" in outcomes["000"].details) == ("bug", True)


def test_what_was_written_is_told_before_it_ends(fuser, settings, jobs):
    engine, told = Pipeline(fuser, settings), []

    def tell(outcome):  # as over a slow connection
        time.sleep(0.3)
        told.append(outcome.result())

    engine.submit(jobs[0]).add_done_callback(tell)
    deadline = time.monotonic() + 30
    while not Path(jobs[0].output).exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    engine.close()
    assert [outcome.status for outcome in told] == ["done"]


def test_few_pairs_are_on_their_way_at_once(fuser, settings, make_pairs, finish, tmp_path, monkeypatch):
    """A slow network: the readers must wait, or memory would grow with the set."""
    from diffmf_cli.batch import pipeline as module

    monkeypatch.setattr(module, "MOST_PIXELS", 4 * 48 * 64)
    on_way, most, lock = {}, [0], threading.Lock()
    read, restore = module.prepare, fuser.restore

    def counted(ir, vis, **options):
        pair = read(ir, vis, **options)
        with lock:
            on_way[id(pair)] = pair.vis.size
            most[0] = max(most[0], sum(on_way.values()))
        return pair

    def counted_out(pair, fused):
        with lock:
            on_way.pop(id(pair))
        return restore(pair, fused)

    monkeypatch.setattr(module, "prepare", counted)
    monkeypatch.setattr(fuser, "restore", counted_out)
    monkeypatch.setattr(fuser, "run", lambda pairs: time.sleep(0.02) or [pair.vis for pair in pairs])
    from diffmf_cli.batch.table import Naming, table_of_folders

    ir, vis = make_pairs(30)
    many = table_of_folders(str(ir), str(vis), Naming(str(tmp_path / "out"))).jobs
    assert len(finish(Pipeline(fuser, settings), many)) == 30
    assert 2 * 48 * 64 <= most[0] <= 4 * 48 * 64


def test_reading_and_writing_overlap_the_network(fuser, settings, jobs, finish, monkeypatch):
    from diffmf_cli.batch import locations

    write, pause = locations.write, 0.08

    def slowly(*args):
        time.sleep(pause)
        write(*args)

    monkeypatch.setattr(locations, "write", slowly)
    monkeypatch.setattr(fuser, "run", lambda pairs: time.sleep(pause) or [pair.vis for pair in pairs])
    start = time.perf_counter()
    finish(Pipeline(fuser, settings, threads=2), jobs)
    # One after the other would be 16 pauses; the network alone is 8.
    assert time.perf_counter() - start < 13 * pause


def test_a_full_batch_comes_first_then_what_waits_longest():
    buckets = Buckets()
    for shape, item in [("a", 1), ("b", 2), ("b", 3), ("a", 4), ("c", 5), ("b", 6)]:
        buckets.add(shape, item)
    assert buckets.take(lambda shape: 3) == [2, 3, 6]
    assert buckets.take(lambda shape: 3) == [1, 4]
    assert buckets.take(lambda shape: 3) == [5]
    assert not buckets


def test_what_is_less_than_a_batch_is_taken_by_powers_of_two():
    buckets = Buckets()
    for item in range(19):
        buckets.add((8, 8), item)
    taken = []
    while buckets:
        taken.append(len(buckets.take(lambda shape: 12)))
    assert taken == [12, 4, 2, 1]


def test_automatic_batch_size():
    assert automatic_batch_size("cuda:0", (480, 640)) == 8
    assert automatic_batch_size("cpu", (480, 640)) == 1
    assert automatic_batch_size("mps", (480, 640)) == 1
    assert automatic_batch_size("cuda:0", (8, 8)) <= 32
    assert automatic_batch_size("cuda:1", (9000, 9000)) == 1


def test_room_for_pixels():
    room = PixelRoom(10)
    assert room.take(25)  # larger than all of it, but alone
    got = []
    waiting = threading.Thread(target=lambda: got.append(room.take(4)))
    waiting.start()
    waiting.join(0.05)
    assert got == []
    room.give_back(25)
    waiting.join(1)
    assert got == [True]
    blocked = threading.Thread(target=lambda: got.append(room.take(7)))
    blocked.start()
    room.close()
    blocked.join(1)
    assert got == [True, False]
