"""DJI R-JPEG: what such a file is. Its counts become temperatures only in DJI's own, closed SDK."""

from diffmf_cli.images.jpeg import segments

_APP1, _APP3 = 0xE1, 0xE3
NOTE = (
    "is a DJI R-JPEG: the rendered picture is read, not the temperatures, which only DJI's Thermal SDK "
    "tells; convert it there to a 16-bit or float TIFF to use --ir-range in degrees"
)


def is_dji(data: bytes) -> bool:
    """Whether a JPEG file is of a DJI camera and carries thermal counts, which are in its APP3 segments."""
    found = list(segments(data))
    made_by_dji = any(
        marker == _APP1 and content.startswith(b"Exif\0") and b"DJI\0" in content for marker, content in found
    )
    return made_by_dji and any(marker == _APP3 for marker, _ in found)
