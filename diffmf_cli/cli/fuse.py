"""`diffmf fuse`: one pair of files, or streams, through the Python API."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from diffmf_cli.cli import options
from diffmf_cli.cli.output import exit_at_once_on_interrupt, out
from diffmf_cli.errors import UsageError, check_choice
from diffmf_cli.threads import limit_threads

if TYPE_CHECKING:
    import numpy as np

    from diffmf_cli.alignment.transform import Transform
    from diffmf_cli.images.range import IntensityRange
    from diffmf_cli.images.read import Image

log = logging.getLogger(__name__)

HELP = """
Fuse one infrared and one visible picture of the same scene.

[bold]Examples[/bold]

  diffmf fuse ir.png vis.png                     writes vis_fused.png beside vis.png
  diffmf fuse ir.tiff vis.jpg -o out/fused.png   any depth: 8-bit, 16-bit and float
  diffmf fuse ir.png vis.png -m lite --json      a smaller, faster model; facts as JSON on stdout
  diffmf fuse ir.png vis.png --align auto        two cameras that do not match yet
  diffmf fuse flir.jpg --ir-range 10C,40C        both pictures of a FLIR camera's file
  diffmf fuse ir.raw vis.png --raw 640x512:u16le --panel all.png --palette inferno
  diffmf fuse mri.png pet.png -m medical         structure from the first, colour from the second
  cat ir.png | diffmf fuse - vis.png -o - > fused.png

