"""Pixels without a header, as thermal cores and frame grabbers dump them: the option `--raw`."""

import re
from dataclasses import dataclass

import numpy as np

from diffmf_cli.errors import ImageError, UsageError

_TYPES = {
    "u8": "u1",
    "u16le": "<u2",
    "u16be": ">u2",
    "f32le": "<f4",
    "f32be": ">f4",
}
_FORM = re.compile(r"(\d+)x(\d+):(\w+)")


@dataclass(frozen=True)
class RawLayout:
    """How the pixels of a headerless file lie: row after row from the top left.

    Attributes:
        width: Pixels in a row.
        height: Rows.
        kind: `u8`, `u16le`, `u16be`, `f32le` or `f32be`.
    """

    width: int
    height: int
    kind: str

    @classmethod
    def parse(cls, text: str) -> "RawLayout":
        """Reads `WxH:TYPE`, such as `640x512:u16le`.

        Raises:
            UsageError: The text has another form, an unknown type, or no pixels.
        """
        found = _FORM.fullmatch(text.strip().lower())
        if not found or found[3] not in _TYPES or int(found[1]) * int(found[2]) == 0:
            raise UsageError(
                f"raw layout '{text}' is not understood: use WIDTHxHEIGHT:TYPE such as 640x512:u16le, "
                f"with {', '.join(_TYPES)}"
            )
        return cls(int(found[1]), int(found[2]), found[3])

    def read(self, data: bytes, name: str) -> np.ndarray:
        """The picture in a file of exactly this layout.

        Args:
            data: The whole file.
            name: What messages call it.

        Returns:
            `(H, W)` uint8, uint16 or float32.

        Raises:
            ImageError: The file has another size, or holds NaN or infinity.
        """
        dtype = np.dtype(_TYPES[self.kind])
        expected = self.width * self.height * dtype.itemsize
        if len(data) != expected:
            raise ImageError(
                f"{name} has {len(data)} bytes, but --raw {self.width}x{self.height}:{self.kind} means "
                f"{expected}: correct the size or type, or cut off a header"
            )
        pixels = np.frombuffer(data, dtype).reshape(self.height, self.width)
        if dtype.kind == "f" and (bad := int(np.count_nonzero(~np.isfinite(pixels)))):
            raise ImageError(f"{name} holds {bad} NaN or infinite values: is its type {self.kind}?")
        return pixels.astype(dtype.newbyteorder("="))
