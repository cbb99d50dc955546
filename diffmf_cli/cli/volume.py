"""`diffmf volume`: the slices of two medical volumes, into one that lies where the second does."""

import logging
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from diffmf_cli.cli import options
from diffmf_cli.cli.output import exit_at_once_on_interrupt, out
from diffmf_cli.errors import DiffmfError, ImageError, UsageError, check_choice

log = logging.getLogger(__name__)

HELP = """
Fuse the slices of two NIfTI volumes of one grid.

[bold]Examples[/bold]

  diffmf volume mri.nii.gz ct.nii.gz -o fused.nii.gz                 all slices
  diffmf volume mri.nii.gz ct.nii.gz -o fused.nii.gz --slices 40-60 --window 40,80
  diffmf fuse mri.nii.gz ct.nii.gz -m medical --slice 50 -o 50.png   one slice as a picture

[dim]The volumes must be registered. The result has the place and the size of voxels of the second.[/dim]
"""
_VOLUME = "Volume"


def volume(
    mri: Annotated[Path, typer.Argument(metavar="MRI", help="The volume that gives structure.")],
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="CT, PET or SPECT on the same grid.")],
    output: Annotated[
        Path, options.option("--output", "-o", metavar="FILE.nii[.gz]", help="The result.", panel=_VOLUME)
    ],
    slices: Annotated[
        str,
        options.option(
            "--slices", metavar="all|FIRST-LAST", help="Which ones, from the feet on, from 1.", panel=_VOLUME
        ),
    ] = "all",
    window: Annotated[
        str | None,
        options.option(
            "--window",
            metavar="CENTER,WIDTH",
            help="Display window of OTHER, instead of that of its header; 40,80 is brain in CT.",
            panel=_VOLUME,
        ),
    ] = None,
    ir_range: Annotated[
        str,
        options.option(
            "--ir-range",
            metavar="auto|percentile:P,Q|LO,HI",
            help="Which values of MRI become black and white, one range for all slices.",
            panel=_VOLUME,
        ),
    ] = "auto",
    depth: Annotated[
        str, options.option("--depth", metavar="8|16", help="Bits a voxel of the result.", panel=_VOLUME)
    ] = "16",
    overwrite: Annotated[
        bool, options.flag("--overwrite", help="Replace an existing FILE.", panel=_VOLUME)
    ] = False,
    model: options.ModelOption = "medical",
    task: options.TaskOption = "auto",
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "auto",
    scan_backend: options.ScanBackendOption = "auto",
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Fuses slice by slice; the help text is `HELP`."""
    out.configure(json=json, quiet=quiet, verbose=verbose)
    started = perf_counter()
    check_choice("depth", depth, ("8", "16"))
    if not output.name.lower().endswith((".nii", ".nii.gz")):
        raise UsageError(f"{output} is no NIfTI file by its name: write .nii or .nii.gz")
    with out.status("Reading volumes"):
        import numpy as np

        from diffmf_cli.fusion.fuser import check_settings
        from diffmf_cli.images.dicom import parse_window
        from diffmf_cli.images.nifti import encode_nifti, is_nifti, read_volume
        from diffmf_cli.images.range import IntensityRange
        from diffmf_cli.images.read import load
        from diffmf_cli.images.volume import parse_slices
        from diffmf_cli.images.write import check_place, write_atomically
        from diffmf_cli.model.catalogue import check_task, find_weights

        check_settings(device=device, precision=precision, scan_backend=scan_backend, ir_range=ir_range)
        wanted = parse_slices(slices)
        limits = None if window is None else parse_window(window)
        check_place(output, overwrite)
        check_task(model, find_weights(model), task)
        volumes = []
        for path in (mri, other):
            data = load(path)
            if not is_nifti(data):
                raise ImageError(f"{path} is no NIfTI file: diffmf fuse takes pictures and DICOM files")
            try:
                volumes.append(read_volume(data))
            except ImageError as error:
                raise ImageError(f"{path} {error}") from error.__cause__
        first, second = volumes
        if first.slices.shape != second.slices.shape:
            sizes = " and ".join("x".join(map(str, one.slices.shape[::-1])) for one in volumes)
            raise UsageError(
                f"{mri} and {other} are of {sizes} voxels: resample one to the grid of the other"
            )
        count = len(second.slices)
        start, end = wanted or (1, count)
        if end > count:
            raise UsageError(f"{other} has no slice {end}: it has {count}, give --slices within 1-{count}")
        if not np.allclose(first.affine, second.affine, atol=0.1):
            log.warning(f"{mri} and {other} lie at different places by their headers: are they registered?")
        part = slice(start - 1, end)
        # One range for all, as of one tall picture: each slice by itself would flicker.
        low, high = IntensityRange.parse(ir_range).limits(np.concatenate(first.slices[part]))
        spans = IntensityRange("fixed", low, high), IntensityRange("fixed", *(limits or second.window))
        given, others = (span.apply(one.slices[part]) for span, one in zip(spans, volumes, strict=True))

    with exit_at_once_on_interrupt(), out.status("Loading the model") as doing:
        from diffmf_cli import load_model

        fuser = load_model(model, device=device, precision=precision, scan_backend=scan_backend, task=task)
        results = []
        for index, (ir, vis) in enumerate(zip(given, others, strict=True), start):
            doing(f"Fusing slice {index}, to {end}")
            try:
                results.append(fuser.fuse(ir, vis, ir_range="0,1", dtype=f"uint{depth}"))
            except DiffmfError as error:
                raise type(error)(f"slice {index}: {error}") from error
    packed = output.name.lower().endswith(".gz")
    write_atomically(output, encode_nifti(np.stack(results), second, start - 1, packed), overwrite)
    height, width = results[0].shape
    out.record(
        {
            "type": "volume",
            "ir": str(mri),
            "vis": str(other),
            "output": str(output),
            "slices": [start, end],
            "width": width,
            "height": height,
            "dtype": f"uint{depth}",
            "model": fuser.name,
            "task": fuser.task,
            "device": fuser.device,
            "seconds": round(perf_counter() - started, 3),
            "notices": out.notices,
        }
    )
    out.talk(f"{output}: {len(results)} slices of {width}x{height}, {fuser.name} on {fuser.device}")
