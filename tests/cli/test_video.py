"""`diffmf video` from the outside: what it writes, says and refuses."""

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

import diffmf_cli
from diffmf_cli.alignment.transform import Transform


def read_clip(path):
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = []
    while True:
        done, frame = capture.read()
        if not done:
            return frames
        frames.append(frame[:, :, ::-1])


def test_one_alignment_for_all_frames(video, clips, clip_frames, tiny_model, tmp_path):
    height, width = clip_frames[1][0].shape[:2]
    shift = Transform(
        np.array([[1, 0, 5], [0, 1, 3], [0, 0, 1.0]]), "affine", (width, height), (width, height), 1
    )
    rig = tmp_path / "rig.json"
    rig.write_bytes(shift.to_json())
    out = tmp_path / "out.mkv"
    assert video(*clips, "-o", out, "--codec", "ffv1", "--align", rig).code == 0
    fuser = diffmf_cli.load_model(str(tiny_model), device="cpu")
    for frame, ir, vis in zip(read_clip(out), *clip_frames, strict=True):
        assert np.array_equal(frame, fuser.fuse(ir, vis, align=shift))
    assert not np.array_equal(frame, fuser.fuse(ir, vis))


def test_crop_is_refused(video, clips, tmp_path):
    result = video(*clips, "-o", tmp_path / "out.mkv", "--align", "auto", "--outside", "crop")
    assert result.code == 2
    assert "--outside crop would change the size" in result.err
    assert not (tmp_path / "out.mkv").exists()


def test_outside_without_an_alignment(video, clips, tmp_path):
    result = video(*clips, "-o", tmp_path / "out.mkv", "--outside", "blank")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "--outside blank is for an aligned IR: add --align" in result.err
    assert not (tmp_path / "out.mkv").exists()


def rate_of(path):
    return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FPS)


def write_pictures(folder, pattern, frames, start=1):
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(frames, start):
        cv2.imwrite(str(folder / (pattern % number)), frame if frame.ndim == 2 else frame[:, :, ::-1])
    return folder


@pytest.fixture
def video(cli, tiny_model):
    return lambda *args: cli("video", *args, "-m", tiny_model, "--device", "cpu")


@pytest.fixture
def expected(clip_frames, tiny_model):
    """What `Fuser.fuse` makes of each pair."""
    fuser = diffmf_cli.load_model(str(tiny_model), device="cpu")
    return [fuser.fuse(ir, vis) for ir, vis in zip(*clip_frames, strict=True)]


@pytest.mark.parametrize("backend", ["opencv", "pyav"])
def test_frames_are_what_the_api_gives(video, clips, expected, tmp_path, backend):
    if backend == "pyav":
        pytest.importorskip("av")
    out = tmp_path / "out.mkv"
    result = video(*clips, "-o", out, "--codec", "ffv1", "--video-backend", backend)
    assert (result.code, result.out) == (0, b"")
    frames = read_clip(out)
    assert len(frames) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(frames, expected, strict=True))
    assert rate_of(out) == 25


