"""One intensity range for all infrared frames: a range of its own for each would flicker."""

from math import ceil

from diffmf_cli.images.range import IntensityRange
from diffmf_cli.video.source import Frame, Source

SAMPLE = 256


def stream_range(text: str, ir: Source, first: Frame) -> str:
    """What `--ir-range` means for a whole stream.

    `auto` keeps the full range of 8-bit frames. Of deeper ones it is the lowest and the highest of the limits
    that single frames would get; blank ones, such as those of a closed shutter, do not count. Percentiles
    are those of all frames together. Both look at up to about SAMPLE frames, evenly spread over the stream.

    Args:
        text: As `IntensityRange.parse` takes it.
        ir: The infrared stream.
        first: Its first frame.

    Returns:
        A range that is the same for every frame, again as text: `auto` or `LO,HI`.

    Raises:
        UsageError: The range is in degrees.
    """
    span = IntensityRange.parse(text)
    span.check_unit("", ir.name)  # frames are plain numbers
    if span.kind == "fixed" or (span.kind == "auto" and first.pixels.dtype == "uint8"):
        return text
    sample = (frame.pixels for frame in ir.frames(step=max(1, ceil(ir.count / SAMPLE))))
    if span.kind == "auto":
        limits = [span.limits(pixels) for pixels in sample if pixels.min() < pixels.max()]
        low = min((low for low, _ in limits), default=0.0)
        high = max((high for _, high in limits), default=1.0)
    else:
        whole = span.over(sample)
        low, high = whole.low, whole.high
    return f"{low!r},{high if low < high else low + 1!r}"
