"""NIfTI: axial slices of a volume, the patient upright (extra `medical`)."""

import gzip
import io
import logging
import zlib

import numpy as np

from diffmf_cli.errors import DiffmfError, ImageError
from diffmf_cli.images.volume import Volume, choose_slice

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
    """Reads one slice of `read_volume`.

    Args:
        data: The whole file.
        number: Which slice from the feet on, from 1; None for the middle one.

    Returns:
        `(H, W)` float32; the values that become black and white, which are the same for all slices; sentences
        for the user, without the name of the file.

    Raises:
        ImageError: See `read_volume`.
        UsageError: There is no such slice.
    """
    volume = read_volume(data)
    index, notes = choose_slice(len(volume.slices), number)
    return np.ascontiguousarray(volume.slices[index]), volume.window, notes


def read_volume(data: bytes) -> Volume:
    """Reads a volume, turned to right, anterior, superior and cut across its third axis.

    Args:
        data: The whole file.

    Raises:
        ImageError: nibabel is not installed, or the file is damaged or no volume. Messages lack its name.
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
        voxels = np.asarray(whole.dataobj, np.float32)
        low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
        space = int(image.header["sform_code"]) or int(image.header["qform_code"])
    except DiffmfError:
        raise
    except Exception as error:  # nibabel meets damaged bytes in many ways
        raise ImageError("is a damaged NIfTI file: copy or export it again") from error
    if not np.isfinite(voxels).all():
        raise ImageError("holds NaN or infinite values: replace them by finite ones")
    if not low < high:
        low, high = float(voxels.min()), float(voxels.max())
    return Volume(voxels[:, ::-1].transpose(2, 1, 0), (low, high), whole.affine, space)


def encode_nifti(slices: np.ndarray, volume: Volume, first: int, packed: bool) -> bytes:
    """A NIfTI-1 file of slices that lie where those of another volume do.

    Args:
        slices: `(N, H, W)` uint8 or uint16, in the order and sense of `Volume`.
        volume: Where they come from.
        first: Index of the first slice in it.
        packed: Whether to gzip.
    """
    import nibabel

    affine = volume.affine.copy()
    affine[:3, 3] += first * affine[:3, 2]
    image = nibabel.Nifti1Image(slices.transpose(2, 1, 0)[:, ::-1], affine)
    image.header.set_xyzt_units("mm")
    image.header["cal_max"] = np.iinfo(slices.dtype).max
    image.set_sform(affine, volume.space)
    image.set_qform(affine, volume.space)
    content: bytes = image.to_bytes()
    return gzip.compress(content, mtime=0) if packed else content
