import io
import sys

import numpy as np
import pytest

from diffmf_cli.errors import ImageError, UsageError
from diffmf_cli.images.dicom import parse_window
from diffmf_cli.images.read import read_image

pydicom = pytest.importorskip("pydicom")
STORED = np.random.default_rng(0).integers(0, 2000, (12, 10)).astype(np.uint16)


def write(pixels, photometric="MONOCHROME2", **elements):
    """A DICOM file by pydicom: `(H, W)`, `(H, W, 3)`, or `(frames, H, W)` where NumberOfFrames is given."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    coloured = photometric == "RGB"
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if coloured else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if coloured else 1
    if coloured:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit, dataset.PixelRepresentation = 8 * pixels.itemsize - 1, int(pixels.dtype.kind == "i")
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def test_hounsfield_units_and_the_window_of_the_file():
    data = write(STORED, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=[40, 50], WindowWidth=[80, 350])
    image = read_image(data)
    np.testing.assert_array_equal(image.pixels, STORED * 2.0 - 1024)
    assert image.pixels.dtype == np.float32
    assert image.window == (0, 79)  # PS3.3 C.11.2.1.2.1: 40 - 0.5 -+ 79 / 2
    assert image.notes == ()


def test_without_a_window_its_own_extremes():
    image = read_image(write(STORED.astype(np.int16) - 500))
    np.testing.assert_array_equal(image.pixels, STORED.astype(float) - 500)
    assert image.window == (image.pixels.min(), image.pixels.max())


def test_low_is_white():
    image = read_image(write(STORED, "MONOCHROME1", WindowCenter="100.5", WindowWidth="101"))
    np.testing.assert_array_equal(image.pixels, -STORED.astype(float))
    assert image.window == (-150, -50)


def test_colours():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    image = read_image(write(rgb, "RGB"))
    np.testing.assert_array_equal(image.pixels, rgb)
    assert image.window is None


def test_frames():
    frames = np.stack([STORED + index for index in range(5)])
    data = write(frames, NumberOfFrames=5)
    image = read_image(data, "f.dcm")
    np.testing.assert_array_equal(image.pixels, frames[2])
    assert image.notes == ("f.dcm holds 5 slices: number 3 is read, choose with --slice",)
    image = read_image(data, "f.dcm", slice_number=5)
    np.testing.assert_array_equal(image.pixels, frames[4])
    assert image.notes == ()
    for number in (0, 6, -1):
        with pytest.raises(UsageError, match=f"^f.dcm has no slice {number}: it has 5, give --slice 1 to 5$"):
            read_image(data, "f.dcm", slice_number=number)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated(share):
    data = write(STORED)
    start = data.index(b"DICM")
    with pytest.raises(
        ImageError, match=r"^f\.dcm is a damaged DICOM|^f\.dcm is a DICOM file without"
    ) as caught:
        read_image(data[: start + 4 + int(share * (len(data) - start - 4))], "f.dcm")
    assert "\n" not in str(caught.value)


def test_without_pydicom(monkeypatch):
    data = write(STORED)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r"^f\.dcm is a DICOM file.*pip install 'diffmf\[medical\]'$"):
        read_image(data, "f.dcm")


def test_windows_as_radiologists_give_them():
    assert parse_window("40,80") == (0, 79)
    assert parse_window(" -600 , 1500") == (-1350, 149)


@pytest.mark.parametrize("text", ["", "40", "40,0", "40,1", "a,b", "40,80,2", "nan,80", "40,inf"])
def test_windows_that_are_not_understood(text):
    with pytest.raises(UsageError, match=f"window '{text}' is not understood"):
        parse_window(text)
