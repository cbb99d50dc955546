"""Picture files to arrays: depth kept, RGB order, upright, alpha apart.

Pillow reads what has 8 bits: it says what is wrong with a file, knows EXIF, palettes and CMYK, keeps the
colour under transparent pixels of a TIFF, and prints nothing. OpenCV reads 16-bit and float, which Pillow
does not, and ordinary PNG, which it decodes in one go.
"""

import io
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ExifTags, TiffImagePlugin

from diffmf_cli.errors import DiffmfError, ImageError, UsageError
from diffmf_cli.images import dji, geotiff
from diffmf_cli.images.dicom import is_dicom, read_dicom
from diffmf_cli.images.flir import is_flir, read_flir
from diffmf_cli.images.nifti import is_nifti, read_nifti
from diffmf_cli.images.opencv import cv2
from diffmf_cli.images.raw import RawLayout

# Pillow warns about odd metadata and about pictures above 89 megapixels; neither is a fault of the pixels.
warnings.filterwarnings("ignore", module=r"PIL\.")

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"
SIGNATURES = {
    PNG_SIGNATURE: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
    b"BM": "BMP",
}
READABLE = "PNG, JPEG, TIFF, WebP, BMP, DICOM and NIfTI are read"


@dataclass(frozen=True, eq=False)
class Image:
    """A picture in memory.

    Attributes:
        pixels: `(H, W)` grey or `(H, W, 3)` RGB; uint8 or uint16 over their full range, or float32 as in the
            file.
        alpha: `(H, W)` of the same dtype, or None for a picture without transparency.
        name: What messages call this picture: its path, or `stdin`.
        notes: Sentences worth showing to the user, such as that only the first page was read.
        unit: `C` where pixels are degrees Celsius, else empty.
        visible: `(h, w, 3)` uint8 RGB that a thermal camera took of the same scene and keeps in the file.
        place: Where on Earth a GeoTIFF lies.
        window: The values that a medical picture is to show as black and white.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    name: str
    notes: tuple[str, ...] = ()
    unit: str = ""
    visible: np.ndarray | None = None
    place: geotiff.Georeference | None = None
    window: tuple[float, float] | None = None

    def part(self, rows: slice, columns: slice) -> "Image":
        """A rectangle of the picture, with its transparency and its place."""
        alpha = None if self.alpha is None else self.alpha[rows, columns]
        place = self.place and self.place.moved(rows.start or 0, columns.start or 0)
        return replace(self, pixels=self.pixels[rows, columns], alpha=alpha, place=place)


def read_image(
    source: Path | bytes,
    name: str | None = None,
    raw: RawLayout | None = None,
    slice_number: int | None = None,
    region: geotiff.Region | None = None,
) -> Image:
    """Reads a PNG, JPEG, TIFF, WebP or BMP picture by its content, whatever its extension says.

    Radiometric JPEGs of FLIR and DJI give temperatures, not the picture that the camera rendered of them.
    DICOM and NIfTI give one slice.

    EXIF orientation is applied. Integers of more or fewer bits than uint8 and uint16 hold, and float64,
    become float32. Of several pages or frames the first is read, with a note.

    Args:
        source: A path, or the bytes of a file.
        name: What messages call the picture; the path, or `stdin` for bytes, by default.
        raw: How the pixels of a file without a header lie; without it, files have headers.
        slice_number: Which slice of a medical volume, from 1 on; the middle one by default.
        region: Which part of a GeoTIFF at a path; all of it by default.

    Returns:
        The picture, with the depth of the file.

    Raises:
        ImageError: The file is missing, not readable, not a picture, damaged, truncated or without pixels, or
            holds NaN or infinity.
        UsageError: There is no such slice.
    """
    name = name or ("stdin" if isinstance(source, bytes) else str(source))
    if region is not None and not isinstance(source, bytes):  # a part of a file is not worth loading all
        try:
            return _read_geotiff(source, name, region)
        except ImageError as error:
            raise ImageError(f"{name} {error}") from error.__cause__
    data = source if isinstance(source, bytes) else load(source)
    if raw is not None:
        return Image(raw.read(data, name), None, name)
    if is_dicom(data) or is_nifti(data):
        return _read_medical(data, name, slice_number)
    if slice_number is not None:
        raise UsageError(f"{name} has no slices: leave --slice out, or name a DICOM or NIfTI file")
    kind = _kind(data, name)
    try:
        if kind == "JPEG" and is_flir(data):
            celsius, visible = read_flir(data)
            return Image(celsius, None, name, unit="C", visible=visible)
        told: tuple[str, ...] = ()
        if kind == "JPEG" and dji.is_dji(data):
            measured, told = dji.read_dji(data)
            if measured is not None:
                return Image(measured, None, name, unit="C")
        is_geotiff = kind == "TIFF" and not geotiff.TAGS.isdisjoint(_tiff_tags(data))
        if is_geotiff and geotiff.is_available():
            return _read_geotiff(data, name)
        pixels, pages = _DECODERS[kind](data)
    except ImageError as error:
        raise ImageError(f"{name} {error}") from None
    except PIL.Image.DecompressionBombError:
        limit = 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise ImageError(f"{name} has more than {limit} megapixels: cut it into smaller pictures") from None
    except Exception as error:  # decoders raise all sorts of things on damaged bytes
        known = isinstance(error, PIL.UnidentifiedImageError) or not str(error)
        reason = "" if known else f" ({' '.join(str(error).split())[:100]})"
        raise ImageError(
            f"{name} is a truncated or damaged {kind}{reason}: copy or export it again"
        ) from error

    if pixels.dtype.kind == "f" and (bad := int(np.count_nonzero(~np.isfinite(pixels)))):
        raise ImageError(f"{name} holds {bad} NaN or infinite values: replace them by finite ones")
    notes = (f"{name} holds more than one picture: the first is read",) if pages > 1 else ()
    if is_geotiff:
        notes = (*notes, f"{name} {geotiff.WITHOUT_RASTERIO}")
    return _split(pixels, name, (*notes, *(f"{name} {note}" for note in told)))


def _read_geotiff(source: Path | bytes, name: str, region: geotiff.Region | None = None) -> Image:
    pixels, alpha, place, notes = geotiff.read_geotiff(source, region)
    return Image(pixels, alpha, name, tuple(f"{name} {note}" for note in notes), place=place)


def _read_medical(data: bytes, name: str, slice_number: int | None) -> Image:
    read = read_dicom if is_dicom(data) else read_nifti
    try:
        pixels, window, notes = read(data, slice_number)
    except DiffmfError as error:
        raise type(error)(f"{name} {error}") from error.__cause__
    return Image(pixels, None, name, tuple(f"{name} {note}" for note in notes), window=window)


def load(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        ImageError: It is missing, a folder, or not readable.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist: check the path") from None
    except IsADirectoryError:
        raise ImageError(f"{path} is a folder: name one picture in it") from None
    except PermissionError:
        raise ImageError(f"{path} may not be read by this user: check its permissions") from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror or error}): check the path") from None


def _kind(data: bytes, name: str) -> str:
    """The Pillow name of the format that the first bytes tell."""
    if not data:
        raise ImageError(f"{name} is empty (0 bytes): copy or export it again")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    for signature, kind in SIGNATURES.items():
        if data.startswith(signature):
            return kind
    other = {b"GIF8": "a GIF", b"\0\0\0\x0cjP": "a JPEG 2000", b"%PDF": "a PDF", b"v/1\x01": "an OpenEXR"}
    found = next((what for start, what in other.items() if data.startswith(start)), None)
    if data[4:8] == b"ftyp":
        found = "a HEIC, AVIF or video file"
    if found:
        raise ImageError(f"{name} is {found}, which is not read: convert it to PNG ({READABLE})")
    raise ImageError(f"{name} is not a picture, whatever its extension says: {READABLE}, else see --raw")


def _decode_pillow(data: bytes, kind: str) -> tuple[np.ndarray, int]:
    """8-bit `(H, W)` or `(H, W, 1..4)` pixels, upright, and the number of frames."""
    with PIL.Image.open(io.BytesIO(data), formats=[kind]) as picture:
        picture.load()
        mode = "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
        mode += "A" if picture.has_transparency_data else ""
        pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
        # The second picture in a camera's JPEG is a preview, not a frame.
        frames = 1 if kind == "JPEG" else getattr(picture, "n_frames", 1)
        return _upright(pixels, _orientation(picture.getexif)), frames


def _decode_png(data: bytes) -> tuple[np.ndarray, int]:
    with PIL.Image.open(io.BytesIO(data), formats=["PNG"]):
        pass  # its header is right, and it is not too large
    if PNG_END not in data:
        raise ValueError("its end is missing")
    pixels, exif, kinds = _png_parts(data)
    bits, colour_type = data[24], data[25]  # at a fixed place in the header
    plain = bits == 8 and colour_type in (0, 2, 6) and kinds.isdisjoint((b"tRNS", b"acTL"))
    if bits <= 8 and not plain:  # palettes, a few bits, a transparent colour, an animation
        return _decode_pillow(data, "PNG")
    # Pillow would go chunk by chunk, and among many threads wait for the interpreter each time.
    return _upright(_decode_opencv(pixels), _orientation(lambda: _parse_exif(exif))), 1


def _tiff_tags(data: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    """The directory of the first page."""
    big = data[2:4] in (b"+\0", b"\0+")
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if big else 8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    return tags


def _decode_tiff(data: bytes) -> tuple[np.ndarray, int]:
    tags = _tiff_tags(data)
    pages = 2 if tags.next else 1
    channels = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
    bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if channels > 4:
        raise ImageError(f"is a TIFF of {channels} channels: save the one, three or four to be used")

    pixels = _decode_opencv(data)
    if bits <= 8:
        # OpenCV multiplies alpha into 8-bit colour. It still comes first, because the TIFF library inside
        # Pillow prints to stderr when a file is damaged.
        return _decode_pillow(data, "TIFF")[0], pages
    if channels == 2:  # read by OpenCV as 8 bits without alpha
        raise ImageError(
            f"is a {bits}-bit grey TIFF with alpha, which is not read: save it as PNG or without alpha"
        )
    if channels > 1 and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2:  # read by OpenCV as grey
        raise ImageError(
            f"is a {bits}-bit TIFF with one plane per colour, which is not read: save it interleaved"
        )
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 and pixels.dtype == np.uint16:
        pixels = 65535 - pixels  # 0 is white
    return pixels, pages  # OpenCV applies the orientation of a TIFF, and of nothing else


def _decode_opencv(data: bytes) -> np.ndarray:
    """`(H, W)`, `(H, W, 3)` or `(H, W, 4)` pixels in RGB order: uint8, uint16 or float32."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    return pixels if pixels.dtype in (np.uint8, np.uint16) else pixels.astype(np.float32, copy=False)


