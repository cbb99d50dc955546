"""NIfTI: one axial slice of a volume, the patient upright (extra `medical`)."""

import gzip
import io
import logging
import zlib

import numpy as np

from diffmf_cli.errors import DiffmfError, ImageError
from diffmf_cli.images.volume import choose_slice

# What it repairs in a header it says on stderr.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


def is_nifti(data: bytes) -> bool:
    """Whether a file is a NIfTI-1 or NIfTI-2 file, gzipped or not."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(348)
        except (OSError, EOFError, zlib.error):
            return False
    return data[344:348] == b"n+1\0" or data[4:8] == b"n+2\0"


def read_nifti(data: bytes, number: int | None) -> tuple[np.ndarray, tuple[float, float], tuple[str, ...]]:
    """Reads one slice across the third axis of the volume, turned to right, anterior, superior.

    Args:
        data: The whole file.
        number: Which slice from the feet on, from 1; None for the middle one.

    Returns:
        `(H, W)` float32 with the front of the body at the top and its right side at the right; the values
        that become black and white, which are the same for all slices; sentences for the user, without the
        name of the file.

    Raises:
        ImageError: nibabel is not installed, or the file is damaged or no volume. Messages lack its name.
        UsageError: There is no such slice.
    """
    try:
        import nibabel
    except ModuleNotFoundError:
        raise ImageError(
            "is a NIfTI file, which the extra `medical` reads: pip install 'diffmf[medical]'"
        ) from None
    try:
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        kind = nibabel.Nifti2Image if data[4:8] == b"n+2\0" else nibabel.Nifti1Image
        image = kind.from_bytes(data)
        shape = image.shape + (1,) * (3 - len(image.shape))
        if len(image.shape) < 2 or any(size > 1 for size in shape[3:]):
            sizes = "x".join(map(str, image.shape))
            raise ImageError(f"is a NIfTI file of {sizes}, not one volume: save the volume to be used")
        if image.get_data_dtype().kind not in "iuf":
            raise ImageError(f"is a NIfTI file of {image.get_data_dtype()} values: save one number a voxel")
        values = np.asarray(image.dataobj, np.float32).reshape(shape[:3])
        whole = nibabel.as_closest_canonical(kind(values, image.affine))
        volume = np.asarray(whole.dataobj, np.float32)
        index, notes = choose_slice(volume.shape[2], number)
        low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
    except DiffmfError:
        raise
    except Exception as error:  # nibabel meets damaged bytes in many ways
        raise ImageError("is a damaged NIfTI file: copy or export it again") from error
    if not np.isfinite(volume).all():
        raise ImageError("holds NaN or infinite values: replace them by finite ones")
    if not low < high:
        low, high = float(volume.min()), float(volume.max())
    return np.ascontiguousarray(volume[:, ::-1, index].T), (low, high), notes
