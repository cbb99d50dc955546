"""Arrays to picture files, whole or not at all."""

import difflib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffmf_cli.errors import ImageError, UsageError
from diffmf_cli.images.opencv import cv2
from diffmf_cli.images.range import from_unit, to_unit


@dataclass(frozen=True)
class Format:
    """What a file format holds.

    Attributes:
        name: For messages.
        dtypes: Pixel types, the deepest last.
        alpha: Whether it holds transparency.
        side: Most pixels in height or width.
    """

    name: str
    dtypes: tuple[type, ...]
    alpha: bool
    side: int


_PNG = Format("PNG", (np.uint8, np.uint16), True, 10**6)
_JPEG = Format("JPEG", (np.uint8,), False, 65500)
_TIFF = Format("TIFF", (np.uint8, np.uint16, np.float32), True, 10**6)
_WEBP = Format("WebP", (np.uint8,), True, 16383)
FORMATS = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".webp": _WEBP,
}


def format_of(extension: str) -> Format:
    """The format that an extension such as `.png` names, in either case.

    Raises:
        UsageError: None does.
    """
    try:
        return FORMATS[extension.lower()]
    except KeyError:
        close = difflib.get_close_matches(extension.lower(), FORMATS, n=1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        what = f"extension '{extension}'" if extension else "a name without extension"
        raise UsageError(f"{what} names no picture format{hint}: use {', '.join(FORMATS)}") from None


def losses(dtype: np.typing.DTypeLike, has_alpha: bool, extension: str) -> list[str]:
    """What a format cannot hold of a picture and `encode_image` drops: sentences for the user."""
    source, target = np.dtype(dtype), format_of(extension)
    stored = _stored_dtype(source, target)
    found = []
    if stored != source:
        kind = "float" if source.kind == "f" else f"{8 * source.itemsize}-bit"
        found.append(f"{target.name} holds no {kind} pixels: written with {8 * stored.itemsize} bits")
    if has_alpha and not target.alpha:
        found.append(f"{target.name} holds no transparency: alpha is left out")
    return found


def encode_image(pixels: np.ndarray, alpha: np.ndarray | None, extension: str, quality: int = 95) -> bytes:
    """Encodes a picture, in the deepest pixel type up to its own that the format holds.

    Args:
        pixels: `(H, W)` grey or `(H, W, 3)` RGB; uint8, uint16, or float32 (in [0, 1] where it is not written
            as TIFF).
        alpha: `(H, W)` of any of these types, or None. Dropped by JPEG.
        extension: `.png`, `.jpg`, `.jpeg`, `.tif`, `.tiff` or `.webp`.
        quality: 1 to 100, of JPEG and WebP; WebP is lossless at 100. Nothing else is lossy.

    Returns:
        The bytes of the file.

    Raises:
        UsageError: Unknown extension, or quality out of range.
        ImageError: The picture is too large for the format, or its type cannot be converted.
    """
    target = format_of(extension)
    if not 1 <= quality <= 100:
        raise UsageError(f"quality {quality} is out of range: use 1 to 100")
    height, width = pixels.shape[:2]
    if max(height, width) > target.side:
        raise ImageError(
            f"{width}x{height} is too large for {target.name} ({target.side} a side): write PNG or TIFF"
        )

    dtype = _stored_dtype(pixels.dtype, target)
    channels = _convert(pixels, dtype)
    if alpha is not None and target.alpha:
        opacity = _convert(alpha, dtype)
        grey = channels.ndim == 2
        red, green, blue = (channels,) * 3 if grey else cv2.split(channels)
        channels = cv2.merge([blue, green, red, opacity])
    elif channels.ndim == 3:
        channels = cv2.cvtColor(channels, cv2.COLOR_RGB2BGR)

    options = {
        # OpenCV 4 would store float colour in the lossy LogLuv otherwise.
        "TIFF": [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_LZW],
        "JPEG": [cv2.IMWRITE_JPEG_QUALITY, quality],
        # Above 100 means lossless to OpenCV; its 100 is the largest lossy file.
        "WebP": [cv2.IMWRITE_WEBP_QUALITY, 101 if quality == 100 else quality],
    }
    done, data = cv2.imencode(extension.lower(), channels, options.get(target.name, []))
    if not done:
        raise ImageError(
            f"{width}x{height} {dtype} pixels cannot be written as {target.name}: write PNG or TIFF"
        )
    return data.tobytes()


def check_writable(path: Path, overwrite: bool) -> None:
    """Finds out before slow work whether `write_atomically` can succeed; writes nothing.

    Raises:
        UsageError: The extension names no format.
        ImageError: The file exists and may not be overwritten, is no regular file, or its folder is not
            writable.
    """
    format_of(path.suffix)
    check_place(path, overwrite)


def check_place(path: Path, overwrite: bool) -> None:
    """`check_writable` for a file that is no picture."""
    target = _target(path, overwrite)
    folder = target.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise ImageError(f"{path} cannot be written: {folder} is a file, not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ImageError(f"{path} cannot be written: no permission in folder {folder}")


def write_atomically(path: Path, data: bytes, overwrite: bool) -> None:
    """Writes a file that appears under its name only when it is whole: see `placed_atomically`.

    Raises:
        ImageError: The file exists and may not be overwritten, or the system refuses to write; no
            file is left then.
    """
    with placed_atomically(path, overwrite, size=len(data)) as temporary, open(temporary, "xb") as file:
        file.write(data)


@contextmanager
def placed_atomically(
    path: Path, overwrite: bool, *, size: int | None = None, extension: str = ""
) -> Iterator[Path]:
    """Yields a temporary name; the file that is made there gets the name `path` at the end.

    Where the block fails, or is interrupted, the temporary file goes and `path` stays as it was. Missing
    parent folders are made. A symbolic link is followed, as by a shell redirection: the file it points to is
    replaced, the link stays. A replaced file keeps its permissions, a new one gets those of the umask.

    Args:
        path: The file.
        overwrite: Replace it where it exists.
        size: Bytes to be written, for messages.
        extension: End of the temporary name, for writers that go by it.

    Raises:
        ImageError: The file exists and may not be overwritten, or the system refuses to write.
    """
    target = _target(path, overwrite)
    # In the same folder, because a rename does not cross file systems.
    temporary = target.parent / f".diffmf-{secrets.token_hex(6)}.tmp{extension}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
        except BaseException:  # Ctrl-C too
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {_reason(error, target.parent, size)}") from error


def _target(path: Path, overwrite: bool) -> Path:
    """The file behind a link, checked for what stands there already."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise ImageError(f"{path} is a folder: name a file in it")
    if target.exists() and not target.is_file():
        raise ImageError(f"{path} is a device or pipe: name a file, or - for the standard output")
    if target.exists() and not overwrite:
        raise ImageError(f"{path} exists: choose another name, or --overwrite")
    return target


def _reason(error: OSError, folder: Path, size: int | None) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        much = "" if size is None else f" for {size / 1e6:.1f} MB"
        return f"no space left{much} in {folder}, make room or choose another folder"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission in folder {folder}"
    return f"{error.strerror or error} ({folder})"


def _stored_dtype(dtype: np.dtype, target: Format) -> np.dtype:
    """The type itself where the format holds it, else the deepest that it holds."""
    return dtype if dtype in target.dtypes else np.dtype(target.dtypes[-1])


def _convert(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return pixels if pixels.dtype == dtype else from_unit(to_unit(pixels), dtype)
