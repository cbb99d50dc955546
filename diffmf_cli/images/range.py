"""Between stored pixel values and the unit interval that the network works in."""

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from diffmf_cli.errors import ImageError, UsageError
from diffmf_cli.images.opencv import cv2

FORMS = "auto, percentile:LOW,HIGH, set:LOW,HIGH, LO,HI or degrees as 10C,40C"
_DEGREES = re.compile(r"[\d.]\s*([cfk])$")
_CELSIUS = {
    "c": lambda degrees: degrees,
    "f": lambda degrees: (degrees - 32) / 1.8,
    "k": lambda degrees: degrees - 273.15,
}


def to_unit(pixels: np.ndarray) -> np.ndarray:
    """Maps the full range of the type to [0, 1].

    Args:
        pixels: Any shape; uint8, uint16, or floats that lie in [0, 1] already.

    Returns:
        float32 in [0, 1], of the same shape.

    Raises:
        ImageError: Another type, or floats outside [0, 1], NaN included.
    """
    if pixels.dtype in (np.uint8, np.uint16):
        return np.divide(pixels, np.float32(np.iinfo(pixels.dtype).max), dtype=np.float32)
    _check_values(pixels)
    if not _in_unit(pixels):
        raise ImageError(
            f"float pixels from {pixels.min():g} to {pixels.max():g}: divide them by their white value, "
            "so that they lie in [0, 1]"
        )
    # The tolerance of _in_unit is for round-off of whoever wrote the values.
    return pixels.astype(np.float32, copy=False).clip(0, 1)


def from_unit(unit: np.ndarray, dtype: np.typing.DTypeLike) -> np.ndarray:
    """Maps [0, 1] to the full range of a type, rounded to nearest; values outside are clamped.

    Args:
        unit: float32 of any shape.
        dtype: uint8, uint16 or a float type.

    Returns:
        An array of that shape and type.
    """
    dtype = np.dtype(dtype)
    clamped = unit.clip(0, 1)
    if dtype in (np.uint8, np.uint16):
        clamped *= np.iinfo(dtype).max
        return np.rint(clamped, out=clamped).astype(dtype)
    _check_values(np.empty(0, dtype))
    return clamped.astype(dtype, copy=False)


@dataclass(frozen=True)
class IntensityRange:
    """Which infrared values become black and white: the option `--ir-range`.

    Attributes:
        kind: `auto`, `percentile`, `set` or `fixed`.
        low: Percentile, or value of the picture where `kind` is `fixed`.
        high: The same for white.
        degrees: Whether they are degrees Celsius, which only a picture of temperatures has.
    """

    kind: str = "auto"
    low: float = 0.0
    high: float = 100.0
    degrees: bool = False

    @classmethod
    def parse(cls, text: str) -> "IntensityRange":
        """Reads `auto`, `percentile:1,99`, `set:1,99`, `LO,HI` in values of the picture, or `10C,40C`.

        Degrees may be C, F or K, and become Celsius.

        Raises:
            UsageError: The text has none of these forms, or its first number is not below its second.
        """
        if text.strip().lower() == "auto":
            return cls()
        word, colon, numbers = text.strip().lower().rpartition(":")
        kind = word if colon else "fixed"
        found = None if colon else _DEGREES.search(numbers)
        unit = found[1] if found else ""
        try:
            low, high = (_number(number, unit) for number in numbers.split(","))
            known = kind in ("percentile", "set") or not colon
        except ValueError:
            known = False
        if not known:
            close = difflib.get_close_matches(word or numbers, ("auto", "percentile", "set"), n=1)
            hint = f" (did you mean '{close[0]}'?)" if close and close[0] != word else ""
            raise UsageError(f"intensity range '{text}' is not understood{hint}: use {FORMS}")
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UsageError(f"intensity range '{text}': {low:g} is not below {high:g}, use {FORMS}")
        if colon and not (low >= 0 and high <= 100):
            raise UsageError(f"intensity range '{text}': percentiles lie between 0 and 100")
        return cls(kind, low, high, bool(unit))

    def check_unit(self, unit: str, name: str) -> None:
        """Refuses a range in degrees for a picture that has none.

        Args:
            unit: `C` for temperatures; see `Image`.
            name: What messages call the picture.

        Raises:
            UsageError: The range is in degrees, the picture is not.
        """
        if self.degrees and unit != "C":
            raise UsageError(
                f"{name} holds no temperatures, so an intensity range in degrees means nothing for it: give "
                "LO,HI in its own values, or auto"
            )

    def over(self, pictures: Iterable[np.ndarray]) -> "IntensityRange":
        """The one fixed range that `set:` means for a set of infrared pictures, each with the same weight.

        Args:
            pictures: Arrays of any shape, read once, one at a time. 0 and 100 are the exact extremes; between
                them a percentile is exact to about a tenth of a percent of the pixels.

        Returns:
            A `fixed` range.
        """
        ranks = np.linspace(0, 1, 1025)
        quantiles = [_quantiles(picture, ranks) for picture in pictures]
        if not quantiles:
            raise ImageError("no infrared pictures to take an intensity range from: check the folder")
        low, high = np.percentile(quantiles, (self.low, self.high))
        return IntensityRange("fixed", float(low), float(high))

    def limits(self, ir: np.ndarray) -> tuple[float, float]:
        """The values of `ir` that become 0 and 1; equal for a constant picture."""
        if self.kind == "fixed":
            return self.low, self.high
        if self.kind == "auto":
            return _auto_limits(ir)
        low, high = np.percentile(ir, (self.low, self.high))
        # More than the percentiles leave is one value, as around a small target in an empty scene.
        return (float(low), float(high)) if low < high else (float(ir.min()), float(ir.max()))

    def beside(self, ir: np.ndarray) -> str:
        """A notice for a picture of which a fixed range shows nothing; empty otherwise.

        Args:
            ir: Any shape; uint8, uint16 or float.
        """
        if self.kind != "fixed" or not ir.size:
            return ""
        low, high = float(ir.min()), float(ir.max())
        if low < self.high and high > self.low:
            return ""
        end = "black" if high <= self.low else "white"
        return (
            f"IR is all {end}: its values, {low:.6g} to {high:.6g}, lie outside of the intensity range "
            f"{self.low:.6g} to {self.high:.6g}"
        )

    def apply(self, ir: np.ndarray) -> np.ndarray:
        """Maps an infrared picture to [0, 1] linearly; values beyond the limits saturate.

        Args:
            ir: Any shape; uint8, uint16 or float in any unit. It is read as a whole: a `set:` range that was
                not taken `over` a set is one over this picture.

        Returns:
            float32 in [0, 1], of the same shape; all 0 where the limits are equal.

        Raises:
            ImageError: Another type, or NaN or infinite values.
        """
        _check_values(ir)
        low, high = self.limits(ir)
        if not low < high:
            return np.zeros(ir.shape, np.float32)
        unit = np.subtract(ir, low, dtype=np.float32)
        unit /= np.float32(high - low)
        return unit.clip(0, 1, out=unit)


