"""The segments of a JPEG file, where thermal cameras keep what they measured."""

from collections.abc import Iterator


def segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment before the picture itself; ends where the bytes make no sense.

    Args:
        data: A JPEG file (ISO/IEC 10918-1, annex B).
    """
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker, length = data[start + 1], int.from_bytes(data[start + 2 : start + 4], "big")
        if marker == 0xFF:  # a fill byte
            start += 1
            continue
        if marker == 0xDA or length < 2:  # start of scan
            return
        yield marker, data[start + 4 : start + 2 + length]
        start += 2 + length