[dim]Every option can also be set in the environment: --ir-range as DIFFMF_IR_RANGE, and so on.[/dim]
"""
STREAM = "-"


def fuse(
    ir: Annotated[
        str, typer.Argument(metavar="IR", help="Infrared picture (with -m medical: MRI), or - for stdin.")
    ],
    vis: Annotated[
        str | None,
        typer.Argument(
            metavar="VIS",
            help="Visible picture (with -m medical: CT, PET or SPECT), or -; a FLIR file has its own.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        options.option(
            "--output",
            "-o",
            metavar="OUT",
            help="The result, or - for stdout; else VIS with _fused in its name.",
            panel="Pictures",
        ),
    ] = None,
    model: options.ModelOption = "base",
    task: options.TaskOption = "auto",
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "auto",
    scan_backend: options.ScanBackendOption = "auto",
    tile: options.TileOption = "auto",
    threads: options.ThreadsOption = None,
    offline: options.OfflineOption = False,
    color: options.ColorOption = "auto",
    ir_range: options.IrRangeOption = "auto",
    raw: options.RawOption = None,
    slice: Annotated[
        int | None,
        options.option(
            "--slice",
            metavar="N",
            help="Which slice of DICOM and NIfTI volumes, from 1; else the middle one.",
            panel="Pictures",
        ),
    ] = None,
    window: Annotated[
        str | None,
        options.option(
            "--window",
            metavar="CENTER,WIDTH",
            help="Display window of a DICOM or NIfTI VIS, instead of its own; 40,80 is brain in CT.",
            panel="Pictures",
        ),
    ] = None,
    region: Annotated[
        str | None,
        options.option(
            "--region",
            metavar="X,Y,W,H",
            help="Only this part of a GeoTIFF VIS, in its pixels, without reading the rest.",
            panel="Pictures",
        ),
    ] = None,
    stretch: options.StretchOption = False,
    align: options.AlignOption = "none",
    save_align: Annotated[
        Path | None,
        options.option(
            "--save-align", metavar="FILE.json", help="Keep what --align auto found.", panel="Pictures"
        ),
    ] = None,
    outside: options.OutsideOption = "vis",
    fov_ratio: options.FovRatioOption = None,
    depth: options.DepthOption = "auto",
    format: options.FormatOption = "auto",
    quality: options.QualityOption = options.QUALITY,
    panel: Annotated[
        Path | None,
        options.option(
            "--panel", metavar="FILE", help="Also write IR, VIS and result side by side.", panel="Pictures"
        ),
    ] = None,
    palette: Annotated[
        str,
        options.option(
            "--palette",
            metavar="gray|inferno|magma|plasma|viridis|cividis|turbo|hot|bone",
            help="Colours of IR in --panel.",
            panel="Pictures",
        ),
    ] = "gray",
    overwrite: options.OverwriteOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Fuses one pair; the help text is `HELP`."""
    out.configure(json=json, quiet=quiet, verbose=verbose)
    limit_threads(threads)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    alone = vis is None
    vis = ir if vis is None else vis
    if alone and ir == STREAM:
        raise UsageError("VIS is missing: name the visible picture after IR")
    if ir == STREAM and vis == STREAM:
        raise UsageError("IR and VIS cannot both be -: stdin holds one picture, give the other as a file")
    if json and output == STREAM:
        raise UsageError("--json and -o - both want stdout: write the picture to a file")

    check_choice("depth", depth, ("auto", "8", "16"))
    check_choice("format", format, ("auto", "png", "jpg", "tiff", "webp"))
    if save_align is not None and align != "auto":
        raise UsageError(f"--save-align {save_align} keeps what --align auto finds: add --align auto")

    seconds: dict[str, float] = {}
    # Every mistake that can be found without torch is found first: importing it alone takes seconds.
    with out.status("Reading pictures"), _timed(seconds, "read"):
        from diffmf_cli.alignment import choice
        from diffmf_cli.alignment.coordinates import by_coordinates, differing_places
        from diffmf_cli.alignment.focal import fov_ratio as exif_ratio
        from diffmf_cli.alignment.outside import shown
        from diffmf_cli.fusion.files import encode_fused, parse_region, read_pair, read_region
        from diffmf_cli.fusion.fuser import check_pair, check_settings
        from diffmf_cli.images import write
        from diffmf_cli.images.dicom import parse_window
        from diffmf_cli.images.panel import PALETTES
        from diffmf_cli.images.range import IntensityRange
        from diffmf_cli.images.raw import RawLayout
        from diffmf_cli.images.resize import check_aspect
        from diffmf_cli.model.catalogue import TASKS, check_task, find_weights

        asked = choice.parse_align(align, fov_ratio, outside)
        if save_align is not None:
            write.check_place(save_align, overwrite)
        check_settings(
            device=device,
            precision=precision,
            scan_backend=scan_backend,
            tile=tile,
            color=color,
            ir_range=ir_range,
        )
        span = IntensityRange.parse(ir_range)
        layout = None if raw is None else RawLayout.parse(raw)
        limits = None if window is None else parse_window(window)
        part = None if region is None else parse_region(region)
        if part is not None and (asked != choice.GEO or alone or STREAM in (ir, vis)):
            raise UsageError(
                f"--region {region} is for two GeoTIFF files by their coordinates: add --align geo"
            )
        check_choice("palette", palette, PALETTES)
        if palette != "gray" and panel is None:
            raise UsageError(f"--palette {palette} colours IR in the panel: add --panel FILE")
        target = _target(vis, output, format)
        extension = f".{format}" if format != "auto" else ".png"
        if target is not None:
            extension = target.suffix
            _check_not_an_input(target, ir, vis)
            write.check_writable(target, overwrite)
        if panel is not None:
            _check_not_an_input(panel, ir, vis)
            if target is not None and panel.absolute() == target.absolute():
                raise UsageError(f"--panel {panel} is OUT as well: give it another name")
            write.check_writable(panel, overwrite)
        options.check_quality(quality, extension, "" if panel is None else panel.suffix)
        check_task(model, find_weights(model), task)
        ir_source, vis_source = (_stdin() if name == STREAM else Path(name) for name in (ir, vis))
        names = ("stdin" if ir == STREAM else ir, "stdin" if vis == STREAM else vis)
        if part is not None:
            ir_image, vis_image = read_region(Path(ir), Path(vis), part)
        else:
            ir_image, vis_image = read_pair(
                ir_source, None if alone else vis_source, names, layout, slice, limits
            )
        if asked == choice.GEO:
            asked = by_coordinates(ir_image, vis_image)
        span.check_unit(ir_image.unit, names[0])
        ignored = differing_places(ir_image, vis_image) if asked == choice.NONE else ()
        for note in (*ir_image.notes, *vis_image.notes, *ignored):
            log.warning(note)
        pixels = ir_image.pixels, vis_image.pixels
        check_pair(*pixels, stretch=stretch or align != "none", names=names)

    transform = None
    if asked != choice.NONE:
        with out.status("Aligning"), _timed(seconds, "align"):
            hint = fov_ratio
            if fov_ratio is None and ir != vis:  # one file has one focal length, its two cameras have not
                hint = exif_ratio(ir_source, vis_source)
            transform, why_not = choice.choose(asked, *pixels, fov_ratio=hint, ir_range=span, name=align)
            if transform is None and hint != fov_ratio:  # what a camera says of its lens can be wrong
                transform, why_not = choice.choose(asked, *pixels, ir_range=span)
        if transform is None:
            log.warning(why_not)
            if not stretch:
                check_aspect(pixels[0].shape[:2], pixels[1].shape[:2], tried=True)
            if save_align is not None:
                log.warning("%s is not written: there is no alignment to keep", save_align)
        elif save_align is not None:
            write.write_atomically(save_align, transform.to_json(), overwrite)

    with exit_at_once_on_interrupt(), out.status("Loading the model") as doing:
        with _timed(seconds, "load"):
            from diffmf_cli import load_model

            fuser = load_model(
                model,
                device=device,
                precision=precision,
                scan_backend=scan_backend,
                tile=tile,
                task=task,
            )
        doing("Fusing")
        with _timed(seconds, "model"):
            fused = fuser.fuse(
                *pixels,
                color=color,
                ir_range=ir_range,
                stretch=stretch,
                align="none" if transform is None else transform,
                outside=outside,
                dtype=None if depth == "auto" else f"uint{depth}",
            )

    with _timed(seconds, "write"):
        if transform is not None:
            vis_image = vis_image.part(*shown(transform, outside))
        data, losses = encode_fused(fused, vis_image, extension, quality)
        for loss in losses:
            log.warning(loss)
        if target is None:
            out.binary(data)
        else:
            write.write_atomically(target, data, overwrite)
        if panel is not None:
            side_by_side = _panel(ir_image, pixels[1], fused, span, transform, outside, palette)
            data = write.encode_image(side_by_side, None, panel.suffix, quality)
            write.write_atomically(panel, data, overwrite)

    height, width = fused.shape[:2]
    out.record(
        {
            "type": "pair",
            "ir": ir,
            "vis": vis,
            "output": str(target),
            "panel": None if panel is None else str(panel),
            "width": width,
            "height": height,
            "ir_width": ir_image.pixels.shape[1],
            "ir_height": ir_image.pixels.shape[0],
            "channels": 1 if fused.ndim == 2 else 3,
            "dtype": str(fused.dtype),
            "model": fuser.name,
            "task": fuser.task,
            "device": fuser.device,
            "precision": fuser.precision,
            "scan_backend": fuser.scan_backend,
            "align": None if transform is None else transform.facts(),
            "seconds": {phase: round(spent, 3) for phase, spent in seconds.items()},
            "notices": out.notices,
        }
    )
    place = "stdout" if target is None else target
    out.talk(f"{place}: {width}x{height}, {fuser.name} on {fuser.device} in {seconds['model']:.2f} s")
    # Which picture is which is plain for infrared and visible ones only.
    if fuser.task in TASKS and (verbose or fuser.task != "ir-vis"):
        out.talk(TASKS[fuser.task].format(ir=ir, vis=vis))
    if verbose:
        phases = ", ".join(f"{phase} {spent:.2f} s" for phase, spent in seconds.items())
        out.talk(f"{fuser.precision}, scan {fuser.scan_backend}; {phases}")


