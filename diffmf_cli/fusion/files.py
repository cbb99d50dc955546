"""A pair of picture files in, the bytes of the fused one out: what `fuse` and `batch` share."""

from pathlib import Path

import numpy as np

from diffmf_cli.errors import UsageError
from diffmf_cli.images.read import Image, load, read_image
from diffmf_cli.images.write import encode_image, losses


def read_pair(ir: Path | bytes, vis: Path | bytes, names: tuple[str, str]) -> tuple[Image, Image]:
    """Reads an infrared and a visible picture.

    Args:
        ir: A path, or the bytes of a file.
        vis: The same.
        names: What messages call the two.

    Raises:
        ImageError: One cannot be read.
        UsageError: Both are the same picture.
    """
    contents = [source if isinstance(source, bytes) else load(source) for source in (ir, vis)]
    if contents[0] == contents[1] and contents[0]:
        raise UsageError(f"IR {names[0]} and VIS {names[1]} are the same picture: give one of each kind")
    first, second = (read_image(data, name) for data, name in zip(contents, names, strict=True))
    return first, second


def encode_fused(fused: np.ndarray, vis: Image, extension: str, quality: int) -> tuple[bytes, list[str]]:
    """The file of a fused picture, with the transparency of the visible one, and what it cannot hold."""
    notices = losses(fused.dtype, vis.alpha is not None, extension)
    return encode_image(fused, vis.alpha, extension, quality), notices
