"""The ratio of two fields of view from what cameras write into their files."""

import io
from pathlib import Path

import PIL.Image
from PIL import ExifTags

from diffmf_cli.alignment.estimate import LARGEST_RATIO, SMALLEST_RATIO


def fov_ratio(ir: Path | bytes, vis: Path | bytes) -> float | None:
    """Width of the infrared view over that of the visible one, by EXIF.

    None where a file does not tell, or tells nonsense.

    Args:
        ir: a path, or the bytes of a file.
        vis: the same.
    """
    widths = [_view_width(source) for source in (ir, vis)]
    if not (widths[0] and widths[1]):
        return None
    ratio = widths[0] / widths[1]
    return ratio if SMALLEST_RATIO <= ratio <= LARGEST_RATIO else None


def _view_width(source: Path | bytes) -> float | None:
    """Width of the view at a distance of 1: sensor width over focal length."""
    try:
        with PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            tags = picture.getexif().get_ifd(ExifTags.IFD.Exif)
            width = picture.width
        equivalent = float(tags.get(ExifTags.Base.FocalLengthIn35mmFilm, 0))
        if equivalent > 0:
            return 36 / equivalent
        focal = float(tags.get(ExifTags.Base.FocalLength, 0))
        resolution = float(tags.get(ExifTags.Base.FocalPlaneXResolution, 0))
        unit = {2: 25.4, 3: 10.0}.get(tags.get(ExifTags.Base.FocalPlaneResolutionUnit, 2), 25.4)
        return width / resolution * unit / focal if focal > 0 and resolution > 0 else None
    except Exception:  # unreadable metadata; the pixels may still be good
        return None
