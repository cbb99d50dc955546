"""GeoTIFF: pixels, what is valid of them, and where on Earth they lie; rasterio does it (extra `geo`)."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffmf_cli.errors import ImageError
from diffmf_cli.images.range import from_unit, to_unit

if TYPE_CHECKING:
    from rasterio.io import DatasetReader
    from rasterio.windows import Window

Region = tuple[int, int, int, int]  # left, top, width, height, in pixels

# ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory (OGC 19-008r4, section 7).
TAGS = frozenset((33550, 33922, 34264, 34735))
WITHOUT_RASTERIO = (
    "is a GeoTIFF: its georeference and its mask are lost without rasterio (pip install 'diffmf[geo]')"
)

# GDAL's own words of what is wrong with a file; an exception says it as well.
logging.getLogger("rasterio").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", module=r"rasterio(\.|$)")  # about files without a place


@dataclass(frozen=True)
class Georeference:
    """Where a picture lies.

    Attributes:
        crs: The coordinate reference system as WKT, or empty.
        transform: `(a, b, c, d, e, f)`: column and row of a pixel's upper left corner become
            `a col + b row + c` and `d col + e row + f`.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]

    def moved(self, top: int, left: int) -> "Georeference":
        """That of a part of the picture which starts at this row and column."""
        a, b, c, d, e, f = self.transform
        return replace(self, transform=(a, b, c + a * left + b * top, d, e, f + d * left + e * top))

    def matrix(self) -> np.ndarray:
        """`(3, 3)`: pixels, (0, 0) being the centre of the first, to the units of the system."""
        a, b, c, d, e, f = self.transform
        return np.array([[a, b, c + (a + b) / 2], [d, e, f + (d + e) / 2], [0, 0, 1]])


def is_available() -> bool:
    """Whether rasterio is installed."""
    try:
        import rasterio  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def reproject(points: np.ndarray, system: str, target: str) -> np.ndarray:
    """Points `(N, 2)` from one coordinate system to another, both as WKT; infinite where it is undefined."""
    from rasterio import CRS
    from rasterio.warp import transform

    moved = transform(CRS.from_wkt(system), CRS.from_wkt(target), points[:, 0], points[:, 1])
    return np.stack(moved[:2], 1)


def read_place(path: Path) -> tuple[Georeference, tuple[int, int]]:
    """Where a GeoTIFF lies, and its width and height, without reading its pixels.

    Raises:
        ImageError: It cannot be read, does not say where it lies, or rasterio is not installed.
    """
    with _opened(path) as dataset:
        place = _place(dataset)
        if not place.crs and dataset.transform.is_identity:
            raise ImageError("has no place on Earth: --region is for GeoTIFFs that have one")
        return place, (dataset.width, dataset.height)


def read_geotiff(
    source: bytes | Path, region: Region | None = None
) -> tuple[np.ndarray, np.ndarray | None, Georeference, list[str]]:
    """Reads a GeoTIFF as GDAL sees it.

    Pixels that the file calls invalid become transparent. Their values are the median of the valid ones,
    which leaves intensity ranges alone.

    Args:
        source: A path, or the bytes of a file.
        region: The part to read, which lies within the picture; all of it by default.

    Returns:
        `(H, W)` or `(H, W, 3)` uint8, uint16 or float32; `(H, W)` alpha of that type or None where all is
        valid; the georeference; and sentences worth showing, without the name of the file.

    Raises:
        ImageError: It has bands that are no picture, or no valid pixel. The message lacks the file's name.
    """
    with _opened(source) as dataset:
        window = None if region is None else _window(region)
        pixels, notes = _bands(dataset, window)
        alpha = _alpha(dataset, pixels.dtype, window)
        place = _place(dataset)
        if region is not None:
            place = place.moved(region[1], region[0])
        if dataset.gcps[0]:
            notes.append("is placed by ground control points, which are not kept")
    if pixels.dtype.kind == "f":
        alpha[~np.isfinite(pixels if pixels.ndim == 2 else pixels.sum(2))] = 0
    valid = alpha > 0
    if not valid.any():
        raise ImageError("holds no valid pixel: all of them are masked or no data")
    if not valid.all():
        pixels[~valid] = np.median(pixels[valid], axis=0).astype(pixels.dtype)
    opaque = alpha.min() == (1 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max)
    return pixels, None if opaque else alpha, place, notes


