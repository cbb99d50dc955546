"""Sequences of pictures, in a folder or by a pattern such as `ir_%04d.png`, as streams of frames."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np

from diffmf_cli.errors import ImageError, UsageError
from diffmf_cli.images.pairs import EXTENSIONS
from diffmf_cli.images.read import read_image
from diffmf_cli.images.write import check_place, encode_image, format_of, write_atomically
from diffmf_cli.video.sink import Sink
from diffmf_cli.video.source import Frame, Source, attend

_PLACE = re.compile(r"%(0\d+)?d")


def is_sequence(text: str) -> bool:
    """Whether an argument names pictures and not a video file: a pattern, a folder, or no extension."""
    path = Path(text)
    return is_pattern(text) or path.is_dir() or text.endswith("/") or not (path.suffix or path.is_file())


def is_pattern(text: str) -> bool:
    """Whether a name holds the place of a frame number, as `%04d`."""
    return _PLACE.search(Path(text).name) is not None and not Path(text).is_file()


class SequenceSource(Source):
    """Pictures of one folder, in the order of the last number in their names.

    A frame's time is its number over the frame rate, so that a missing file does not shift the rest. Names
    whose numbers do not count frames, such as time stamps, and names without numbers are counted in order.

    Attributes:
        start: Number of the first picture.
    """

    def __init__(self, text: str, fps: Fraction, strict: bool) -> None:
        self._numbered = _find(text)
        self.start = self._numbered[0][0]
        files = [path for _, path in self._numbered]
        super().__init__(text, files, fps, len(files), strict)
        if lost := self._numbered[-1][0] - self.start + 1 - len(files):
            at = next(i for i, (number, _) in enumerate(self._numbered) if number != self.start + i)
            attend(
                f"{text} misses {lost} of its numbers, the first between {files[at - 1].name} and "
                f"{files[at].name}: the pictures nearest in time are used",
                strict,
            )

    @property
    def seconds(self) -> Fraction:
        """How long it lasts."""
        return (self._numbered[-1][0] - self.start + 1) / self.fps

    def _decode(self, step: int) -> Iterator[Frame]:
        for number, path in self._numbered[::step]:
            picture = read_image(path)
            yield Frame(picture.pixels, (number - self.start) / self.fps, number, path.stem, picture.alpha)


class SequenceSink(Sink):
    """Pictures in a folder, or by a pattern, each of which appears when it is whole."""

    workers = 2  # PNG takes longer than a frame of a small model on a GPU

    def __init__(self, text: str, overwrite: bool, extension: str) -> None:
        self.name, self._overwrite = text, overwrite
        path = Path(text)
        self._pattern = path.name if is_pattern(text) else None
        self._folder = path.parent if self._pattern else path
        self._extension = path.suffix if self._pattern else extension
        format_of(self._extension)

    def path_of(self, frame: Frame) -> Path:
        """Where the result of a visible frame goes: its own name, or its number in the pattern."""
        if self._pattern is None:
            return self._folder / f"{frame.name}{self._extension}"
        return self._folder / _PLACE.sub(lambda place: place[0] % frame.number, self._pattern, count=1)

    def check(self) -> None:
        """Refuses a folder that holds pictures already, or cannot be written to."""
        if self._folder.exists() and not self._folder.is_dir():
            raise ImageError(f"{self._folder} is a file: name a folder for the pictures")
        check_place(self._folder / "frame", overwrite=True)
        if self._overwrite or not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.suffix.lower() in EXTENSIONS and (
                self._pattern is None or _number_in(self._pattern, path.name) is not None
            ):
                raise ImageError(
                    f"{self.name} holds pictures already, such as {path.name}: choose another, or --overwrite"
                )

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Pictures are whole one by one: those that are done stay where the block fails."""
        yield

    def write(self, fused: np.ndarray, frame: Frame) -> None:
        """See `Sink`."""
        data = encode_image(fused, frame.alpha, self._extension)
        write_atomically(self.path_of(frame), data, self._overwrite)


def _find(text: str) -> list[tuple[int, Path]]:
    """Numbers and paths of the pictures that a folder or pattern names, in order.

    Raises:
        UsageError: There are none, or they are more than one series.
    """
    path = Path(text)
    pattern = path.name if is_pattern(text) else None
    folder = path if pattern is None else path.parent
    if not folder.exists():
        raise UsageError(f"folder {folder} does not exist: check the path")
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file: name the folder that holds the pictures")
    pictures = {
        each: _last_number(each.stem) if pattern is None else _number_in(pattern, each.name)
        for each in folder.iterdir()
        if each.suffix.lower() in EXTENSIONS and not each.name.startswith(".") and each.is_file()
    }
    if pattern is not None:
        pictures = {each: number for each, number in pictures.items() if number is not None}
    if not pictures:
        what = f"is in {text}" if pattern is None else f"fits {text}"
        raise UsageError(f"no picture {what} (PNG, JPEG, TIFF, WebP, BMP): check the path")

    numbers = sorted(number for number in pictures.values() if number is not None)
    if len(set(numbers)) < len(numbers):
        series = sorted({re.sub(r"\d+", "#", each.name) for each in pictures})
        if len(series) > 1:
            raise UsageError(
                f"folder {folder} holds more than one series ({series[0]}, {series[1]}): give a pattern, "
                "such as ir_%04d.png"
            )
    count_frames = len(set(numbers)) == len(pictures) and numbers[-1] - numbers[0] + 1 <= 2 * len(pictures)
    if count_frames:
        return sorted((number, each) for each, number in pictures.items() if number is not None)
    return list(enumerate(sorted(pictures, key=_natural), 1))


def _last_number(stem: str) -> int | None:
    found = re.findall(r"\d+", stem)
    return int(found[-1]) if found else None


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _number_in(pattern: str, name: str) -> int | None:
    """The number that a name has in the place of a pattern; None where it does not fit."""
    place = _PLACE.search(pattern)
    assert place is not None
    before, after = pattern[: place.start()], pattern[place.end() :]
    digits = name.removeprefix(before).removesuffix(after)
    if not digits.isdecimal() or f"{before}{digits}{after}" != name or place[0] % int(digits) != digits:
        return None
    return int(digits)
