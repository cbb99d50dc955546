import gzip
import sys

import numpy as np
import pytest

from diffmf_cli.errors import ImageError, UsageError
from diffmf_cli.images.nifti import encode_nifti, read_volume
from diffmf_cli.images.read import read_image
from diffmf_cli.images.volume import parse_slices

nibabel = pytest.importorskip("nibabel")
VOLUME = np.random.default_rng(0).integers(-500, 500, (6, 8, 5)).astype(np.int16)


def write(volume, affine=None, kind=nibabel.Nifti1Image, **header):
    image = kind(volume, np.eye(4) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    return image.to_bytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_slice_with_the_front_at_the_top(kind, packed):
    data = write(VOLUME, kind=kind)
    image = read_image(gzip.compress(data) if packed else data, slice_number=2)
    assert image.pixels.shape == (8, 6)
    np.testing.assert_array_equal(image.pixels, VOLUME[:, ::-1, 1].T)
    assert image.window == (VOLUME.min(), VOLUME.max())  # of all slices, so that they stay comparable
    assert image.notes == ()


def test_orientation_of_the_file_does_not_matter():
    """The same body stored left, posterior, superior, and with its axes exchanged."""
    upright = read_image(write(VOLUME), slice_number=4).pixels
    turned = write(VOLUME[::-1, ::-1], np.diag([-1, -1, 1, 1]))
    np.testing.assert_array_equal(read_image(turned, slice_number=4).pixels, upright)
    exchanged = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    data = write(np.ascontiguousarray(VOLUME.transpose(2, 0, 1)), exchanged)
    np.testing.assert_array_equal(read_image(data, slice_number=4).pixels, upright)


def test_the_middle_one_by_default_and_scaling_and_window_of_the_header():
    image = nibabel.Nifti1Image(VOLUME, np.eye(4))
    image.header.set_slope_inter(0.5, 100)
    image.header["cal_min"], image.header["cal_max"] = 20, 90
    read = read_image(image.to_bytes(), "f.nii")
    np.testing.assert_allclose(read.pixels, VOLUME[:, ::-1, 2].T * 0.5 + 100, atol=0.5)
    assert read.window == (20, 90)
    assert read.notes == ("f.nii holds 5 slices: number 3 is read, choose with --slice",)


def test_one_volume_of_a_series_of_one():
    image = read_image(write(VOLUME[..., None]), slice_number=1)
    np.testing.assert_array_equal(image.pixels, VOLUME[:, ::-1, 0].T)


def test_what_is_no_volume():
    for volume, says in (
        (np.zeros((4, 4, 4, 3), np.int16), "is a NIfTI file of 4x4x4x3, not one volume"),
        (np.zeros((4, 4, 4), np.complex64), "is a NIfTI file of complex64 values"),
        (np.full((4, 4, 4), np.nan, np.float32), "holds NaN or infinite values"),
    ):
        with pytest.raises(ImageError, match=f"^f.nii {says}"):
            read_image(write(volume), "f.nii")
    with pytest.raises(UsageError, match=r"^f\.nii has no slice 6: it has 5"):
        read_image(write(VOLUME), "f.nii", slice_number=6)


@pytest.mark.parametrize("share", [0.6, 0.99])
@pytest.mark.parametrize("packed", [False, True])
def test_truncated(share, packed):
    data = write(np.random.default_rng(0).integers(0, 9999, (20, 20, 20)).astype(np.int16))
    data = gzip.compress(data) if packed else data
    with pytest.raises(ImageError, match=r"^f\.nii is a damaged NIfTI file: copy"):
        read_image(data[: int(share * len(data))], "f.nii")


def test_without_nibabel(monkeypatch):
    data = write(VOLUME)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ImageError, match=r"^f\.nii is a NIfTI file.*pip install 'diffmf\[medical\]'$"):
        read_image(data, "f.nii")


def test_a_header_with_a_flaw_is_read_in_silence(capfd):
    data = bytearray(write(VOLUME))
    data[254:256] = b"\x99\x09"  # a code of orientation that nobody knows
    assert read_image(bytes(data), slice_number=2).pixels.shape == (8, 6)
    assert capfd.readouterr() == ("", "")


def test_gzip_of_something_else():
    with pytest.raises(ImageError, match="is not a picture"):
        read_image(gzip.compress(b"text" * 200), "f.gz")


@pytest.mark.parametrize("packed", [False, True])
def test_slices_are_written_where_they_were_read(packed):
    """Every voxel keeps its millimetres, whatever the axes of the file were."""
    affine = np.array([[0, -0.9, 0.1, 40], [0.2, 0, -2.5, 90], [1.1, 0.1, 0, -7], [0, 0, 0, 1]])
    stored = np.random.default_rng(1).integers(0, 60000, (5, 6, 7)).astype(np.uint16)
    volume = read_volume(write(stored, affine))
    assert volume.space == 2
    part = volume.slices[1:4].astype(np.uint16)
    again = nibabel.Nifti1Image.from_bytes(
        gzip.decompress(encode_nifti(part, volume, 1, True))
        if packed
        else encode_nifti(part, volume, 1, False)
    )
    assert again.get_data_dtype() == np.uint16
    assert again.header["sform_code"] == again.header["qform_code"] == 2
    values = np.asarray(again.dataobj)
    assert values.size == part.size
    for index in np.ndindex(*values.shape):
        place = again.affine @ [*index, 1]
        source = np.rint(np.linalg.inv(affine) @ place)[:3].astype(int)
        np.testing.assert_allclose(affine @ [*source, 1], place, atol=1e-3)
        assert values[index] == stored[tuple(source)]


@pytest.mark.parametrize(("text", "found"), [("all", None), ("3", (3, 3)), (" 40-60 ", (40, 60))])
def test_slices_that_are_meant(text, found):
    assert parse_slices(text) == found


@pytest.mark.parametrize("text", ["", "0", "5-4", "1-", "a-b", "1,2", "-3"])
def test_slices_that_cannot_be_meant(text):
    with pytest.raises(UsageError, match=r"use all, or FIRST-LAST such as 40-60$"):
        parse_slices(text)