def encode_geotiff(pixels: np.ndarray, alpha: np.ndarray | None, place: Georeference) -> bytes:
    """A GeoTIFF of a picture.

    Args:
        pixels: `(H, W)` or `(H, W, 3)`; uint8, uint16 or float32.
        alpha: `(H, W)` of any of these types, or None.
        place: Where it lies.
    """
    import rasterio

    bands = [pixels] if pixels.ndim == 2 else [pixels[:, :, i] for i in range(3)]
    if alpha is not None:
        bands.append(alpha if alpha.dtype == pixels.dtype else from_unit(to_unit(alpha), pixels.dtype))
    height, width = pixels.shape[:2]
    settings: dict[str, Any] = {
        "crs": place.crs or None,
        "transform": rasterio.Affine(*place.transform),
        "compress": "lzw",
        "photometric": "MINISBLACK" if pixels.ndim == 2 else "RGB",
        "bigtiff": "if_safer",
    }
    if alpha is not None:
        settings["alpha"] = "yes"
    with rasterio.MemoryFile() as file:
        with file.open(
            driver="GTiff", width=width, height=height, count=len(bands), dtype=pixels.dtype, **settings
        ) as dataset:
            dataset.write(np.stack(bands))
        content: bytes = file.read()
        return content


@contextmanager
def _opened(source: bytes | Path) -> Iterator["DatasetReader"]:
    try:
        import rasterio
    except ModuleNotFoundError:
        raise ImageError("is read in parts by the extra `geo` only: pip install 'diffmf[geo]'") from None
    try:
        if isinstance(source, bytes):
            with rasterio.MemoryFile(source) as file, file.open() as dataset:
                yield dataset
        else:
            with rasterio.open(source, driver="GTiff") as dataset:
                yield dataset
    except rasterio.errors.RasterioError as error:  # its words name a file in memory
        known = isinstance(source, bytes)
        what = "is a truncated or damaged GeoTIFF" if known else "is no GeoTIFF, or a damaged one"
        raise ImageError(f"{what}: copy or export it again") from error


def _window(region: Region) -> "Window":
    from rasterio.windows import Window

    return Window(*region)


def _place(dataset: "DatasetReader") -> Georeference:
    return Georeference(dataset.crs.to_wkt() if dataset.crs else "", tuple(dataset.transform)[:6])


def _bands(dataset: "DatasetReader", window: "Window | None") -> tuple[np.ndarray, list[str]]:
    """Grey or RGB of the bands, without alpha."""
    from rasterio.enums import ColorInterp

    meanings = dataset.colorinterp
    shown = [
        band for band, meaning in zip(dataset.indexes, meanings, strict=True) if meaning != ColorInterp.alpha
    ]
    notes = []
    if len(shown) == 4:
        shown = shown[:3]
        notes.append("has 4 bands: the first three are taken for red, green and blue")
    if len(shown) not in (1, 3):
        raise ImageError(f"is a GeoTIFF of {len(shown)} bands: save the one or three to be used")
    if "complex" in dataset.dtypes[0]:
        raise ImageError(f"is a GeoTIFF of {dataset.dtypes[0]} values: save their magnitude")
    bands = dataset.read(shown, window=window)
    if meanings[0] == ColorInterp.palette:
        table = dataset.colormap(1)
        colours = np.zeros((max(table) + 1, 3), np.uint8)
        for index, colour in table.items():
            colours[index] = colour[:3]
        return colours[bands[0]], notes
    if bands.dtype not in (np.uint8, np.uint16):
        bands = bands.astype(np.float32)
    return (bands[0] if len(bands) == 1 else np.ascontiguousarray(np.moveaxis(bands, 0, 2))), notes


def _alpha(dataset: "DatasetReader", dtype: np.dtype, window: "Window | None") -> np.ndarray:
    """`(H, W)`: its alpha band where it has one, else opaque where GDAL calls pixels valid."""
    from rasterio.enums import ColorInterp

    if ColorInterp.alpha not in dataset.colorinterp:
        return from_unit((dataset.dataset_mask(window=window) > 0).astype(np.float32), dtype)
    alpha: np.ndarray = dataset.read(dataset.colorinterp.index(ColorInterp.alpha) + 1, window=window)
    # White is not told by types of which pictures use a part.
    return (
        alpha
        if alpha.dtype == dtype != np.float32
        else from_unit(alpha / np.float32(alpha.max() or 1), dtype)
    )
