"""What `--align` means for one pair: nothing, an estimate, or a saved transform."""

from difflib import get_close_matches
from pathlib import Path

import numpy as np

from diffmf_cli.alignment.estimate import Estimate, check_ratio, estimate
from diffmf_cli.alignment.outside import OUTSIDE
from diffmf_cli.alignment.transform import Transform, read_transform
from diffmf_cli.errors import UsageError, check_choice
from diffmf_cli.images import color
from diffmf_cli.images.range import IntensityRange, to_unit

NONE, AUTO, GEO = "none", "auto", "geo"


def parse_align(align: str, fov_ratio: float | None = None, outside: str = "vis") -> Transform | str:
    """Checks the value of `--align`, and of what belongs to it, before any picture is read.

    Args:
        align: `none`, `auto`, `geo`, or the path of a saved transform.
        fov_ratio: value of `--fov-ratio`.
        outside: value of `--outside`.

    Returns:
        The saved transform, or the word.

    Raises:
        UsageError: The file cannot be used, or another value is unknown, out of range or of no use.
    """
    check_choice("outside", outside, OUTSIDE)
    if outside != "vis" and align == NONE:
        raise UsageError(f"--outside {outside} is for an aligned IR: add --align, or leave it out")
    check_ratio(fov_ratio)
    if fov_ratio is not None and align != AUTO:
        raise UsageError(f"--fov-ratio {fov_ratio:g} helps --align auto only: add that, or leave it out")
    if align in (NONE, AUTO, GEO):
        return align
    path = Path(align)
    if not path.suffix and not path.exists():
        guess = get_close_matches(align.lower(), (NONE, AUTO, GEO), n=1)
        hint = f"did you mean '{guess[0]}'?" if guess else "use none, auto, geo or a FILE.json"
        raise UsageError(f"unknown alignment '{align}': {hint}")
    return read_transform(path)


def choose(
    align: Transform | str,
    ir: np.ndarray,
    vis: np.ndarray,
    *,
    fov_ratio: float | None = None,
    ir_range: IntensityRange | None = None,
    name: str = "the alignment",
) -> tuple[Transform | None, str]:
    """The transform to apply to a pair.

    Args:
        align: what `parse_align` returned.
        ir: `(H, W)`, `(H, W, 1)` or `(H, W, 3)`; uint8, uint16 or float.
        vis: the same forms; floats in [0, 1].
        fov_ratio: see `estimate`.
        ir_range: which infrared values become black and white.
        name: what messages call a saved transform.

    Returns:
        The transform, or None for a pair that stays as it is; and then why, where it was to be estimated.

    Raises:
        UsageError: A saved transform is for other sizes, or `geo` is asked of pictures without coordinates.
    """
    if isinstance(align, Transform):
        align.check_sizes(ir.shape[1::-1], vis.shape[1::-1], name)
        return align, ""
    if align == NONE:
        return None, ""
    if align == GEO:  # whoever reads files makes a transform of it
        raise UsageError("pixels alone have no place on Earth: --align geo is for GeoTIFFs in fuse and batch")
    result = estimate_pair(ir, vis, fov_ratio, ir_range)
    why = f"not aligned, IR and VIS are used as they are: {result.reason}" if result.reason else ""
    return result.transform, why


def estimate_pair(
    ir: np.ndarray, vis: np.ndarray, fov_ratio: float | None = None, ir_range: IntensityRange | None = None
) -> Estimate:
    """`estimate` for pictures as they are read; the arguments of `choose`."""
    return estimate(*greys(ir, vis, ir_range), fov_ratio)


def greys(
    ir: np.ndarray, vis: np.ndarray, ir_range: IntensityRange | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A pair as `estimate` takes it, `(H, W)` float32 in [0, 1] each; the arguments of `choose`."""
    return _luma((ir_range or IntensityRange()).apply(ir)), _luma(to_unit(vis))


def _luma(unit: np.ndarray) -> np.ndarray:
    if unit.ndim == 3:
        unit = color.luma(unit) if unit.shape[2] == 3 else unit[:, :, 0]
    return np.ascontiguousarray(unit)
