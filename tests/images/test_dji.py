import io
import struct

import numpy as np
import pytest
from PIL import Image as Pillow

from diffmf_cli.images.read import read_image


def r_jpeg(pixels, make="DJI", counts=True):
    """A rendered picture with EXIF and thermal counts in APP3, as DJI's cameras lay it out."""
    tags = Pillow.Exif()
    tags[0x010F] = make
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", exif=tags.tobytes(), quality=100)
    data = file.getvalue()
    end = data.index(b"\xff\xe1") + 2
    end += int.from_bytes(data[end : end + 2])
    app3 = b"\xff\xe3" + struct.pack(">H", 1002) + bytes(1000) if counts else b""
    return data[:end] + app3 + data[end:]


def test_the_rendered_picture_is_read_and_said_so(scene):
    image = read_image(r_jpeg(scene[0]), "DJI_0001_T.JPG")
    assert np.abs(image.pixels.astype(int) - scene[0]).max() <= 3
    assert image.unit == ""
    assert len(image.notes) == 1
    assert image.notes[0].startswith("DJI_0001_T.JPG is a DJI R-JPEG: the rendered picture is read")


@pytest.mark.parametrize("other", [{"make": "Canon"}, {"counts": False}])
def test_other_pictures_are_no_r_jpeg(scene, other):
    assert read_image(r_jpeg(scene[0], **other)).notes == ()
