"""What PyAV is for: exact times, sound, depth, turned phones, colour matrices."""

from fractions import Fraction

import numpy as np
import pytest

from diffmf_cli.errors import ImageError

av = pytest.importorskip("av")

from diffmf_cli.video.opencv_video import OpenCVSource  # noqa: E402
from diffmf_cli.video.pyav_video import PyAVSink, PyAVSource  # noqa: E402
from diffmf_cli.video.source import Frame  # noqa: E402

UNEVEN = [0, 100, 200, 500, 600, 900, 950, 1200]  # milliseconds


def encode(path, frames, form, codec="ffv1", pix_fmt=None, times=None, sound=None, rate=25):
    """A video through PyAV; `times` in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt or form
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        if sound is not None:
            audio = container.add_stream("aac", rate=8000)
            audio.layout = "mono"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format=form)
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, 1000) if times else Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            samples = av.AudioFrame.from_ndarray(sound[None], "fltp", "mono")
            samples.sample_rate = 8000
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))
    return path


def write(sink, frames, times):
    with sink.opened():
        for number, (pixels, time) in enumerate(zip(frames, times, strict=True)):
            sink.write(pixels, Frame(pixels, time, number, f"frame_{number}"))


@pytest.fixture
def frames(scene):
    return [np.roll(scene[1], 4 * i, 1) for i in range(8)]


@pytest.mark.parametrize(("extension", "codec"), [("mp4", "h264"), ("mkv", "ffv1"), ("webm", "vp9")])
def test_uneven_times_are_kept(frames, tmp_path, extension, codec):
    vis = PyAVSource(encode(tmp_path / "vis.mkv", frames, "rgb24", pix_fmt="bgr0", times=UNEVEN), False)
    times = [frame.time for frame in vis.frames()]
    assert [round(1000 * time) for time in times] == UNEVEN
    sink = PyAVSink(tmp_path / f"out.{extension}", False, codec, vis.fps, frames[0].shape, None)
    write(sink, frames, times)
    with av.open(str(tmp_path / f"out.{extension}")) as container:
        written = [float(f.pts * f.time_base) for f in container.decode(video=0)]
    assert written == pytest.approx([time / 1000 for time in UNEVEN], abs=1e-3)


def test_opencv_tells_that_it_does_not_keep_them(frames, tmp_path, caplog):
    from diffmf_cli.video.opencv_video import OpenCVSink

    vis = OpenCVSource(encode(tmp_path / "vis.mkv", frames, "rgb24", pix_fmt="bgr0", times=UNEVEN), False)
    times = [frame.time for frame in vis.frames()]
    assert [round(1000 * time) for time in times] == UNEVEN
    write(OpenCVSink(tmp_path / "out.mkv", False, "ffv1", vis.fps, frames[0].shape), frames, times)
    assert "not evenly spaced" in caplog.text
    caplog.clear()
    even = [n / Fraction(25) for n in range(8)]
    write(OpenCVSink(tmp_path / "b.mkv", False, "ffv1", Fraction(25), frames[0].shape), frames, even)
    assert not caplog.text


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_sound_is_copied_up_to_the_end_of_the_pictures(frames, tmp_path, extension):
    sound = np.sin(np.arange(16000) / 5).astype(np.float32)  # 2 s, the pictures last 0.32 s
    path = encode(tmp_path / "vis.mp4", frames, "rgb24", "libx264", "yuv420p", sound=sound)
    vis = PyAVSource(path, False)
    times = [frame.time for frame in vis.frames()]
    out = tmp_path / f"out.{extension}"
    write(PyAVSink(out, False, "h264", vis.fps, frames[0].shape, vis), frames, times)
    with av.open(str(path)) as container:
        original = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    with av.open(str(out)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        assert 0 <= packets[0].pts * packets[0].time_base < 0.14
        assert float(packets[-1].pts * packets[-1].time_base) == pytest.approx(0.32, abs=0.13)
    assert all(bytes(packet) in original for packet in packets)
    with av.open(str(out)) as container:
        first = next(container.decode(video=0))
        assert first.pts * first.time_base == 0


def test_sound_that_the_container_does_not_hold(frames, tmp_path):
    path = encode(
        tmp_path / "vis.mp4", frames, "rgb24", "libx264", "yuv420p", sound=np.zeros(8000, np.float32)
    )
    sink = PyAVSink(tmp_path / "o.webm", False, "vp9", Fraction(25), frames[0].shape, PyAVSource(path, False))
    with pytest.raises(ImageError, match=r"o\.webm cannot be written as vp9 with the sound"):
        sink.check()


@pytest.mark.parametrize("source", [PyAVSource, OpenCVSource])
def test_16_bit_thermal_video_keeps_its_counts(tmp_path, source):
    counts = [np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 3 + 8000 + i for i in range(4)]
    path = encode(tmp_path / "ir.mkv", counts, "gray16le")
    assert all(
        np.array_equal(frame.pixels, n) for frame, n in zip(source(path, False).frames(), counts, strict=True)
    )


@pytest.mark.parametrize("source", [PyAVSource, OpenCVSource])
def test_grey_video_is_grey(tmp_path, scene, source):
    path = encode(tmp_path / "ir.mkv", [scene[0]] * 2, "gray")
    assert np.array_equal(source(path, False).first().pixels, scene[0])


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_video_is_upright(frames, tmp_path, degrees):
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write a rotation")
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.set_display_rotation(degrees)
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    ours = PyAVSource(path, False).first().pixels
    reference = OpenCVSource(path, False).first().pixels
    assert ours.shape == reference.shape == ((64, 48, 3) if degrees != 180 else (48, 64, 3))
    assert np.abs(ours.astype(int) - reference).mean() < 3


@pytest.mark.parametrize("height", [480, 720])
def test_colours_come_through_and_are_tagged(tmp_path, height):
    """BT.601 for small pictures and BT.709 for large ones, written so and read so."""
    pixels = np.zeros((height, 64, 3), np.uint8)
    pixels[:, :16], pixels[:, 16:32], pixels[:, 32:48] = (200, 30, 30), (30, 160, 40), (40, 50, 190)
    sink = PyAVSink(tmp_path / "o.mp4", False, "h264", Fraction(25), pixels.shape, None)
    write(sink, [pixels] * 3, [n / Fraction(25) for n in range(3)])
    read = PyAVSource(tmp_path / "o.mp4", False).first().pixels
    inside = np.s_[height // 2, [8, 24, 40, 56]]
    assert np.abs(read[inside].astype(int) - pixels[inside]).max() <= 4
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert container.streams.video[0].codec_context.colorspace == (1 if height == 720 else 6)


@pytest.mark.parametrize("source", [PyAVSource, OpenCVSource])
def test_a_file_that_is_cut_off_gives_what_there_is_with_a_notice(frames, tmp_path, source, caplog):
    path = encode(tmp_path / "whole.mkv", frames * 2, "rgb24", pix_fmt="bgr0")
    data = path.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) // 2])
    read = list(source(cut, False).frames())
    assert 5 < len(read) < 10
    assert all(
        np.array_equal(frame.pixels, pixels) for frame, pixels in zip(read[:-1], frames * 2, strict=False)
    )
    assert f"cut.mkv ends after {len(read)} of the 16 frames" in caplog.text
    with pytest.raises(ImageError, match="cut off"):
        list(source(cut, True).frames())


def test_steps(frames, tmp_path):
    path = encode(tmp_path / "v.mkv", frames, "rgb24", pix_fmt="bgr0")
    for source in (PyAVSource(path, False), OpenCVSource(path, False)):
        read = list(source.frames(3))
        assert [frame.number for frame in read] == [1, 4, 7]
        assert [frame.time for frame in read] == [0, Fraction(3, 25), Fraction(6, 25)]
        assert np.array_equal(read[2].pixels, frames[6])


@pytest.mark.parametrize(("height", "told"), [(480, False), (720, True)])
def test_opencv_tells_that_it_cannot_tag_hd(tmp_path, height, told, caplog):
    from diffmf_cli.video.opencv_video import OpenCVSink

    OpenCVSink(tmp_path / "o.mp4", False, "mpeg4", Fraction(25), (height, 64, 3))
    assert ("colours a little off" in caplog.text) == told