def test_pictures_to_pictures(video, clip_frames, expected, tmp_path):
    ir = write_pictures(tmp_path / "ir", "ir_%d.png", clip_frames[0], start=7)
    vis = write_pictures(tmp_path / "vis", "vis_%d.png", clip_frames[1], start=7)
    assert video(ir, vis, "-o", tmp_path / "out").code == 0
    # 10 comes after 9, not after 1.
    for number, frame in enumerate(expected, 7):
        fused = cv2.imread(str(tmp_path / "out" / f"vis_{number}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(fused[:, :, ::-1], frame)
    assert video(ir, vis, "-o", tmp_path / "n_%03d.png").code == 0
    assert np.array_equal(cv2.imread(str(tmp_path / "n_012.png"))[:, :, ::-1], expected[5])


def test_video_and_pattern_of_pictures(video, clips, clip_frames, expected, tmp_path):
    folder = write_pictures(tmp_path / "both", "ir_%04d.png", clip_frames[0])
    write_pictures(folder, "other_%04d.png", clip_frames[1])
    out = tmp_path / "out.mkv"
    assert video(folder / "ir_%04d.png", clips[1], "-o", out, "--codec", "ffv1").code == 0
    assert all(np.array_equal(a, b) for a, b in zip(read_clip(out), expected, strict=True))


def test_name_of_the_result(video, clips, tmp_path):
    result = video(*clips)
    assert result.code == 0
    assert "vis_fused.mp4: 6 frames of 64x48 at 25 a second" in result.err
    assert len(read_clip(tmp_path / "vis_fused.mp4")) == 6


def test_json_is_one_object_with_the_facts(video, clips, tmp_path):
    record = video(*clips, "-o", tmp_path / "out.mp4", "--json").json
    assert (record["type"], record["frames"], record["fps"], record["ir_fps"]) == ("video", 6, 25, 25)
    assert (record["width"], record["height"], record["channels"]) == (64, 48, 3)
    assert (record["ir_range"], record["codec"], record["video_backend"]) == ("auto", "mpeg4", "opencv")
    assert record["output"] == str(tmp_path / "out.mp4")
    assert record["seconds"]["run"] >= record["seconds"]["model"] > 0
    assert record["notices"] == []


def test_gray_video(video, clips, tmp_path):
    out = tmp_path / "out.mkv"
    assert video(*clips, "-o", out, "--color", "gray", "--codec", "ffv1").code == 0
    assert all((frame.max(2) == frame.min(2)).all() for frame in read_clip(out))


def test_sizes_differ_as_in_fuse_with_one_notice(video, clips, clip_frames, write_clip, tiny_model, tmp_path):
    small = write_clip("small.mkv", [frame[::2, ::2] for frame in clip_frames[0]])
    result = video(small, clips[1], "-o", tmp_path / "out.mkv", "--codec", "ffv1")
    assert result.code == 0
    assert result.err.count("IR of 32x24 was resampled to the 64x48 of VIS") == 1
    fused = diffmf_cli.fuse(
        clip_frames[0][3][::2, ::2], clip_frames[1][3], model=str(tiny_model), device="cpu"
    )
    assert np.array_equal(read_clip(tmp_path / "out.mkv")[3], fused)


def test_odd_sizes_lose_a_row_with_a_notice(video, clip_frames, write_clip, tmp_path):
    pytest.importorskip("av")
    ir = write_pictures(tmp_path / "ir", "%d.png", [f[:47, :63] for f in clip_frames[0]])
    vis = write_pictures(tmp_path / "vis", "%d.png", [f[:47, :63] for f in clip_frames[1]])
    result = video(ir, vis, "-o", tmp_path / "even.mp4")
    assert "63x47 is odd" in result.err
    assert read_clip(tmp_path / "even.mp4")[0].shape == (46, 62, 3)
    result = video(ir, vis, "-o", tmp_path / "odd.mkv", "--codec", "ffv1", "--video-backend", "pyav")
    assert "is odd" not in result.err
    import av

    with av.open(str(tmp_path / "odd.mkv")) as container:
        assert next(container.decode(video=0)).to_ndarray(format="rgb24").shape == (47, 63, 3)


def test_16_bit_pictures_share_one_range_and_keep_their_depth(video, scene, tiny_model, tmp_path):
    ir = [np.full((48, 64), 7000 + 10 * i, np.uint16) + scene[0] for i in range(4)]
    vis = [scene[1].astype(np.uint16) * 257] * 4
    write_pictures(tmp_path / "ir", "%d.tiff", ir)
    write_pictures(tmp_path / "vis", "%d.tiff", vis)
    record = video(tmp_path / "ir", tmp_path / "vis", "-o", tmp_path / "out", "--json").json
    fuser = diffmf_cli.load_model(str(tiny_model), device="cpu")
    for number in range(4):
        fused = cv2.imread(str(tmp_path / "out" / f"{number + 1}.tiff"), cv2.IMREAD_UNCHANGED)[:, :, ::-1]
        assert fused.dtype == np.uint16
        assert np.array_equal(fused, fuser.fuse(ir[number], vis[0], ir_range=record["ir_range"]))


def test_rates_that_differ_are_told_and_kept(video, clip_frames, write_clip, tmp_path):
    ir = write_clip("slow.mkv", clip_frames[0][:2], fps=10)
    vis = write_clip("fast.mkv", clip_frames[1], fps=30)
    result = video(ir, vis, "-o", tmp_path / "out.mkv", "--codec", "ffv1")
    assert (result.code, len(read_clip(tmp_path / "out.mkv"))) == (0, 6)
    assert "IR has 10 frames a second, VIS 30" in result.err
    assert rate_of(tmp_path / "out.mkv") == 30


@pytest.mark.parametrize("backend", ["opencv", "pyav"])
def test_television_rates_are_kept(video, clip_frames, write_clip, tmp_path, backend):
    if backend == "pyav":
        pytest.importorskip("av")
    ir, vis = (
        write_clip(f"{i}.mp4", frames[:3], 30000 / 1001, "mp4v") for i, frames in enumerate(clip_frames)
    )
    record = video(ir, vis, "-o", tmp_path / "out.mp4", "--video-backend", backend, "--json").json
    assert record["fps"] == pytest.approx(30000 / 1001, abs=1e-4)
    assert rate_of(tmp_path / "out.mp4") == pytest.approx(30000 / 1001, abs=1e-3)


def test_stops_at_the_shorter(video, clips, clip_frames, write_clip, tmp_path):
    short = write_clip("short.mkv", clip_frames[0][:4])
    result = video(short, clips[1], "-o", tmp_path / "out.mp4")
    assert "short.mkv ends at 0.16 s, where" in result.err
    assert len(read_clip(tmp_path / "out.mp4")) == 4
    result = video(short, clips[1], "-o", tmp_path / "strict.mp4", "--strict")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "short.mkv" in result.err
    assert not (tmp_path / "strict.mp4").exists()


def test_progress_in_plain_lines(video, clip_frames, write_clip, tmp_path, monkeypatch):
    from diffmf_cli.fusion.fuser import Fuser

    monkeypatch.setattr(Fuser, "fuse", lambda self, ir, vis, **options: vis)
    ir, vis = (write_clip(f"long{i}.mkv", frames[:5] * 4) for i, frames in enumerate(clip_frames))
    lines = [line for line in video(ir, vis, "-o", tmp_path / "o.mp4").err.splitlines() if " fps, " in line]
    assert len(lines) == 10
    assert lines[-1].startswith("frame 20 of 20, ")
    assert video(ir, vis, "-o", tmp_path / "p.mp4", "-q").err == ""


@pytest.mark.parametrize(
    ("name", "codec"),
    [(f"a{extension}", "auto") for extension in (".mp4", ".mov", ".m4v", ".mkv", ".avi")]
    + [("b.mkv", "mjpeg"), ("b.avi", "mjpeg"), ("c.avi", "ffv1")],
)
def test_containers_and_codecs(video, clips, clip_frames, tmp_path, name, codec):
    """Also that FFmpeg and its encoders, which print to the file descriptors themselves, say nothing."""
    result = video(*clips, "-o", tmp_path / name, "--codec", codec, "-q")
    assert (result.code, result.out, result.err) == (0, b"", "")
    assert len(read_clip(tmp_path / name)) == 6
    assert rate_of(tmp_path / name) == 25


class TestRefused:
    """One line that names the culprit, the exit code, and nothing left behind."""

    @pytest.fixture
    def refused(self, cli, clips, tiny_model, tmp_path):
        def call(code, says, *args, ir=clips[0], vis=clips[1], out=tmp_path / "out.mp4"):
            before = set(tmp_path.rglob("*"))
            result = cli("video", ir, vis, "-m", tiny_model, *(() if out is None else ("-o", out)), *args)
            assert result.err.count("\n") == 1, result.err
            assert result.err.startswith("Error: ")
            for word in says if isinstance(says, tuple) else (says,):
                assert str(word) in result.err
            assert result.code == code
            assert result.out == b""
            assert set(tmp_path.rglob("*")) == before
            return result

        return call

    @pytest.fixture(params=["opencv", "pyav"])
    def backend(self, request):
        if request.param == "pyav":
            pytest.importorskip("av")
        return "--video-backend", request.param

    def test_missing_file(self, refused, backend, tmp_path):
        refused(1, (tmp_path / "no.mp4", "does not exist"), *backend, ir=tmp_path / "no.mp4")

    def test_empty_file(self, refused, backend, tmp_path):
        (tmp_path / "empty.mp4").touch()
        refused(1, ("empty.mp4", "empty"), *backend, vis=tmp_path / "empty.mp4")

    def test_no_video(self, refused, backend, tmp_path):
        (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(9999))
        refused(1, ("noise.mp4", "no video"), *backend, ir=tmp_path / "noise.mp4")

    @pytest.mark.parametrize("name", ["words.mp4", "words.txt", "list.m3u8"])
    def test_text(self, refused, backend, tmp_path, name):
        (tmp_path / name).write_text("#EXTM3U\nir.mkv\n" * 100)
        refused(1, (name, "text"), *backend, ir=tmp_path / name)

    def test_picture(self, refused, pair):
        refused(1, ("ir.png", "diffmf fuse"), ir=pair[0])

    def test_cut_off_before_the_index(self, refused, backend, write_clip, clip_frames, tmp_path):
        whole = write_clip("whole.mp4", clip_frames[0], fourcc="mp4v").read_bytes()
        (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
        refused(1, ("cut.mp4", "cut off"), *backend, ir=tmp_path / "cut.mp4")

    def test_header_without_frames(self, refused, backend, write_clip, clip_frames, tmp_path):
        whole = write_clip("whole.avi", clip_frames[0], fourcc="MJPG").read_bytes()
        (tmp_path / "none.avi").write_bytes(whole[: whole.index(b"movi") + 4])
        refused(1, "none.avi", *backend, ir=tmp_path / "none.avi")

    def test_sound_only(self, refused, backend, tmp_path):
        av = pytest.importorskip("av")
        for name, codec in (("tone.mp4", "aac"), ("tone.wav", "pcm_s16le")):
            with av.open(str(tmp_path / name), "w") as container:
                stream = container.add_stream(codec, rate=8000)
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
                samples.sample_rate = 8000
                for frame in (samples, None):
                    container.mux(stream.encode(frame))
            refused(1, (name, " only"), *backend, ir=tmp_path / name)

    def test_same_video_twice(self, refused, clips, tmp_path):
        refused(2, "the same", vis=clips[0])
        (tmp_path / "copy.mkv").write_bytes(clips[0].read_bytes())
        refused(2, ("copy.mkv", "the same"), vis=tmp_path / "copy.mkv")

    def test_existing_output(self, refused, tmp_path):
        (tmp_path / "out.mp4").write_bytes(b"precious")
        refused(1, ("out.mp4", "--overwrite"))
        assert (tmp_path / "out.mp4").read_bytes() == b"precious"

    def test_existing_pictures(self, refused, tmp_path, scene):
        write_pictures(tmp_path / "out", "%d.png", [scene[0]])
        refused(1, ("out", "1.png", "--overwrite"), out=tmp_path / "out")
        refused(1, "--overwrite", out=tmp_path / "out" / "%d.png")

    def test_output_that_is_an_input(self, refused, clips):
        before = clips[1].read_bytes()
        refused(2, ("vis.mkv", "input"), "--overwrite", out=clips[1])
        assert clips[1].read_bytes() == before

    def test_unwritable_folder(self, refused, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda *args, **kwargs: False)
        refused(1, (tmp_path, "permission"))
        refused(1, (tmp_path, "permission"), out=tmp_path / "folder")

    def test_codec_that_this_opencv_lacks(self, refused, monkeypatch):
        from diffmf_cli.video import container

        codec = container.Codec((".mp4",), "av01", "none")
        monkeypatch.setitem(container.CODECS, "mpeg4", codec)
        refused(1, ("out.mp4", "no encoder for mpeg4"))

    def test_pyav_that_is_not_there(self, refused, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        for args in (["--audio"], ["--codec", "h264"], ["--video-backend", "pyav"]):
            refused(1, "pip install 'diffmf[video]'", *args)

    def test_one_broken_picture(self, refused, clips, scene, tmp_path):
        folder = write_pictures(tmp_path / "ir", "%d.png", [scene[0]] * 4)
        (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:99])
        refused(1, "3.png", ir=folder)

    def test_frames_that_change_their_size(self, refused, scene, tmp_path):
        folder = write_pictures(tmp_path / "ir", "%d.png", [scene[0], scene[0], scene[0][:24, :32]])
        refused(1, ("64x48", "32x24", "3"), ir=folder)

    def test_aspect_ratios_that_differ(self, refused, write_clip, clip_frames):
        square = write_clip("square.mkv", [f[:, :48] for f in clip_frames[0]])
        refused(2, ("48x48", "64x48", "--stretch"), ir=square)

    def test_two_series_in_one_folder(self, refused, scene, tmp_path):
        write_pictures(tmp_path / "both", "ir_%d.png", [scene[0]] * 2)
        write_pictures(tmp_path / "both", "vis_%d.png", [scene[1]] * 2)
        refused(2, ("both", "ir_#.png", "vis_#.png"), ir=tmp_path / "both")

    def test_folder_without_pictures(self, refused, tmp_path):
        (tmp_path / "none").mkdir()
        refused(2, "none", ir=tmp_path / "none")
        refused(2, "none", ir=tmp_path / "none" / "x_%d.png")

    @pytest.mark.parametrize(
        ("code", "says", "args"),
        [
            (2, "--fps is for picture sequences", ["--fps", "25"]),
            (2, "did you mean 'mpeg4'", ["--codec", "mpg4"]),
            (2, "did you mean 'opencv'", ["--video-backend", "opncv"]),
            (2, "OpenCV copies no sound", ["--audio", "--video-backend", "opencv"]),
            (2, "OpenCV writes no h264", ["--codec", "h264", "--video-backend", "opencv"]),
            (2, ".mp4 holds no ffv1", ["--codec", "ffv1"]),
            (2, "9,1", ["--ir-range", "9,1"]),
            (2, "'gpu'", ["--device", "gpu"]),
            (3, "'no'", ["--model", "no"]),
        ],
    )
    def test_option_values(self, refused, code, says, args):
        refused(code, says, *args)

    def test_output_of_no_known_format(self, refused, tmp_path):
        refused(2, ("'.mp5'", "did you mean '.mp4'"), out=tmp_path / "out.mp5")

    def test_sound_of_a_silent_video(self, refused, backend):
        if backend[1] == "pyav":
            refused(2, ("vis.mkv", "no sound"), "--audio")

    def test_pattern_without_out(self, refused, clip_frames, tmp_path):
        write_pictures(tmp_path / "vis", "%d.png", clip_frames[1])
        refused(2, "-o", vis=tmp_path / "vis" / "%d.png", out=None)

    def test_unusable_result(self, refused, monkeypatch):
        from diffmf_cli.fusion.fuser import Fuser

        original = Fuser.fuse

        def breaks(self, ir, vis, calls=[], **options):  # noqa: B006
            calls.append(1)
            if len(calls) == 4:
                from diffmf_cli.errors import ImageError

                raise ImageError("the network gave a constant picture")
            return original(self, ir, vis, **options)

        monkeypatch.setattr(Fuser, "fuse", breaks)
        refused(1, ("vis.mkv, frame_000004", "constant"))

    def test_mistakes_answer_before_torch_is_imported(self, without_torch, clips, tmp_path, tiny_model):
        mistakes = ["--codec", "vp8"], ["-o", tmp_path / "out.gif"], ["--color", "grey"], []
        *results, right = without_torch([["video", *clips, "-m", tiny_model, *args] for args in mistakes])
        for result in results:
            assert (result.code, result.err.count("\n")) == (2, 1)
        assert "torch was imported" in right.err


@pytest.mark.skipif(sys.platform == "win32", reason="needs file size limits")
@pytest.mark.parametrize("backend", ["opencv", "pyav"])
def test_full_disk(video, write_clip, tmp_path, backend):
    """OpenCV says nothing when a write fails."""
    import resource

    if backend == "pyav":
        pytest.importorskip("av")
    noise = np.random.default_rng(0).integers(0, 255, (8, 96, 128, 3), np.uint8)
    ir, vis = write_clip("a.mkv", list(noise[:, :, :, 0])), write_clip("b.mkv", list(noise))
    before = set(tmp_path.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
    try:
        result = video(ir, vis, "-o", tmp_path / "o.mkv", "--codec", "ffv1", "--video-backend", backend)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "o.mkv cannot be written" in result.err
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["out.mp4", "out"])
def test_interrupt(clip_frames, write_clip, tiny_model, tmp_path, name):
    """No video is left; pictures that are done are whole."""
    ir, vis = (write_clip(f"{i}.mkv", frames * 40) for i, frames in enumerate(clip_frames))
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "diffmf_cli",
            "video",
            ir,
            vis,
            "-m",
            tiny_model,
            "-o",
            tmp_path / name,
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert "frame 24 of 240" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - start < 2
    assert process.returncode == 130
    assert err.splitlines()[-1] == "Interrupted."
    assert json.loads(out)["exit_code"] == 130
    if name == "out":
        pictures = list((tmp_path / "out").iterdir())
        assert 20 < len(pictures) < 230
        assert all(cv2.imread(str(path)).shape == (48, 64, 3) for path in pictures)
    else:
        assert {path.name for path in tmp_path.iterdir()} == {"0.mkv", "1.mkv"}