def _png_parts(data: bytes) -> tuple[bytes, bytes, set[bytes]]:
    """The PNG without metadata, about which OpenCV's PNG library prints to stderr; EXIF; all kinds of parts.

    Raises:
        ValueError: if a checksum is wrong, about which that library would print too.
    """
    kept, exif, kinds, start = [PNG_SIGNATURE], b"", set(), len(PNG_SIGNATURE)
    whole = memoryview(data)
    while start < len(data) and b"IEND" not in kinds:
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        kind = data[start + 4 : start + 8]
        if _checksum(whole[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError(f"a checksum is wrong, of its {kind.decode('ascii', 'replace')}")
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(data[start:end])
        elif kind == b"eXIf":
            exif = data[start + 8 : end - 4]
        kinds.add(kind)
        start = end
    return b"".join(kept), exif, kinds


def _checksum(part: memoryview) -> int:
    """CRC-32, in pieces for which zlib keeps the interpreter: see `_decode_png`."""
    found = 0
    for start in range(0, len(part), 4096):
        found = zlib.crc32(part[start : start + 4096], found)
    return found


def _parse_exif(data: bytes) -> PIL.Image.Exif:
    tags = PIL.Image.Exif()
    tags.load(data)
    return tags


def _orientation(tags: Callable[[], PIL.Image.Exif]) -> int:
    """The EXIF orientation 1 to 8; 1 where there is none."""
    try:
        return int(tags().get(ExifTags.Base.Orientation, 1))
    except Exception:  # unreadable metadata; the pixels are still good
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation (CIPA DC-008, tag 0x0112), as a view."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _split(pixels: np.ndarray, name: str, notes: tuple[str, ...]) -> Image:
    """Takes alpha, the last of 2 or 4 channels, apart."""
    alpha = None
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        alpha = np.ascontiguousarray(pixels[:, :, -1])
        pixels = pixels[:, :, 0] if pixels.shape[2] == 2 else pixels[:, :, :3]
    return Image(np.ascontiguousarray(pixels), alpha, name, notes)


_DECODERS = {
    "PNG": _decode_png,
    "TIFF": _decode_tiff,
    "JPEG": lambda data: _decode_pillow(data, "JPEG"),
    "WEBP": lambda data: _decode_pillow(data, "WEBP"),
    "BMP": lambda data: _decode_pillow(data, "BMP"),
}
