from fractions import Fraction

import numpy as np
import pytest

from diffmf_cli.errors import ImageError
from diffmf_cli.video.source import Frame, Source
from diffmf_cli.video.timing import check_rates_and_lengths, synchronise


class Made(Source):
    """Frames at given times."""

    def __init__(self, name, times, fps=None):
        self.times = [Fraction(time).limit_denominator(10**6) for time in times]
        super().__init__(name, [], Fraction(fps), len(times), False)

    def _decode(self, step):
        for number, time in enumerate(self.times[::step]):
            yield Frame(np.zeros((1, 1), np.uint8), time, number, str(number))


def regular(name, count, fps):
    return Made(name, [Fraction(n) / Fraction(fps) for n in range(count)], fps)


def matched(ir, vis, strict=False):
    pairs = synchronise(ir, vis, ir.frames(), vis.frames(), strict=strict)
    return [(a.number, b.number) for a, b in pairs]


def test_equal_streams_pair_one_to_one(caplog):
    for fps in (25, Fraction(30000, 1001), 9):
        assert matched(regular("ir", 50, fps), regular("vis", 50, fps)) == [(n, n) for n in range(50)]
    assert not caplog.text


def test_nearest_in_time_wins(caplog):
    pairs = matched(regular("ir", 9, 9), regular("vis", 30, 30))
    assert [b for _, b in pairs] == list(range(30))
    for a, b in pairs:
        assert abs(a / 9 - b / 30) <= 1 / 18 + 1e-9 or a == 8
    assert not caplog.text
    assert matched(regular("ir", 60, 60), regular("vis", 30, 30)) == [(2 * n, n) for n in range(30)]
    # As near: the earlier.
    assert matched(Made("ir", [0, 2], 0.5), Made("vis", [0, 1, 2], 1))[1] == (0, 1)


def test_uneven_times():
    ir = Made("ir", [0, 0.1, 0.2, 0.7, 0.8], 6)
    vis = Made("vis", [0, 0.25, 0.5, 0.75], 4)
    assert matched(ir, vis) == [(0, 0), (2, 1), (3, 2), (3, 3)]


def test_a_lost_frame_does_not_shift_the_rest():
    ir = Made("ir", [0, 0.04, 0.12, 0.16, 0.2], 25)
    assert matched(ir, regular("vis", 6, 25)) == [(0, 0), (1, 1), (1, 2), (2, 3), (3, 4), (4, 5)]


@pytest.mark.parametrize(("ir_frames", "vis_frames"), [(50, 60), (60, 50), (50, 51), (51, 50)])
def test_ends_with_the_shorter_and_says_so(caplog, ir_frames, vis_frames):
    ir, vis = regular("a.mp4", ir_frames, 25), regular("b.mp4", vis_frames, 25)
    assert matched(ir, vis) == [(n, n) for n in range(50)]
    shorter, longer = ("a.mp4", "b.mp4") if ir_frames == 50 else ("b.mp4", "a.mp4")
    assert caplog.messages == [f"{shorter} ends at 2.00 s, where {longer} goes on: the result ends there"]
    with pytest.raises(ImageError, match=f"{shorter} ends at 2.00 s"):
        matched(ir, vis, strict=True)


def test_cameras_that_stopped_together_end_together():
    """The slower one's last frame lasts beyond, or falls short of, the faster one's by less than a period."""
    for seconds in (4.0, 4.05, 4.1, 4.2):
        ir, vis = regular("ir", int(seconds * 9) + 1, 9), regular("vis", int(seconds * 30) + 1, 30)
        assert len(matched(ir, vis, strict=True)) == int(seconds * 30) + 1


def test_one_frame():
    assert matched(regular("ir", 1, 25), regular("vis", 1, 25)) == [(0, 0)]


def test_lengths_are_compared_before_the_work(caplog):
    with pytest.raises(ImageError, match=r"a\.mp4 lasts 2\.00 s and b\.mp4 2\.40 s"):
        check_rates_and_lengths(regular("a.mp4", 50, 25), regular("b.mp4", 60, 25), True)
    check_rates_and_lengths(regular("a.mp4", 50, 25), regular("b.mp4", 60, 25), False)
    check_rates_and_lengths(regular("a.mp4", 50, 25), regular("b.mp4", 51, 25), True)  # headers estimate
    assert not caplog.text
    check_rates_and_lengths(regular("ir", 9, 9), regular("vis", 30, Fraction(30000, 1001)), True)
    assert caplog.messages == [
        "IR has 9 frames a second, VIS 29.97: each visible frame gets the infrared one nearest in time"
    ]
