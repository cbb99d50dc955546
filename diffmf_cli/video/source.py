"""Streams of frames: what video files and picture sequences have in common when they are read."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from diffmf_cli.errors import ImageError

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a stream.

    Attributes:
        pixels: `(H, W)` grey or `(H, W, 3)` RGB; uint8 or uint16, of picture files float32 as well.
        time: Seconds since the first frame of the stream.
        number: Of the file in a sequence; of a video frame its place, from 1.
        name: File name without extension; `frame_000001` in a video.
        alpha: `(H, W)` transparency of a picture file, or None.
    """

    pixels: np.ndarray
    time: Fraction
    number: int
    name: str
    alpha: np.ndarray | None = None


class Source(ABC):
    """A video file or a picture sequence, read from its start as often as it is asked for.

    Attributes:
        name: What messages call it.
        files: The files that are read.
        fps: Frames a second, on average where it varies.
        count: Frames as the header tells; containers that do not store it make an estimate, 0 is unknown.
        strict: What is cut off or has gaps is an error, not a notice.
    """

    def __init__(self, name: str, files: list[Path], fps: Fraction, count: int, strict: bool) -> None:
        self.name, self.files, self.fps, self.count, self.strict = name, files, fps, count, strict

    @property
    def seconds(self) -> Fraction:
        """How long it lasts, as far as the header tells."""
        return self.count / self.fps

    def frames(self, step: int = 1) -> Iterator[Frame]:
        """Decodes frames 0, `step`, 2 `step` and so on, all of one size and type.

        Raises:
            ImageError: A frame cannot be read or is of another size or type than the first, or there is none.
        """
        first: Frame | None = None
        decoded = 0
        for frame in self._decode(step):
            if first is None:
                first = frame
            elif (frame.pixels.shape, frame.pixels.dtype) != (first.pixels.shape, first.pixels.dtype):
                raise ImageError(
                    f"{self.name} changes from {_form(first.pixels)} to {_form(frame.pixels)} at "
                    f"{frame.name}: give frames of one size and type"
                )
            decoded += 1
            yield frame
        if first is None:
            raise ImageError(f"{self.name} holds no frame that can be decoded: record or export it again")
        # Headers that estimate are off by a frame or two.
        if step == 1 and decoded < 0.99 * self.count - 2:
            attend(
                f"{self.name} ends after {decoded} of the {self.count} frames that its header tells: "
                "it is cut off or damaged there",
                self.strict,
            )

    def first(self) -> Frame:
        """The first frame; raises as `frames` does."""
        return next(self.frames())

    @abstractmethod
    def _decode(self, step: int) -> Iterator[Frame]:
        """The frames that `frames` asks for, unchecked."""


def attend(message: str, strict: bool) -> None:
    """Logs what deserves attention, or raises it where the user wants everything to match.

    Raises:
        ImageError: With this message, where `strict`.
    """
    if strict:
        raise ImageError(f"{message} (--strict)")
    log.warning(message)


def _form(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]} {'grey' if pixels.ndim == 2 else 'colour'} {pixels.dtype}"
