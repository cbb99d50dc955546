"""One range for all frames: no flicker."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import diffmf_cli
from diffmf_cli.images.opencv import cv2
from diffmf_cli.images.range import IntensityRange
from diffmf_cli.video.intensity import SAMPLE, stream_range
from diffmf_cli.video.source import Frame, Source


class Arrays(Source):
    def __init__(self, arrays):
        super().__init__("arrays", [], Fraction(25), len(arrays), False)
        self.arrays, self.decoded = arrays, 0

    def _decode(self, step):
        for number, pixels in list(enumerate(self.arrays))[::step]:
            self.decoded += 1
            yield Frame(pixels, number / self.fps, number, f"frame_{number}")


def range_of(text, arrays):
    source = Arrays(arrays)
    return stream_range(text, source, source.first())


@pytest.fixture
def raw(scene):
    """14-bit counts of a static scene; from the sixth frame on something hot crosses it."""
    rng = np.random.default_rng(1)
    counts = 7000 + 4 * scene[0].astype(np.float64)
    frames = []
    for i in range(12):
        frame = counts + rng.normal(0, 2, counts.shape)
        if i >= 6:
            frame[30:38, 4 * i - 20 : 4 * i - 10] = 12000
        frames.append(frame.astype(np.uint16))
    return frames


def test_8_bit_frames_keep_their_full_range(scene):
    assert range_of("auto", [scene[0]] * 3) == "auto"


def test_auto_covers_what_single_frames_would_get(raw):
    low, high = map(float, range_of("auto", raw).split(","))
    limits = [IntensityRange().limits(frame) for frame in raw]
    assert (low, high) == (min(low for low, _ in limits), max(high for _, high in limits))
    # Half a range apart: frame by frame it would flicker.
    assert limits[0][1] < 8100
    assert limits[-1][1] > 10000


def test_blank_frames_do_not_count(raw):
    shutter = [np.zeros_like(raw[0]), np.full_like(raw[0], 65535)]
    assert range_of("auto", [shutter[0], *raw, shutter[1]]) == range_of("auto", raw)
    assert range_of("auto", [shutter[0]] * 3) == "0.0,1.0"


@pytest.mark.parametrize("kind", ["percentile", "set"])
def test_percentiles_are_of_all_frames_together(raw, kind):
    low, high = map(float, range_of(f"{kind}:1,99", raw).split(","))
    assert (low, high) == pytest.approx(np.percentile(raw, (1, 99)), rel=2e-3)


def test_a_range_that_is_given_is_taken(raw):
    assert range_of("7000,9000", raw) == "7000,9000"


def test_long_streams_are_sampled(raw):
    source = Arrays(raw[:2] * (2 * SAMPLE))
    stream_range("auto", source, raw_first := source.first())
    assert raw_first.pixels.dtype == np.uint16
    assert source.decoded <= SAMPLE + 1


@pytest.mark.parametrize("model", ["base", "lite"])
def test_the_background_does_not_flicker(model):
    """A hot object enters a static scene and crosses it: what is far from its path stays as it was."""
    examples = Path(__file__).parents[2] / "examples"
    small = {"dsize": (320, 240), "interpolation": cv2.INTER_AREA}
    ir = cv2.resize(cv2.imread(str(examples / "street_night_ir.png"), cv2.IMREAD_GRAYSCALE), **small)
    vis = cv2.resize(cv2.imread(str(examples / "street_night_vis.png")), **small)
    rng = np.random.default_rng(1)
    frames = []
    for i in range(5):
        counts = 7000 + 8.0 * ir + rng.normal(0, 2, ir.shape)
        if i >= 2:
            counts[170:194, 60 * i - 100 : 60 * i - 88] = 9500
        frames.append(counts.astype(np.uint16))
    fuser = diffmf_cli.load_model(model, device="cpu")

    def background(ir_range):
        return np.stack([fuser.fuse(ir, vis, ir_range=ir_range)[:140] for ir in frames]).astype(float)

    steady, flickering = background(range_of("auto", frames)), background("auto")
    # In grey levels. The noise alone, which is not the same in two frames, gives 0.3 a pixel.
    assert np.ptp(steady.mean((1, 2, 3))) < 1
    assert steady.std(0).mean() < 0.65
    assert np.ptp(flickering.mean((1, 2, 3))) > 5
