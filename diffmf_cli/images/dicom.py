"""DICOM: one slice in the units of the modality, and the window that the file asks for (extra `medical`)."""

import io
import math
import warnings
from typing import TYPE_CHECKING

import numpy as np

from diffmf_cli.errors import DiffmfError, ImageError, UsageError
from diffmf_cli.images.volume import choose_slice

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Window = tuple[float, float]

# Odd metadata is no fault of the pixels.
warnings.filterwarnings("ignore", module=r"pydicom\.")


def is_dicom(data: bytes) -> bool:
    """Whether a file has the preamble of DICOM (PS3.10, section 7.1)."""
    return data[128:132] == b"DICM"


def read_dicom(data: bytes, number: int | None) -> tuple[np.ndarray, Window | None, tuple[str, ...]]:
    """Reads one slice.

    Args:
        data: The whole file.
        number: Which slice of a multi-frame file, from 1 on; None for the middle one.

    Returns:
        `(H, W)` float32 in the units of the modality, such as Hounsfield units, brighter where a display is,
        with the values that become black and white; or `(H, W, 3)` uint8 RGB with None. And sentences for
        the user, without the name of the file.

    Raises:
        ImageError: pydicom is not installed, or the file is damaged or holds no picture. Messages lack its
            name.
        UsageError: There is no such slice.
    """
    try:
        import pydicom
        from pydicom.pixels import apply_color_lut, apply_modality_lut
    except ModuleNotFoundError:
        raise ImageError(
            "is a DICOM file, which the extra `medical` reads: pip install 'diffmf[medical]'"
        ) from None
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        if "PixelData" not in dataset:
            raise ImageError("is a DICOM file without pixels: is it cut off, or none of an image series?")
        stored = dataset.pixel_array  # RGB, also of YBR
        frames = int(dataset.get("NumberOfFrames") or 1)
        index, notes = choose_slice(frames, number)
        pixels = stored[index] if frames > 1 else stored
        photometric = dataset.PhotometricInterpretation
        if photometric == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, dataset)
            return (pixels >> 8 if pixels.dtype == np.uint16 else pixels).astype(np.uint8), None, notes
        if pixels.ndim == 3:
            if pixels.dtype != np.uint8:
                raise ImageError(f"is a DICOM file of {pixels.dtype} colours: export it with 8 bits")
            return np.ascontiguousarray(pixels), None, notes
        values = np.asarray(apply_modality_lut(pixels, dataset), np.float32)
        low, high = _window(dataset) or (float(values.min()), float(values.max()))
    except DiffmfError:
        raise
    except Exception as error:  # pydicom meets damaged bytes in many ways
        reason = " ".join(str(error).split())[:100]
        raise ImageError(
            f"is a damaged DICOM file, or of a compression that needs a plugin ({reason})"
        ) from error
    if photometric == "MONOCHROME1":  # low is white
        return -values, (-high, -low), notes
    return values, (low, high), notes


def _window(dataset: "Dataset") -> Window | None:
    """The first window of the file, as PS3.3 C.11.2.1.2.1 defines it for the linear function."""
    try:
        center, width = (float(np.ravel(value)[0]) for value in (dataset.WindowCenter, dataset.WindowWidth))
    except (AttributeError, TypeError, ValueError, IndexError):  # absent or empty
        return None
    return window_limits(center, width) if width > 1 else None


def window_limits(center: float, width: float) -> Window:
    """The values that a window turns black and white."""
    return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2


def parse_window(text: str) -> Window:
    """Reads `CENTER,WIDTH`, as radiologists give windows, into the values of black and white.

    Raises:
        UsageError: The text has another form, or the width is not above 1.
    """
    try:
        center, width = (float(number) for number in text.split(","))
    except ValueError:
        center, width = 0.0, 0.0
    if not (math.isfinite(center) and 1 < width < math.inf):
        raise UsageError(
            f"window '{text}' is not understood: use CENTER,WIDTH such as 40,80, the width above 1"
        )
    return window_limits(center, width)