def _number(text: str, unit: str) -> float:
    """A plain number, or degrees of a unit (`c`, `f`, `k`) in Celsius; the first of two may leave it out."""
    if not unit:
        return float(text)
    return _CELSIUS[unit](float(text.strip().removesuffix(unit)))


def _auto_limits(ir: np.ndarray) -> tuple[float, float]:
    """Full range for finished pictures, the range in use for raw counts and temperatures.

    Hot targets are a fraction of a percent of the pixels, so no percentile may cut them off: the limits are
    the extremes after a 3x3 median, which removes dead and stuck pixels and keeps everything from about 5
    pixels on. Extremes far outside (a flame, the sun, reflected sky) must not flatten the scene: a limit is
    at most twice the distance between the 1st and 99th percentile beyond them, which leaves the scene at
    least a fifth of the range.
    """
    if ir.dtype == np.uint8:
        return 0.0, 255.0
    if ir.dtype != np.uint16 and _in_unit(ir):
        return 0.0, 1.0

    steady = cv2.medianBlur(ir if ir.dtype == np.uint16 else ir.astype(np.float32), 3)
    lowest, highest = float(steady.min()), float(steady.max())
    step = max(1, math.isqrt(ir.shape[0] * ir.shape[1] // 2**20))
    p1, p99 = (float(p) for p in np.percentile(steady[::step, ::step], (1, 99)))
    spread = p99 - p1
    if spread > 0:
        lowest, highest = max(lowest, p1 - 2 * spread), min(highest, p99 + 2 * spread)
    # Sensors count to 14 bits, rarely 15: what uses more than half of 16 bits is a finished picture.
    if ir.dtype == np.uint16 and (highest - lowest > 2**15 or highest == lowest):
        return 0.0, 65535.0
    return lowest, highest


def _quantiles(pixels: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    ordered = np.sort(pixels, axis=None)
    return ordered[np.rint(ranks * (ordered.size - 1)).astype(int)].astype(np.float64)


def _in_unit(pixels: np.ndarray) -> bool:
    return bool(pixels.min() >= -1e-3 and pixels.max() <= 1 + 1e-3)


def _check_values(pixels: np.ndarray) -> None:
    if pixels.dtype not in (np.uint8, np.uint16) and pixels.dtype.kind != "f":
        raise ImageError(f"pixels of type {pixels.dtype}: give uint8, uint16 or float")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ImageError("the picture holds NaN or infinite values: replace them by finite ones")
