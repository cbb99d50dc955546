"""Video files through PyAV: exact times, sound, and the codecs that FFmpeg has."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from diffmf_cli.errors import ImageError
from diffmf_cli.images.write import placed_atomically
from diffmf_cli.video.container import CODECS, check_readable, why_not
from diffmf_cli.video.sink import HD, VideoSink
from diffmf_cli.video.source import Frame, Source

log = logging.getLogger(__name__)

# Time stamps are multiples of it: of most frame rates a part, and as fine as MPEG-4 takes (1/65535).
_TICK = Fraction(1, 60000)
# FFmpeg's numbers of colour matrices (ITU-T H.273) and the names that PyAV converts by.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
}


class PyAVSource(Source):
    """A video file. Grey of more than 8 bits becomes uint16, other pixels 8-bit; turned phones are upright.

    Attributes:
        start: Time stamp of the first frame, in seconds.
        has_sound: The file has an audio stream.
    """

    def __init__(self, path: Path, strict: bool) -> None:
        check_readable(path)
        self._path = path
        with self._open() as container:
            stream = container.streams.video[0]
            fps = stream.average_rate or stream.guessed_rate
            if not fps:
                raise ImageError(f"{path} tells no frame rate: convert it to another container, such as .mkv")
            count = stream.frames
            if not count and container.duration:
                count = int(Fraction(container.duration, av.time_base) * fps)
            self.has_sound = bool(container.streams.audio)
        self.start = Fraction(0)
        super().__init__(str(path), [path], fps, count, strict)

    def _open(self) -> Any:
        try:
            container = av.open(str(self._path))
        except av.FFmpegError as error:
            raise ImageError(why_not(self._path)) from error
        if not container.streams.video or container.streams.video[0].codec_context is None:
            container.close()
            raise ImageError(why_not(self._path))
        return container

    def _decode(self, step: int) -> Iterator[Frame]:
        time, number = Fraction(0), 0
        with self._open() as container:
            container.streams.video[0].thread_type = "AUTO"
            for picture in _decoded(container, self._path):
                stamp = None if picture.pts is None else picture.pts * picture.time_base
                if number == 0:
                    self.start = stamp or Fraction(0)
                else:
                    later = None if stamp is None else stamp - self.start
                    time = later if later is not None and later > time else time + 1 / self.fps
                number += 1
                if (number - 1) % step == 0:
                    yield Frame(_pixels(picture), time, number, f"frame_{number:06d}")


class PyAVSink(VideoSink):
    """A video file with the times of its frames, and with sound where that is asked for.

    Args:
        path: Of the file.
        overwrite: Replace it where it exists.
        codec: A key of CODECS.
        fps: Frames a second.
        shape: Of the fused frames.
        sound: The video whose sound is copied as it is, or None.
    """

    def __init__(
        self,
        path: Path,
        overwrite: bool,
        codec: str,
        fps: Fraction,
        shape: tuple[int, ...],
        sound: PyAVSource | None,
    ) -> None:
        super().__init__(path, overwrite, codec, fps, shape, odd_sizes=CODECS[codec].lossless)
        self._sound = sound
        self._stream: Any = None
        self._last = -1  # time stamp of the latest frame, in ticks

    def check(self) -> None:
        """Tries codec and container in a folder of its own."""
        with TemporaryDirectory() as folder:
            trial = Path(folder, f"trial{self.path.suffix}")
            with self._writing(trial):
                pixels = np.zeros((self.height, self.width, 3)[: 2 + self.coloured], np.uint8)
                self.write(pixels, Frame(pixels, Fraction(0), 1, "trial"))

    @contextmanager
    def opened(self) -> Iterator[None]:
        """See `Sink`."""
        with (
            placed_atomically(self.path, self.overwrite, extension=self.path.suffix) as temporary,
            self._writing(temporary),
        ):
            yield

    def write(self, fused: np.ndarray, frame: Frame) -> None:
        """Adds a frame at its time, and the sound up to there."""
        picture = av.VideoFrame.from_ndarray(self.cut(fused), format="rgb24" if self.coloured else "gray")
        coded = self._stream.pix_fmt
        matrix = _MATRICES[_usual_matrix(self.height)] if coded.startswith("yuv") else None
        picture = picture.reformat(format=coded, dst_colorspace=matrix)
        self._last = max(round(frame.time / self._tick), self._last + 1)
        picture.pts, picture.time_base = self._last, self._tick
        with self._explained():
            self._copy_sound(frame.time)
            self._container.mux(self._stream.encode(picture))

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        # AVI knows no time stamps: it would fill the time between two of them with empty frames.
        self._tick = 1 / self.fps if self.path.suffix.lower() == ".avi" else _TICK
        self._last = -1
        with ExitStack() as stack:
            with self._explained():
                self._container: Any = stack.enter_context(av.open(str(path), "w"))
                self._stream = self._add_stream()
                if self._sound:
                    self._add_sound(stack.enter_context(av.open(str(self._sound.files[0]))))
                self._container.start_encoding()
            yield
            with self._explained():
                self._container.mux(self._stream.encode())
                if self._sound:
                    self._copy_sound((self._last + 1) * self._tick + 1 / self.fps)
                self._container.close()

    def _add_stream(self) -> Any:
        codec = CODECS[self.codec]
        stream: Any = self._container.add_stream(codec.encoder, rate=self.fps, options=dict(codec.options))
        stream.width, stream.height = self.width, self.height
        context: Any = stream.codec_context
        context.time_base = self._tick
        if codec.lossless:
            stream.pix_fmt = "bgr0" if self.coloured else "gray"
        elif self.codec == "mjpeg":
            stream.pix_fmt = "yuvj420p"
        else:
            stream.pix_fmt = "yuv420p"
            # Players guess it otherwise, by the size.
            context.colorspace = context.color_primaries = context.color_trc = _usual_matrix(self.height)
            context.color_range = ColorRange.MPEG
        return stream

    def _add_sound(self, source: Any) -> None:
        stream = source.streams.audio[0]
        self._sound_stream = self._container.add_stream_from_template(stream)
        self._packets = (packet for packet in source.demux(stream) if packet.pts is not None)
        self._packet = next(self._packets, None)

    def _copy_sound(self, until: Fraction) -> None:
        """Copies packets that begin before a time of the visible stream."""
        while self._sound and self._packet is not None:
            packet = self._packet
            start = round(self._sound.start / packet.time_base)
            if (packet.pts - start) * packet.time_base >= until:
                return
            packet.pts, packet.dts = packet.pts - start, packet.dts - start
            if packet.pts >= 0:
                packet.stream = self._sound_stream
                self._container.mux(packet)
            self._packet = next(self._packets, None)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            with_sound = " with the sound of the visible input" if self._sound else ""
            raise ImageError(
                f"{self.path} cannot be written as {self.codec}{with_sound} ({reason}): make room, or choose "
                "another --codec or extension (.mkv takes any sound)"
            ) from error


def _decoded(container: Any, path: Path) -> Iterator[Any]:
    """Frames of the first video stream; damaged parts are left out."""
    stream = container.streams.video[0]
    skipped = 0
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.FFmpegError:
                skipped += 1
    except av.FFmpegError:  # the container ends in the middle
        pass
    if skipped:
        log.warning("%s is damaged: %d packets could not be decoded and were left out", path, skipped)


def _pixels(picture: Any) -> np.ndarray:
    form = picture.format.name
    if form.startswith("gray"):
        pixels = picture.to_ndarray(format="gray" if form == "gray" else "gray16le")
    else:
        matrix = _MATRICES.get(picture.colorspace, _MATRICES[_usual_matrix(picture.height)])
        pixels = picture.reformat(format="rgb24", src_colorspace=matrix).to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, picture.rotation // 90)) if picture.rotation else pixels


def _usual_matrix(height: int) -> int:
    """BT.709 from 720 rows on, else BT.601: what untagged video is taken for."""
    return 1 if height >= HD else 6
