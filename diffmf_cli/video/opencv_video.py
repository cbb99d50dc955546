"""Video files through OpenCV, which brings FFmpeg along."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from diffmf_cli.errors import ImageError
from diffmf_cli.images.opencv import cv2
from diffmf_cli.images.write import placed_atomically
from diffmf_cli.video.container import CODECS, check_readable, why_not
from diffmf_cli.video.sink import HD, VideoSink
from diffmf_cli.video.source import Frame, Source

log = logging.getLogger(__name__)

# Pixel formats that OpenCV would convert to 8-bit colour, although it can hand them out as they are.
_GREY = (int.from_bytes(b"Y800", "little"), int.from_bytes(b"Y1\0\x10", "little"))


class OpenCVSource(Source):
    """A video file. Grey of 16 bits stays as it is, other pixels become 8-bit; turned phones are upright."""

    def __init__(self, path: Path, strict: bool) -> None:
        check_readable(path)
        self._path = path
        capture = self._open()
        fps = Fraction(capture.get(cv2.CAP_PROP_FPS)).limit_denominator(1001)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        if not 0 < fps <= 1000:
            raise ImageError(f"{path} tells no frame rate: convert it to another container, such as .mkv")
        super().__init__(str(path), [path], fps, max(0, count), strict)

    def _open(self) -> Any:
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise ImageError(why_not(self._path))
        if int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) in _GREY:
            capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        return capture

    def _decode(self, step: int) -> Iterator[Frame]:
        capture = self._open()
        start: Fraction | None = None
        time, number = Fraction(0), 0
        try:
            while capture.grab():
                stamp = Fraction(round(1000 * capture.get(cv2.CAP_PROP_POS_MSEC)), 10**6)
                start = stamp if start is None else start
                if number:
                    # Raw streams and some AVI files carry no time stamps.
                    time = stamp - start if stamp - start > time else time + 1 / self.fps
                number += 1
                if (number - 1) % step == 0:
                    done, pixels = capture.retrieve()
                    if not done:
                        return
                    if pixels.ndim == 3:
                        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
                    yield Frame(pixels, time, number, f"frame_{number:06d}")
        finally:
            capture.release()


class OpenCVSink(VideoSink):
    """A video file of constant frame rate without sound."""

    def __init__(
        self, path: Path, overwrite: bool, codec: str, fps: Fraction, shape: tuple[int, ...]
    ) -> None:
        # OpenCV cuts odd sizes itself, whatever the codec could do.
        super().__init__(path, overwrite, codec, fps, shape, odd_sizes=False)
        if self.coloured and codec == "mpeg4" and self.height >= HD:
            log.warning(
                "OpenCV writes HD video with the colour matrix of small ones and no tag: players may show "
                "its colours a little off (--video-backend pyav does it right)"
            )
        self._written, self._late = 0, Fraction(0)

    def check(self) -> None:
        """Tries the codec in a folder of its own."""
        with TemporaryDirectory() as folder:
            self._open(Path(folder, f"trial{self.path.suffix}")).release()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """See `Sink`."""
        with placed_atomically(self.path, self.overwrite, extension=self.path.suffix) as temporary:
            self._writer = self._open(temporary)
            try:
                yield
            finally:
                self._writer.release()
            self._check_whole(temporary)
        if self._late > 1 / self.fps:
            log.warning(
                "frames of the visible input are not evenly spaced, those of %s are (up to %.2f s apart): "
                "--video-backend pyav keeps the times",
                self.path,
                self._late,
            )

    def write(self, fused: np.ndarray, frame: Frame) -> None:
        """Adds a frame, at the time that its place gives it."""
        self._late = max(self._late, abs(frame.time - self._written / self.fps))
        fused = self.cut(fused)
        self._writer.write(cv2.cvtColor(fused, cv2.COLOR_RGB2BGR) if self.coloured else fused)
        self._written += 1

    def _open(self, path: Path) -> Any:
        # MPEG-4 has a name of its own in AVI.
        name = "XVID" if (self.codec, path.suffix.lower()) == ("mpeg4", ".avi") else CODECS[self.codec].fourcc
        writer = cv2.VideoWriter(
            str(path),
            cv2.CAP_FFMPEG,
            cv2.VideoWriter.fourcc(*name),
            float(self.fps),
            (self.width, self.height),
            self.coloured,
        )
        if not writer.isOpened():
            raise ImageError(
                f"{self.path} cannot be written: this OpenCV has no encoder for {self.codec}; choose another "
                "--codec, or pip install 'diffmf[video]' and add --video-backend pyav"
            )
        return writer

    def _check_whole(self, path: Path) -> None:
        """Counts frames: OpenCV does not tell that the disk is full."""
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        stored = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if stored < self._written - 1:  # an estimate in some containers
            raise ImageError(
                f"{self.path} cannot be written: {max(0, stored)} of {self._written} frames arrived, "
                f"make room in {self.path.parent} or choose another folder"
            )
