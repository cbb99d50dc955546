"""FLIR radiometric JPEG: temperatures, and the visible picture that the camera took with them.

flyr reads them (extra `thermal`), with the emissivity, distance and air that are set in the file.
"""

import io

import numpy as np

from diffmf_cli.errors import ImageError
from diffmf_cli.images.jpeg import segments

_APP1 = 0xE1
_DAMAGED = "holds damaged FLIR records: copy it again from the camera"


def is_flir(data: bytes) -> bool:
    """Whether a JPEG file carries FLIR's own records."""
    return any(marker == _APP1 and content.startswith(b"FLIR\0") for marker, content in segments(data))


def read_flir(data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Temperatures and visible picture of a FLIR radiometric JPEG.

    Args:
        data: The whole file.

    Returns:
        `(H, W)` float32 in degrees Celsius, and `(h, w, 3)` uint8 RGB or None where none is embedded.

    Raises:
        ImageError: flyr is not installed, or the records are damaged. The message lacks the file's name.
    """
    try:
        import flyr
    except ModuleNotFoundError:
        raise ImageError(
            "is a FLIR radiometric JPEG, whose temperatures the extra `thermal` reads: "
            "pip install 'diffmf[thermal]'"
        ) from None
    if _records(data) > len(data) // 32:  # flyr would try to read each of them, up to 4 billion
        raise ImageError(_DAMAGED)
    try:
        thermogram = flyr.unpack(io.BytesIO(data))
        with np.errstate(all="ignore"):  # wrong constants show as NaN, which is reported
            celsius = thermogram.celsius.astype(np.float32)
    except Exception as error:  # flyr checks little: damaged bytes end in any kind of error
        raise ImageError(_DAMAGED) from error
    if not np.isfinite(celsius).all():
        raise ImageError("holds damaged FLIR records (no temperatures result): copy it again from the camera")
    return celsius, _rgb(thermogram.optical)


def _records(data: bytes) -> int:
    """How many records of 32 bytes the directory says to have; its first segment tells."""
    first = next(
        content for marker, content in segments(data) if marker == _APP1 and content[:5] == b"FLIR\0"
    )
    return int.from_bytes(first[36:40], "big")  # 8 bytes of the segment, 28 of the header


def _rgb(visible: np.ndarray | None) -> np.ndarray | None:
    """Embedded pictures are RGB, or grey in cameras that take them in the dark."""
    if visible is None:
        return None
    return np.dstack([visible] * 3) if visible.ndim == 2 else np.ascontiguousarray(visible[:, :, :3])
