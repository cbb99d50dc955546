import signal
import threading
import time
from concurrent.futures import Future

import pytest

from diffmf_cli.batch.engine import run_jobs
from diffmf_cli.batch.job import Job, Outcome
from diffmf_cli.interrupt import held_interrupt


def job(index):
    return Job(str(index), "", "", f"/{index}", str(index))


class Immediate:
    """An engine that answers at once, in the calling thread."""

    depth = 3

    def __init__(self, failing=()):
        self.failing, self.taken, self.closed = failing, [], 0

    def submit(self, job):
        self.taken.append(job.key)
        future = Future()
        future.set_result(Outcome(job, "failed" if job.key in self.failing else "done"))
        return future

    def close(self):
        self.closed += 1


def statuses(*args, **options):
    return [(outcome.job.key, outcome.status) for outcome in run_jobs(*args, **options)]


def test_outcomes_of_all_jobs():
    engine = Immediate(failing=("2",))
    found = statuses(iter(map(job, range(5))), lambda: engine, lambda job: job.key == "3")
    assert sorted(found) == [("0", "done"), ("1", "done"), ("2", "failed"), ("3", "skipped"), ("4", "done")]
    assert engine.closed == 1


def test_no_engine_where_all_is_there():
    assert statuses(iter(map(job, range(2))), lambda: pytest.fail("started"), lambda job: True) == [
        ("0", "skipped"),
        ("1", "skipped"),
    ]


def test_fail_fast_takes_no_more():
    engine = Immediate(failing=("1",))
    found = statuses(iter(map(job, range(100))), lambda: engine, lambda job: False, fail_fast=True)
    assert ("1", "failed") in found
    assert len(found) == len(engine.taken) <= 2 + Immediate.depth


def test_never_more_than_its_depth():
    class Slow(Immediate):
        waiting, most = 0, 0

        def submit(self, job):
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            return super().submit(job)

    engine = Slow()
    for _ in run_jobs(iter(map(job, range(20))), lambda: engine, lambda job: False):
        engine.waiting -= 1
    assert engine.most == Slow.depth


def test_jobs_that_come_later():
    later = iter([job(0), None, None, job(1), None])
    assert len(statuses(later, Immediate, lambda job: False)) == 2


def test_what_was_done_before_an_interrupt_is_told():
    engine = Immediate()

    def interrupted():
        yield job(0)
        yield job(1)
        raise KeyboardInterrupt

    outcomes = run_jobs(interrupted(), lambda: engine, lambda job: False)
    found = [next(outcomes).job.key, next(outcomes).job.key]
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)
    assert found == ["0", "1"]
    assert engine.closed == 1


@pytest.fixture
def ctrl_c():
    """A function that interrupts; a test run in the background starts with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("skipped", [False, True])
def test_an_interrupt_while_an_outcome_is_noted_loses_none(ctrl_c, skipped):
    engine, found = Immediate(), []

    def run():
        with held_interrupt() as interrupted:
            for outcome in run_jobs(
                iter(map(job, range(100))), lambda: engine, lambda job: skipped, interrupted=interrupted
            ):
                if not found:
                    ctrl_c()
                found.append(outcome.job.key)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert found == (["0"] if skipped else engine.taken)
    assert len(found) == (1 if skipped else Immediate.depth)
    assert engine.closed == (not skipped)


def test_an_interrupt_at_the_end_of_a_wait_ends_it(ctrl_c):
    stuck, began = Future(), time.monotonic()

    class Stuck(Immediate):
        def submit(self, job):
            return stuck

    def late(*_):  # longer than a wait
        time.sleep(0.3)
        ctrl_c()

    def run():
        with held_interrupt() as interrupted:
            statuses(iter([job(0)]), Stuck, lambda job: False, interrupted=interrupted)

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    rescue = threading.Timer(10, stuck.set_result, [Outcome(job(0), "done")])
    rescue.start()
    with pytest.raises(KeyboardInterrupt):
        run()
    rescue.cancel()
    signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 5