def _target(vis: str, output: str | None, format: str) -> Path | None:
    """Where the result goes; None is stdout."""
    from diffmf_cli.images.write import format_of

    if output == STREAM:
        return None
    if output is None:
        if vis == STREAM:
            raise UsageError("VIS is stdin, so OUT has no name: add -o OUT, or -o - for stdout")
        source = Path(vis)
        suffix = f".{format}"
        if format == "auto":
            suffix = source.suffix if source.suffix.lower() in (".tif", ".tiff") else ".png"
        stem = source.name[:-7] if source.name.lower().endswith(".nii.gz") else source.stem
        return source.with_name(f"{stem}_fused{suffix}")
    target = Path(output)
    if target.is_dir():
        raise UsageError(f"{output} is a folder: name a file in it")
    if format != "auto" and format_of(f".{format}") != format_of(target.suffix):
        raise UsageError(f"{output} is not named as --format {format}: change one of them")
    return target


def _check_not_an_input(target: Path, *inputs: str) -> None:
    for source in inputs:
        if source != STREAM and target.exists() and Path(source).exists() and target.samefile(source):
            raise UsageError(f"{target} is an input, which would be lost: choose another OUT")


def _stdin() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("- reads a picture from stdin, but nothing is piped into it")
    return sys.stdin.buffer.read()


def _panel(
    ir: "Image",
    vis: "np.ndarray",
    fused: "np.ndarray",
    span: "IntensityRange",
    transform: "Transform | None",
    outside: str,
    palette: str,
) -> "np.ndarray":
    """What the network saw of the two, and what it made of them."""
    import numpy as np

    from diffmf_cli.alignment.outside import place
    from diffmf_cli.images.color import luma
    from diffmf_cli.images.panel import colorize, compose_panel

    unit = span.apply(ir.pixels)
    grey = luma(unit) if unit.ndim == 3 else unit
    if transform is not None:
        # Not blended: a soft border would look cold.
        placed = place(grey, transform, "crop" if outside == "crop" else "blank")
        if outside == "crop":
            grey, vis = placed.ir, vis[placed.box]
        else:
            grey = placed.complete(placed.ir, np.zeros(vis.shape[:2], np.float32))
    low, high = span.limits(ir.pixels)
    degrees = f" {low:.1f} to {high:.1f} C" if ir.unit else ""
    return compose_panel([(f"IR{degrees}", colorize(grey, palette)), ("VIS", vis), ("fused", fused)])


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[phase] = perf_counter() - start
