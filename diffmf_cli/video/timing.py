"""Which infrared frame belongs to which visible one: by their times."""

import logging
from collections.abc import Iterator
from fractions import Fraction

from diffmf_cli.errors import ImageError
from diffmf_cli.video.source import Frame, Source, attend

log = logging.getLogger(__name__)


def check_rates_and_lengths(ir: Source, vis: Source, strict: bool) -> None:
    """Says before slow work how rates that differ are handled, and refuses lengths that do where `strict`.

    Raises:
        ImageError: With `strict`, where headers tell lengths that differ by more than two frames and 5 %.
    """
    if ir.fps != vis.fps:
        log.warning(
            "IR has %.5g frames a second, VIS %.5g: each visible frame gets the infrared one nearest in time",
            ir.fps,
            vis.fps,
        )
    allowed = 2 * max(1 / ir.fps, 1 / vis.fps) + max(ir.seconds, vis.seconds) / 20
    if strict and ir.count and vis.count and abs(ir.seconds - vis.seconds) > allowed:
        raise ImageError(
            f"{ir.name} lasts {float(ir.seconds):.2f} s and {vis.name} {float(vis.seconds):.2f} s: "
            "cut them to one length (--strict)"
        )


def synchronise(
    ir: Source, vis: Source, ir_frames: Iterator[Frame], vis_frames: Iterator[Frame], *, strict: bool = False
) -> Iterator[tuple[Frame, Frame]]:
    """Pairs every visible frame with the infrared one nearest in time, the earlier of two as near.

    Both clocks start with the first frame. The pairs end with the shorter stream, whose last frame lasts one
    average period: with a notice where the other one goes on for longer than two frame rates explain.

    Args:
        ir: The infrared stream, for its rate and name.
        vis: The visible stream.
        ir_frames: Its frames.
        vis_frames: Its frames.
        strict: One stream that ends before the other is an error.

    Yields:
        Infrared and visible frame.

    Raises:
        ImageError: With `strict`, when the first of the two ends.
    """
    ir_period, vis_period = 1 / ir.fps, 1 / vis.fps
    slack = max(ir_period, vis_period) - min(ir_period, vis_period) / 2
    earlier, later = next(ir_frames), next(ir_frames, None)
    end = Fraction(0)
    for frame in vis_frames:
        while later is not None and later.time <= frame.time:
            earlier, later = later, next(ir_frames, None)
        ir_end = earlier.time + ir_period
        if later is None and frame.time >= ir_end - min(ir_period, vis_period) / 2:
            while frame.time + vis_period - ir_end <= slack:
                following = next(vis_frames, None)
                if following is None:
                    return
                frame = following
            _ends(ir, ir_end, vis, strict)
            return
        takes_later = later is not None and later.time - frame.time < frame.time - earlier.time
        yield (later if takes_later and later is not None else earlier), frame
        end = frame.time + vis_period
    while later is not None and later.time + ir_period - end <= slack:
        later = next(ir_frames, None)
    if later is not None:
        _ends(vis, end, ir, strict)


def _ends(shorter: Source, end: Fraction, longer: Source, strict: bool) -> None:
    attend(
        f"{shorter.name} ends at {float(end):.2f} s, where {longer.name} goes on: the result ends there",
        strict,
    )
