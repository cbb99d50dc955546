"""From what a user names to streams: which backend, which sources, which sink."""

import filecmp
import logging
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path

from diffmf_cli.errors import UsageError, check_choice
from diffmf_cli.images.write import check_place
from diffmf_cli.video.container import BACKENDS, CODECS, check_pyav, choose_codec, needs_pyav
from diffmf_cli.video.sequence import SequenceSink, SequenceSource, is_sequence
from diffmf_cli.video.sink import Sink
from diffmf_cli.video.source import Frame, Source, attend

log = logging.getLogger(__name__)

USUAL_FPS = Fraction(25)


def choose_backend(asked: str, output: str, codec: str, audio: bool) -> str:
    """`opencv` or `pyav`; `auto` is OpenCV, which is always there, unless only PyAV can do what is asked for.

    Args:
        asked: `auto`, `opencv` or `pyav`.
        output: Name of the result.
        codec: `auto` or a key of CODECS.
        audio: The sound of the visible video is to be kept.

    Raises:
        UsageError: An unknown value, or sound through OpenCV.
        DiffmfError: PyAV is needed and not installed.
    """
    check_choice("video backend", asked, BACKENDS)
    check_choice("codec", codec, ("auto", *CODECS))
    if asked == "opencv" and audio:
        raise UsageError("OpenCV copies no sound: leave out --audio or --video-backend opencv")
    needed = audio or (not is_sequence(output) and needs_pyav(Path(output).suffix, codec))
    if asked == "opencv" or not (needed or asked == "pyav"):
        return "opencv"
    check_pyav()
    return "pyav"


def open_inputs(
    ir: str, vis: str, *, backend: str = "opencv", fps: float | None = None, strict: bool = False
) -> tuple[Source, Source]:
    """Opens an infrared and a visible stream.

    Args:
        ir: A video file, a folder of pictures or a pattern such as `ir_%04d.png`.
        vis: The same.
        backend: What reads video files: `opencv` or `pyav`.
        fps: Rate of picture sequences; else that of the other input where it is a video, or USUAL_FPS.
        strict: Gaps, streams that are cut off, and sequences that begin with different numbers are errors.

    Raises:
        ImageError: One of them cannot be read.
        UsageError: They are the same, or `fps` cannot be meant.
    """
    named = {"IR": ir, "VIS": vis}
    videos = {
        role: _open_video(name, backend, strict) for role, name in named.items() if not is_sequence(name)
    }
    if fps is not None and len(videos) == 2:
        raise UsageError("--fps is for picture sequences: videos have a rate of their own")
    if fps is not None and not 0 < fps <= 1000:
        raise UsageError(f"fps {fps:g} is out of range: use a number above 0, up to 1000")
    rate = Fraction(fps).limit_denominator(1001) if fps else next((v.fps for v in videos.values()), USUAL_FPS)
    sequences = {
        role: SequenceSource(name, rate, strict) for role, name in named.items() if role not in videos
    }
    starts = {sequence.start for sequence in sequences.values()}
    if len(starts) == 2:
        attend(
            "IR begins with number {} and VIS with {}: taken as the same moment".format(
                *(sequences[role].start for role in named)
            ),
            strict,
        )
    found: dict[str, Source] = {**videos, **sequences}
    files = zip_longest(found["IR"].files, found["VIS"].files)
    if all(a and b and (a.samefile(b) or filecmp.cmp(a, b, shallow=False)) for a, b in files):
        raise UsageError(f"IR {ir} and VIS {vis} are the same: give one of each kind")
    return found["IR"], found["VIS"]


def open_output(
    output: str,
    ir: Source,
    vis: Source,
    first: Frame,
    *,
    backend: str = "opencv",
    codec: str = "auto",
    audio: bool = False,
    color: str = "auto",
    overwrite: bool = False,
) -> Sink:
    """Makes a sink and finds out whether it can be written to; nothing is written yet.

    Args:
        output: A video file by its extension, a folder, or a pattern such as `fused_%04d.png`.
        ir: The infrared stream, which must not be overwritten.
        vis: The visible stream.
        first: Its first frame.
        backend: What writes a video file: `opencv` or `pyav`.
        codec: `auto` or a key of CODECS, for a video file.
        audio: Copy the sound of `vis` into a video file.
        color: As for `Fuser.fuse`: `gray` results are stored as such.
        overwrite: Replace what exists.

    Raises:
        UsageError: The output is an input, or extension, codec and sound do not go together.
        ImageError: It exists, or cannot be written.
    """
    sink: Sink
    if is_sequence(output):
        if audio or codec != "auto":
            what = "sound" if audio else "codec"
            raise UsageError(f"pictures have no {what}: name a video, such as {output.rstrip('/')}.mp4")
        extension = vis.files[0].suffix
        sink = SequenceSink(
            output, overwrite, extension if extension.lower() in (".tif", ".tiff") else ".png"
        )
        place = sink.path_of(first)
    else:
        place = Path(output)
        sink = _video_sink(place, vis, first, backend, codec, audio, color, overwrite)
    if place.exists() and any(place.samefile(path) for path in (*ir.files, *vis.files)):
        raise UsageError(f"{output} is an input, which would be lost: choose another OUT")
    if not is_sequence(output):
        check_place(place, overwrite)
    sink.check()
    return sink


def _open_video(name: str, backend: str, strict: bool) -> Source:
    if backend == "pyav":
        from diffmf_cli.video.pyav_video import PyAVSource

        return PyAVSource(Path(name), strict)
    from diffmf_cli.video.opencv_video import OpenCVSource

    return OpenCVSource(Path(name), strict)


def _video_sink(
    path: Path,
    vis: Source,
    first: Frame,
    backend: str,
    codec: str,
    audio: bool,
    color: str,
    overwrite: bool,
) -> Sink:
    codec = choose_codec(path, codec, backend)
    shape = first.pixels.shape if color != "gray" else first.pixels.shape[:2]
    if first.pixels.dtype != "uint8":
        log.warning(
            "videos hold 8 bits here, %s has %s frames: name a folder to keep them",
            vis.name,
            first.pixels.dtype,
        )
    if backend == "opencv":
        from diffmf_cli.video.opencv_video import OpenCVSink

        return OpenCVSink(path, overwrite, codec, vis.fps, shape)
    from diffmf_cli.video.pyav_video import PyAVSink, PyAVSource

    sound = None
    if audio:
        if not (isinstance(vis, PyAVSource) and vis.has_sound):
            raise UsageError(f"{vis.name} has no sound: leave out --audio")
        sound = vis
    return PyAVSink(path, overwrite, codec, vis.fps, shape, sound)
