"""Where fused frames go: what video files and picture sequences have in common when they are written."""

import logging
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path

import numpy as np

from diffmf_cli.errors import UsageError
from diffmf_cli.video.source import Frame

log = logging.getLogger(__name__)

HD = 720  # rows from which on players take untagged colours for those of BT.709, not BT.601


class Sink(ABC):
    """Takes fused frames.

    Attributes:
        name: What messages call it.
        dtype: The pixel type that it takes, or None for that of the visible frames.
        workers: Threads that may call `write` at once.
    """

    name: str
    dtype: type | None = None
    workers = 1

    @abstractmethod
    def check(self) -> None:
        """Finds out before slow work whether frames can be written; leaves nothing behind."""

    @abstractmethod
    def opened(self) -> AbstractContextManager[None]:
        """A block around all `write`: what it gave is completed where the block ends.

        Where the block fails or is interrupted, nothing half-written stays.
        """

    @abstractmethod
    def write(self, fused: np.ndarray, frame: Frame) -> None:
        """Writes a fused picture.

        Args:
            fused: `(H, W)` or `(H, W, 3)` RGB.
            frame: The visible frame it was made of: for its time, name and transparency.
        """


class VideoSink(Sink):
    """A video file, which appears under its name when it is whole.

    Attributes:
        path: Of the file.
        overwrite: Replace it where it exists.
        codec: A key of CODECS.
        fps: Frames a second.
        width: Of a stored frame, in pixels.
        height: Of a stored frame, in pixels.
        coloured: Frames are RGB, not grey.
    """

    dtype = np.uint8

    def __init__(
        self,
        path: Path,
        overwrite: bool,
        codec: str,
        fps: Fraction,
        shape: tuple[int, ...],
        *,
        odd_sizes: bool,
    ) -> None:
        self.name, self.path, self.overwrite = str(path), path, overwrite
        self.codec, self.fps, self.coloured = codec, fps, len(shape) == 3
        self.height, self.width = shape[:2]
        if odd_sizes:
            return
        self.height, self.width = self.height & ~1, self.width & ~1
        if not (self.height and self.width):
            raise UsageError(
                f"{shape[1]}x{shape[0]} is too small for a video: write pictures, such as f_%04d.png"
            )
        if (self.height, self.width) != shape[:2]:
            log.warning(
                "%dx%d is odd, which %s cannot store here: written as %dx%d, without the last row or column "
                "(--codec ffv1 --video-backend pyav keeps them)",
                shape[1],
                shape[0],
                codec,
                self.width,
                self.height,
            )

    def cut(self, fused: np.ndarray) -> np.ndarray:
        """The part of a frame that is stored, as a contiguous array."""
        return np.ascontiguousarray(fused[: self.height, : self.width])
