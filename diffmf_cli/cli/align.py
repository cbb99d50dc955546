"""`diffmf align`: one alignment for a fixed pair of cameras."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffmf_cli.cli import options
from diffmf_cli.cli.output import out
from diffmf_cli.errors import DiffmfError, ImageError, UsageError
from diffmf_cli.threads import limit_threads

if TYPE_CHECKING:
    import numpy as np

    from diffmf_cli.alignment.transform import Transform
    from diffmf_cli.images.pairs import Pair
    from diffmf_cli.images.range import IntensityRange

log = logging.getLogger(__name__)

HELP = """
Find how the infrared camera of a rig sees, from many pairs at once.

[bold]Examples[/bold]

  diffmf align ir/ vis/ -o rig.json               twenty pairs of different scenes do
  diffmf fuse ir.png vis.png --align rig.json     then every pair of this rig
  diffmf align ir/ vis/ -o rig.json --fov-ratio 0.4     a narrow thermal view in a wide visible one

[dim]The cameras must not move against each other. What is near is seen from two sides and fits less.[/dim]
"""
_FILES = "Files"


def align(
    ir: Annotated[Path, typer.Argument(metavar="IR_DIR", help="Infrared pictures of one size.")],
    vis: Annotated[Path, typer.Argument(metavar="VIS_DIR", help="Visible pictures of one size.")],
    output: Annotated[
        Path, options.option("--output", "-o", metavar="FILE.json", help="The alignment.", panel=_FILES)
    ],
    pair_by: Annotated[
        str | None,
        options.option(
            "--pair-by",
            metavar="REGEX",
            help="Pair by a named group, such as '(?P<id>[0-9]+)', not by name.",
            panel=_FILES,
        ),
    ] = None,
    most: Annotated[
        int,
        options.option("--most", metavar="N", min=2, help="Pairs used, evenly over all.", panel=_FILES),
    ] = 100,
    fov_ratio: options.FovRatioOption = None,
    ir_range: options.IrRangeOption = "auto",
    threads: options.ThreadsOption = None,
    overwrite: options.OverwriteOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Estimates each pair and writes what they agree on; the help text is `HELP`."""
    out.configure(json=json, quiet=quiet, verbose=verbose)
    limit_threads(threads)
    with out.status("Reading folders") as doing:
        from diffmf_cli.alignment.choice import estimate_pair, greys
        from diffmf_cli.alignment.estimate import check_ratio
        from diffmf_cli.alignment.rig import consensus, fit_together
        from diffmf_cli.images.pairs import pair_folders
        from diffmf_cli.images.range import IntensityRange
        from diffmf_cli.images.write import check_place, write_atomically

        check_ratio(fov_ratio)
        span = IntensityRange.parse(ir_range)
        check_place(output, overwrite)
        pairing = pair_folders(ir, vis, pair_by=pair_by)
        pairs = pairing.pairs
        if len(pairs) < 2:
            raise UsageError(f"{ir} and {vis} hold {len(pairs)} pairs of equal names: at least 2 are needed")
        if len(pairs) > most:
            pairs = [pairs[i * len(pairs) // most] for i in range(most)]
        aligned: list[Pair] = []
        found: list[Transform] = []
        sizes = None
        for number, pair in enumerate(pairs, 1):
            doing(f"Aligning {number} of {len(pairs)}")
            try:
                pixels = _read(pair, span)
            except ImageError as error:
                log.warning("left out: %s", error)
                continue
            size = pixels[0].shape[1::-1], pixels[1].shape[1::-1]
            sizes = sizes or size
            if size != sizes:
                raise UsageError(
                    f"{pair.ir} and {pair.vis} are of {_words(size)}, those before of {_words(sizes)}: "
                    "a rig has one size for each camera"
                )
            result = estimate_pair(*pixels, fov_ratio, span)
            if result.found is None:
                log.warning("left out: %s: %s", pair.key, result.reason)
            else:
                aligned.append(pair)
                found.append(result.found)
        if not found:
            raise DiffmfError(f"none of {len(pairs)} pairs could be aligned: give pairs with edges in both")
        rig, members = consensus(found)
        doing(f"Fitting {len(members)} pairs together")
        agreeing = [aligned[i] for i in members]
        rig = fit_together(rig, lambda: (greys(*_read(pair, span), span) for pair in agreeing))
        write_atomically(output, rig.to_json(pairs=len(agreeing)), overwrite)
    out.record(
        {
            "type": "alignment",
            "output": str(output),
            **rig.facts(),
            "pairs": len(pairs),
            "found": len(found),
            "agreeing": len(agreeing),
            "notices": out.notices,
        }
    )
    out.talk(f"{output}: {len(agreeing)} of {len(pairs)} pairs agree, {rig.model}, score {rig.score:.2f}")


def _read(pair: "Pair", span: "IntensityRange") -> tuple["np.ndarray", "np.ndarray"]:
    from diffmf_cli.fusion.files import read_pair

    first, second = read_pair(pair.ir, pair.vis, (str(pair.ir), str(pair.vis)))
    span.check_unit(first.unit, first.name)
    return first.pixels, second.pixels


def _words(sizes: tuple[tuple[int, int], tuple[int, int]]) -> str:
    return " and ".join(f"{width}x{height}" for width, height in sizes)
