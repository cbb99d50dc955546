from fractions import Fraction

import numpy as np
import pytest

from diffmf_cli.errors import ImageError, UsageError
from diffmf_cli.images.opencv import cv2
from diffmf_cli.video.sequence import SequenceSink, SequenceSource, is_sequence
from diffmf_cli.video.source import Frame


@pytest.fixture
def folder(tmp_path):
    def make(*names):
        for name in names:
            cv2.imwrite(str(tmp_path / name), np.full((2, 3), len(name), np.uint8))
        return str(tmp_path)

    return make


def numbers(source):
    return [(frame.name, frame.number, frame.time) for frame in source.frames()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ir_%04d.png", True),
        ("%d.tif", True),
        ("ir/", True),
        ("out", True),
        ("ir.mp4", False),
        ("100%.mp4", False),
        ("%s.mp4", False),
    ],
)
def test_what_is_a_sequence(text, expected):
    assert is_sequence(text) == expected


def test_a_file_that_exists_is_that_file(tmp_path):
    for name in ("odd%d.mp4", "without_extension"):
        assert is_sequence(str(tmp_path / name))
        (tmp_path / name).touch()
        assert not is_sequence(str(tmp_path / name))


def test_frames_are_in_the_order_of_their_numbers(folder, tmp_path):
    (tmp_path / "f6.txt").touch()
    source = SequenceSource(folder("f10.png", "f9.png", "f8.png", ".f7.png"), Fraction(25), False)
    assert numbers(source) == [("f8", 8, 0), ("f9", 9, Fraction(1, 25)), ("f10", 10, Fraction(2, 25))]
    assert (source.count, source.seconds, source.start) == (3, Fraction(3, 25), 8)


def test_a_missing_number_is_a_gap_in_time(folder, caplog):
    text = folder("f1.png", "f2.png", "f5.png")
    source = SequenceSource(text, Fraction(10), False)
    assert [time for _, _, time in numbers(source)] == [0, Fraction(1, 10), Fraction(4, 10)]
    assert source.seconds == Fraction(5, 10)
    assert "misses 2 of its numbers, the first between f2.png and f5.png" in caplog.text
    with pytest.raises(ImageError, match="misses 2"):
        SequenceSource(text, Fraction(10), True)


@pytest.mark.parametrize(
    "names",
    [
        ("2024-05-01_12-00-59.png", "2024-05-01_12-01-00.png", "2024-05-01_12-01-59.png"),
        ("1714564859123.png", "1714564859165.png", "1714564859999.png"),
        ("a.png", "b.png", "c.png"),
        ("a.png", "b 2.png", "b 10.png"),
    ],
)
def test_names_that_do_not_count_frames_are_counted_in_order(folder, names, caplog):
    source = SequenceSource(folder(*reversed(names)), Fraction(5), True)
    assert numbers(source) == [(name[:-4], n + 1, Fraction(n, 5)) for n, name in enumerate(names)]
    assert not caplog.text


def test_a_pattern_takes_its_own_series_only(folder):
    text = folder("ir_01.png", "ir_02.png", "vis_01.png", "vis_02.png", "ir_3.png", "ir_01.jpg", "xir_03.png")
    assert [name for name, _, _ in numbers(SequenceSource(f"{text}/ir_%02d.png", Fraction(1), True))] == [
        "ir_01",
        "ir_02",
    ]
    with pytest.raises(UsageError, match="more than one series"):
        SequenceSource(text, Fraction(1), False)


def test_alpha_is_kept(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 5, 4), np.uint8)
    cv2.imwrite(str(tmp_path / "1.png"), pixels)
    frame = SequenceSource(str(tmp_path), Fraction(1), False).first()
    sink = SequenceSink(str(tmp_path / "out"), False, ".png")
    sink.write(frame.pixels, frame)
    assert np.array_equal(cv2.imread(str(tmp_path / "out" / "1.png"), cv2.IMREAD_UNCHANGED), pixels)


def test_names_of_the_results(tmp_path):
    frame = Frame(np.zeros((2, 2), np.uint8), Fraction(0), 7, "vis_7")
    assert SequenceSink("out/", False, ".tif").path_of(frame).as_posix() == "out/vis_7.tif"
    assert SequenceSink("a/b_%03d.webp", False, ".png").path_of(frame).as_posix() == "a/b_007.webp"
    with pytest.raises(UsageError, match=r"\.gif"):
        SequenceSink("%d.gif", False, ".png")


def test_pictures_of_other_names_are_no_obstacle_to_a_pattern(folder):
    text = folder("ir_1.png")
    SequenceSink(f"{text}/fused_%d.png", False, ".png").check()
    with pytest.raises(ImageError, match=r"ir_1\.png"):
        SequenceSink(f"{text}/ir_%d.png", False, ".png").check()
    SequenceSink(text, True, ".png").check()
