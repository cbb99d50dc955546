"""A pair of picture files in, the bytes of the fused one out: what `fuse` and `batch` share."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from diffmf_cli.alignment.coordinates import between
from diffmf_cli.alignment.geometry import corners, project
from diffmf_cli.errors import ImageError, UsageError
from diffmf_cli.images.geotiff import Region, encode_geotiff, read_place
from diffmf_cli.images.range import IntensityRange, from_unit
from diffmf_cli.images.raw import RawLayout
from diffmf_cli.images.read import Image, load, read_image
from diffmf_cli.images.write import encode_image, format_of, losses

_MARGIN = 2  # pixels around what is needed of IR, for interpolation


def read_pair(
    ir: Path | bytes,
    vis: Path | bytes | None,
    names: tuple[str, str],
    raw: RawLayout | None = None,
    slice_number: int | None = None,
    window: tuple[float, float] | None = None,
) -> tuple[Image, Image]:
    """Reads an infrared and a visible picture; both may be one thermal file that holds the two.

    Args:
        ir: A path, or the bytes of a file.
        vis: The same; None for the visible picture within `ir`.
        names: What messages call the two.
        raw: How the pixels of an infrared file without a header lie.
        slice_number: Which slice of medical volumes, from 1 on; the middle one by default.
        window: Values of a medical `vis` that become black and white, instead of those that it asks for.

    Raises:
        ImageError: One cannot be read.
        UsageError: Both are the same picture, the visible one is missing, or it has no such slice or window.
    """
    contents = [source if isinstance(source, bytes) else load(source) for source in (ir, vis or ir)]
    first = read_image(contents[0], names[0], raw, slice_number)
    if vis is None and first.visible is None:
        raise UsageError(f"VIS is missing, and {names[0]} holds no visible picture: name one after IR")
    if contents[0] == contents[1] and first.visible is None:
        raise UsageError(f"IR {names[0]} and VIS {names[1]} are the same picture: give one of each kind")
    second = (
        first if contents[0] == contents[1] else read_image(contents[1], names[1], slice_number=slice_number)
    )
    if second.unit:
        if second.visible is None:
            raise UsageError(f"VIS {names[1]} holds temperatures and no visible picture: name one that does")
        second = replace(second, pixels=second.visible, unit="", name=names[1])
    if window is not None and second.window is None:
        raise UsageError(f"VIS {names[1]} has no window: leave --window out, or name a DICOM or NIfTI file")
    if second.window is not None:
        low, high = window or second.window
        span = IntensityRange("fixed", low, high)
        second = replace(second, pixels=from_unit(span.apply(second.pixels), np.uint16))
    return first, second


def parse_region(text: str) -> Region:
    """Reads `X,Y,WIDTH,HEIGHT` in pixels.

    Raises:
        UsageError: The text has another form, or the part has no pixels.
    """
    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.strip().isdecimal() for number in numbers):
        raise UsageError(f"region '{text}' is not understood: use X,Y,WIDTH,HEIGHT such as 2048,0,1024,768")
    left, top, width, height = map(int, numbers)
    if not width or not height:
        raise UsageError(f"region '{text}' has no pixels: give it a width and a height")
    return left, top, width, height


def read_region(ir: Path, vis: Path, region: Region) -> tuple[Image, Image]:
    """Reads a part of a GeoTIFF, and of another one what covers it; the rest stays on the disk.

    Args:
        ir: The infrared picture.
        vis: The visible picture.
        region: The part of `vis`.

    Raises:
        ImageError: One cannot be read, has no place, or they do not overlap in this part.
        UsageError: The part is not within `vis`.
    """
    found = []
    for path in (ir, vis):
        if not path.is_file():
            load(path)  # which says what is wrong with it
        try:
            found.append(read_place(path))
        except ImageError as error:
            raise ImageError(f"{path} {error}") from error.__cause__
    (ir_place, ir_size), (vis_place, vis_size) = found
    left, top, width, height = region
    if left + width > vis_size[0] or top + height > vis_size[1]:
        raise UsageError(
            f"region {left},{top},{width},{height} is not within {vis}, which is {vis_size[0]}x{vis_size[1]}"
        )
    names = (f"{ir}", f"region {left},{top},{width},{height} of {vis}")
    to_region = between(ir_place, vis_place.moved(top, left), ir_size, (width, height), names)
    around = project(np.linalg.inv(to_region.matrix), corners((width, height)))
    low = np.clip(np.floor(around.min(0)).astype(int) - _MARGIN, 0, np.array(ir_size) - 1)
    high = np.clip(np.ceil(around.max(0)).astype(int) + _MARGIN + 1, low + 1, ir_size)
    x, y, right, bottom = (int(side) for side in (*low, *high))
    return read_image(ir, region=(x, y, right - x, bottom - y)), read_image(vis, region=region)


def encode_fused(fused: np.ndarray, vis: Image, extension: str, quality: int) -> tuple[bytes, list[str]]:
    """The file of a fused picture, transparent and placed as the visible one, and what it cannot hold."""
    notices = losses(fused.dtype, vis.alpha is not None, extension)
    if vis.place is not None:
        if format_of(extension).name == "TIFF":
            return encode_geotiff(fused, vis.alpha, vis.place), notices
        notices.append(f"{format_of(extension).name} holds no georeference: write .tif to keep that of VIS")
    return encode_image(fused, vis.alpha, extension, quality), notices
