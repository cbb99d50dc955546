"""What kinds of video files there are: which codecs they are written in, and why a file is not one."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from diffmf_cli.errors import DiffmfError, ImageError, UsageError, check_choice
from diffmf_cli.images.read import SIGNATURES

BACKENDS = ("auto", "opencv", "pyav")


@dataclass(frozen=True)
class Codec:
    """A way to compress frames.

    Attributes:
        extensions: Of the containers that hold it here.
        fourcc: Its name in OpenCV; empty where only PyAV writes it.
        encoder: Its name in PyAV.
        options: Of that encoder: good for looking at, at some ten milliseconds a VGA frame.
        lossless: It keeps every bit, and odd sizes; the others store colour at half the resolution.
    """

    extensions: tuple[str, ...]
    fourcc: str
    encoder: str
    options: tuple[tuple[str, str], ...] = ()
    lossless: bool = False


# OpenCV's VP9 is left out: it takes 0.1 s for a VGA frame, and prints for .webm.
CODECS = {
    "h264": Codec((".mp4", ".m4v", ".mov", ".mkv"), "", "libx264", (("crf", "18"),)),
    "mpeg4": Codec(
        (".mp4", ".m4v", ".mov", ".mkv", ".avi"),
        "mp4v",
        "mpeg4",
        (("flags", "+qscale"), ("global_quality", "354")),
    ),
    "vp9": Codec(
        (".webm", ".mkv", ".mp4"),
        "",
        "libvpx-vp9",
        (("crf", "24"), ("b", "0"), ("deadline", "realtime"), ("cpu-used", "5")),
    ),
    "mjpeg": Codec((".avi", ".mkv"), "MJPG", "mjpeg", (("flags", "+qscale"), ("global_quality", "236"))),
    "ffv1": Codec((".mkv", ".avi"), "FFV1", "ffv1", lossless=True),
}
EXTENSIONS = tuple(dict.fromkeys(ext for codec in CODECS.values() for ext in codec.extensions))


def needs_pyav(extension: str, codec: str) -> bool:
    """Whether OpenCV cannot write this container or codec."""
    return extension.lower() == ".webm" or (codec in CODECS and not CODECS[codec].fourcc)


def choose_codec(path: Path, codec: str, backend: str) -> str:
    """The codec of a file to be written; `auto` is what most players take.

    Args:
        path: Of the file; its extension decides on the container.
        codec: `auto` or a key of CODECS.
        backend: `opencv` or `pyav`.

    Raises:
        UsageError: The extension names no container, the container does not hold the codec, or the backend
            does not write it.
    """
    extension = path.suffix.lower()
    if extension not in EXTENSIONS:
        close = get_close_matches(extension, EXTENSIONS, n=1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        raise UsageError(
            f"extension '{extension}' of {path} names no video{hint}: use {', '.join(EXTENSIONS)}, "
            "or name a folder or a pattern such as fused_%04d.png for pictures"
        )
    check_choice("codec", codec, ("auto", *CODECS))
    here = [name for name, each in CODECS.items() if extension in each.extensions]
    if codec == "auto":
        return here[0] if backend == "pyav" else next(name for name in here if CODECS[name].fourcc)
    if codec not in here:
        raise UsageError(f"{extension} holds no {codec} here: use --codec {' or '.join(here)}")
    if backend == "opencv" and not CODECS[codec].fourcc:
        raise UsageError(f"OpenCV writes no {codec}: add --video-backend pyav, or choose another --codec")
    return codec


def check_pyav() -> None:
    """Refuses where PyAV is not installed.

    Raises:
        DiffmfError: It is not.
    """
    from importlib.util import find_spec

    if find_spec("av") is None:
        raise DiffmfError(
            "this needs PyAV, which is not installed: pip install 'diffmf[video]', or do without "
            "--audio, --video-backend pyav, .webm and the codecs h264 and vp9"
        )


def check_readable(path: Path) -> None:
    """Refuses what is no video by its first bytes, with the reason.

    FFmpeg alone would show a text as a film of its letters, follow a play list to other files, and take a
    picture as a film of one frame.

    Raises:
        ImageError: The file is missing, empty, a folder, a picture or text.
    """
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist: check the path") from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror or error}): check the path") from None
    if not start:
        raise ImageError(f"{path} is empty (0 bytes): copy or record it again")
    if any(start.startswith(signature) for signature in SIGNATURES) or start[8:12] == b"WEBP":
        raise ImageError(f"{path} is a picture: use diffmf fuse, or give a folder or pattern of pictures")
    if not any(byte < 9 or 13 < byte < 32 for byte in start):
        raise ImageError(f"{path} is a text, not a video: check the path")


def why_not(path: Path) -> str:
    """Why FFmpeg finds no video in a file that `check_readable` passed: a sentence with its name."""
    sound = (b"ID3", b"fLaC", b"OggS", b"\xff\xfb", b"\xff\xf1")
    with path.open("rb") as file:
        start = file.read(16)
        if start.startswith(sound) or (start[:4] == b"RIFF" and start[8:12] == b"WAVE"):
            return f"{path} holds sound only: give a video"
        if start[4:8] in (b"ftyp", b"mdat", b"moov", b"free", b"wide", b"skip"):
            index = _mp4_index(path)
            if index is None:
                return (
                    f"{path} is cut off: its index (moov), which recorders write last, is missing; "
                    "copy it again, or repair it with a tool such as untrunc"
                )
            if b"vide" not in index:
                return f"{path} holds no video, only sound or data: give a video"
    return f"{path} is no video that FFmpeg knows, is damaged, or needs a codec that is missing here"


def _mp4_index(path: Path) -> bytes | None:
    """The `moov` box of an MP4 or QuickTime file (ISO/IEC 14496-12), or None where it is not whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at + 8 <= size:
            file.seek(at)
            header = file.read(16)
            length, kind, body = int.from_bytes(header[:4], "big"), header[4:8], 8
            if length == 1:
                length, body = int.from_bytes(header[8:16], "big"), 16
            if length == 0:  # to the end of the file
                length = size - at
            if length < body:
                return None
            if kind == b"moov":
                file.seek(at + body)
                return file.read(length - body) if at + length <= size else None
            at += length
    return None
