"""DJI R-JPEG: temperatures where dji-thermal-cli is installed, else the picture that the camera rendered.

dji-thermal-cli repeats what DJI's closed Thermal SDK computes. It is no extra of diffmf, because of its
licence (AGPL-3.0) and because it needs Python 3.12.
"""

import numpy as np

from diffmf_cli.images.jpeg import segments

_APP1, _APP3 = 0xE1, 0xE3
_UNKNOWN = -273.0  # degrees Celsius; what the camera could not measure lies below
_RENDERED = "the rendered picture is read, not the temperatures"


def is_dji(data: bytes) -> bool:
    """Whether a JPEG file is of a DJI camera and carries thermal counts, which are in its APP3 segments."""
    found = list(segments(data))
    made_by_dji = any(
        marker == _APP1 and content.startswith(b"Exif\0") and b"DJI\0" in content for marker, content in found
    )
    return made_by_dji and any(marker == _APP3 for marker, _ in found)


def read_dji(data: bytes) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Temperatures of an R-JPEG.

    Args:
        data: The whole file.

    Returns:
        `(H, W)` float32 in degrees Celsius, with what the file says of emissivity, distance and air; or None
        where they cannot be had, and then why, as a sentence without the name of the file.
    """
    try:
        from dji_thermal_cli import tsdk
    except ModuleNotFoundError:
        return None, (
            f"is a DJI R-JPEG: {_RENDERED}, which dji-thermal-cli tells (pip install dji-thermal-cli, Python "
            "3.12; AGPL-3.0), or DJI's Thermal SDK as a TIFF",
        )
    try:
        celsius = np.array(tsdk.open(data).measure_temperature_c(), np.float32)
        known = np.isfinite(celsius) & (celsius > _UNKNOWN)
        celsius[~known] = celsius[known].min()
    except Exception as error:  # a camera that it does not know, damaged records, no pixel that is known
        reason = " ".join(str(error).split())[:100]
        return None, (f"is a DJI R-JPEG that dji-thermal-cli cannot measure ({reason}): {_RENDERED}",)
    return celsius, ()
