"""`diffmf video`: two videos or picture sequences into one, frame by frame."""

import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from diffmf_cli.cli import options
from diffmf_cli.cli.output import exit_at_once_on_interrupt, out
from diffmf_cli.errors import UsageError
from diffmf_cli.threads import limit_threads

if TYPE_CHECKING:
    import numpy as np

    from diffmf_cli.video.pipeline import Progress

HELP = """
Fuse an infrared and a visible video, or picture sequences, of the same scene.

[bold]Examples[/bold]

  diffmf video ir.mp4 vis.mp4                     writes vis_fused.mp4
  diffmf video ir.mp4 vis.mp4 -o out.mp4 --audio  with the sound of vis.mp4
  diffmf video ir/ vis/ -o fused/                 folders of pictures
  diffmf video ir_%04d.tiff vis.mp4 -o out.mkv --codec ffv1 --fps 30

Each visible frame is fused with the infrared one nearest in time. The result
has the frame rate of VIS and ends with the shorter of the two.

All frames share one --ir-range, and one --align, found before the run. Ctrl-C leaves no
half-written video; pictures that are done stay.
"""
_PANEL = "Videos"
log = logging.getLogger(__name__)


def video(
    ir: Annotated[
        str,
        typer.Argument(metavar="IR", help="Infrared video, folder of pictures or pattern as ir_%04d.png."),
    ],
    vis: Annotated[str, typer.Argument(metavar="VIS", help="Visible video, folder or pattern.")],
    output: Annotated[
        str | None,
        options.option(
            "--output",
            "-o",
            metavar="OUT",
            help="A video, a folder or a pattern; else VIS with _fused.mp4 in its name.",
            panel=_PANEL,
        ),
    ] = None,
    fps: Annotated[
        float | None,
        options.option(
            "--fps",
            metavar="N",
            help="Of picture sequences; else the rate of the other input where that is a video, or 25.",
            panel=_PANEL,
        ),
    ] = None,
    audio: Annotated[
        bool, options.flag("--audio", help="Copy the sound of VIS into OUT (needs PyAV).", panel=_PANEL)
    ] = False,
    codec: Annotated[
        str,
        options.option(
            "--codec",
            metavar="auto|h264|mpeg4|vp9|mjpeg|ffv1",
            help="Of OUT; auto goes by its extension. ffv1 loses nothing; h264 and vp9 need PyAV.",
            panel=_PANEL,
        ),
    ] = "auto",
    video_backend: Annotated[
        str,
        options.option(
            "--video-backend",
            metavar="auto|opencv|pyav",
            help="What reads and writes videos; pyav keeps exact times. auto is opencv where that can do it.",
            panel=_PANEL,
        ),
    ] = "auto",
    strict: Annotated[
        bool,
        options.flag(
            "--strict",
            help="Fail where one input ends early, is cut off or misses numbers, instead of a notice.",
            panel=_PANEL,
        ),
    ] = False,
    model: options.ModelOption = "base",
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "auto",
    scan_backend: options.ScanBackendOption = "auto",
    tile: options.TileOption = "auto",
    threads: options.ThreadsOption = None,
    offline: options.OfflineOption = False,
    color: options.ColorOption = "auto",
    ir_range: options.IrRangeOption = "auto",
    stretch: options.StretchOption = False,
    align: options.AlignOption = "none",
    outside: options.OutsideOption = "vis",
    fov_ratio: options.FovRatioOption = None,
    overwrite: options.OverwriteOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Fuses two streams; the help text is `HELP`."""
    out.configure(json=json, quiet=quiet, verbose=verbose)
    limit_threads(threads)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    begin = perf_counter()
    # Every mistake that can be found without torch is found first: importing it alone takes seconds.
    with _each_notice_once(), out.status("Reading") as doing:
        from diffmf_cli.alignment import choice
        from diffmf_cli.fusion.fuser import check_pair, check_settings
        from diffmf_cli.model.catalogue import find_weights, read_metadata
        from diffmf_cli.video.intensity import stream_range
        from diffmf_cli.video.opening import choose_backend, open_inputs, open_output
        from diffmf_cli.video.timing import check_rates_and_lengths

        check_settings(
            device=device,
            precision=precision,
            scan_backend=scan_backend,
            tile=tile,
            color=color,
            ir_range=ir_range,
        )
        asked = choice.parse_align(align, fov_ratio, outside)
        if outside == "crop":
            raise UsageError("--outside crop would change the size of the frames: use vis or blank")
        target = _target(vis, output)
        backend = choose_backend(video_backend, target, codec, audio)
        read_metadata(find_weights(model))
        ir_source, vis_source = open_inputs(ir, vis, backend=backend, fps=fps, strict=strict)
        check_rates_and_lengths(ir_source, vis_source, strict)
        ir_first, vis_first = ir_source.first(), vis_source.first()
        first = ir_first.pixels, vis_first.pixels
        check_pair(*first, stretch=stretch or asked != choice.NONE, names=(ir, vis))
        # Once, on the first frames: a rig is fixed, and an estimate for each frame would tremble.
        transform, why_not = choice.choose(asked, *first, fov_ratio=fov_ratio, name=align)
        if transform is None and asked != choice.NONE:
            log.warning(why_not)
            check_pair(*first, stretch=stretch, names=(ir, vis))
        sink = open_output(
            target,
            ir_source,
            vis_source,
            vis_first,
            backend=backend,
            codec=codec,
            audio=audio,
            color=color,
            overwrite=overwrite,
        )
        doing("Finding the intensity range")
        span = stream_range(ir_range, ir_source, ir_first)

    with exit_at_once_on_interrupt(), out.status("Loading the model"):
        from diffmf_cli import load_model
        from diffmf_cli.video.pipeline import fuse_stream

        fuser = load_model(model, device=device, precision=precision, scan_backend=scan_backend, tile=tile)
    prepared = perf_counter()

    def fuse(ir: "np.ndarray", vis: "np.ndarray") -> "np.ndarray":
        return fuser.fuse(
            ir,
            vis,
            color=color,
            ir_range=span,
            stretch=stretch,
            align="none" if transform is None else transform,
            outside=outside,
            dtype=sink.dtype,
        )

    total = round(min(ir_source.seconds, vis_source.seconds) * vis_source.fps)
    with _each_notice_once(), _interrupt_once() as check_interrupt, _reporting(total) as report:

        def after_frame(progress: "Progress") -> None:
            check_interrupt()
            report(progress)

        done = fuse_stream(fuse, ir_source, vis_source, sink, strict=strict, report=after_frame)
    ended = perf_counter()

    height, width = done.shape[:2]
    rate = done.frames / (ended - prepared)
    out.record(
        {
            "type": "video",
            "ir": ir,
            "vis": vis,
            "output": target,
            "frames": done.frames,
            "fps": float(vis_source.fps),
            "ir_fps": float(ir_source.fps),
            "width": width,
            "height": height,
            "channels": 1 if len(done.shape) == 2 else 3,
            "ir_range": span,
            "align": None if transform is None else transform.facts(),
            "video_backend": backend,
            "codec": getattr(sink, "codec", None),
            "audio": audio,
            "model": fuser.name,
            "device": fuser.device,
            "precision": fuser.precision,
            "scan_backend": fuser.scan_backend,
            "seconds": {
                "prepare": round(prepared - begin, 3),
                "model": round(done.model_seconds, 3),
                "run": round(ended - prepared, 3),
            },
            "frames_per_second": round(rate, 3),
            "notices": out.notices,
        }
    )
    out.talk(
        f"{target}: {done.frames} frames of {width}x{height} at {float(vis_source.fps):.5g} a second, "
        f"{fuser.name} on {fuser.device} at {rate:.2f} fps"
    )


def _target(vis: str, output: str | None) -> str:
    from diffmf_cli.video.sequence import is_pattern

    if output is not None:
        return output
    if is_pattern(vis):
        raise UsageError(f"VIS {vis} is a pattern, so OUT has no name: add -o OUT")
    source = Path(vis)
    return str(source.with_name(f"{source.name if source.is_dir() else source.stem}_fused.mp4"))


@contextmanager
def _each_notice_once() -> Iterator[None]:
    """What is true of every frame is said for the first."""

    def is_new(record: logging.LogRecord) -> bool:
        return record.getMessage() not in out.notices

    out.addFilter(is_new)
    try:
        yield
    finally:
        out.removeFilter(is_new)


@contextmanager
def _interrupt_once() -> Iterator[Callable[[], None]]:
    """Ctrl-C unwinds the block, once, so that a second one does not disturb the cleaning up.

    Yields:
        Raises it again: a compiled callback can swallow the first.
    """
    came = False

    def interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal came
        if not came:
            came = True
            raise KeyboardInterrupt

    def check() -> None:
        if came:
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # started with nohup or in a background job: stay deaf
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _reporting(total: int) -> Iterator[Callable[["Progress"], None]]:
    """Shows how far it is and how fast: a live line on a terminal, else a plain one every tenth."""
    live = sys.stderr is not None and sys.stderr.isatty()
    recent: deque[float] = deque([perf_counter()], maxlen=30)

    with out.status("Fusing") as doing:

        def report(progress: "Progress") -> None:
            recent.append(perf_counter())
            fps = (len(recent) - 1) / (recent[-1] - recent[0])
            number = progress.frames
            minutes, seconds = divmod(round(max(0, total - number) / fps), 60)
            line = f"frame {number} of {max(total, number)}, {fps:.2f} fps, {minutes}:{seconds:02} left"
            if live:
                doing(f"Fusing {line}")
            elif total >= 20 and number * 10 // total > (number - 1) * 10 // total:
                out.talk(line)

        yield report
