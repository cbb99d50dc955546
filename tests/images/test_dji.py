import io
import struct
import sys
from types import ModuleType, SimpleNamespace

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


@pytest.fixture
def sdk(monkeypatch):
    """Puts a stand-in for dji-thermal-cli in place, which needs a newer Python and files of real cameras."""

    def install(measure):
        package = ModuleType("dji_thermal_cli")
        package.tsdk = SimpleNamespace(
            open=lambda data: SimpleNamespace(measure_temperature_c=lambda: measure(data))
        )
        monkeypatch.setitem(sys.modules, "dji_thermal_cli", package)

    return install


def test_temperatures_where_the_package_is_installed(scene, sdk):
    celsius = np.linspace(-20, 90, 20, dtype=np.float32).reshape(4, 5)
    data = r_jpeg(scene[0])

    def measure(given):
        assert given == data
        known = celsius.copy()
        known[1, 2] = -273.15  # what the camera cannot tell
        return known

    sdk(measure)
    image = read_image(data, "DJI_0001_T.JPG")
    celsius[1, 2] = -20
    np.testing.assert_array_equal(image.pixels, celsius)
    assert (image.unit, image.notes, image.pixels.dtype) == ("C", (), np.float32)


def test_a_camera_that_the_package_does_not_know(scene, sdk):
    def measure(_):
        raise ValueError("R-JPEG plugin 'new'\nis not supported")

    sdk(measure)
    image = read_image(r_jpeg(scene[0]), "a.jpg")
    assert image.unit == ""
    assert image.pixels.shape == scene[0].shape
    assert image.notes == (
        "a.jpg is a DJI R-JPEG that dji-thermal-cli cannot measure (R-JPEG plugin 'new' is not supported): "
        "the rendered picture is read, not the temperatures",
    )


def test_nothing_measured_at_all(scene, sdk):
    sdk(lambda _: np.full((4, 5), -273.15, np.float32))
    assert "cannot measure" in read_image(r_jpeg(scene[0])).notes[0]


def test_the_rendered_picture_is_read_and_said_so(scene, monkeypatch):
    monkeypatch.setitem(sys.modules, "dji_thermal_cli", None)
    image = read_image(r_jpeg(scene[0]), "DJI_0001_T.JPG")
    assert np.abs(image.pixels.astype(int) - scene[0]).max() <= 3
    assert image.unit == ""
    assert len(image.notes) == 1
    assert image.notes[0].startswith("DJI_0001_T.JPG is a DJI R-JPEG: the rendered picture is read")
    assert "pip install dji-thermal-cli" in image.notes[0]


@pytest.mark.parametrize("other", [{"make": "Canon"}, {"counts": False}])
def test_other_pictures_are_no_r_jpeg(scene, other):
    assert read_image(r_jpeg(scene[0], **other)).notes == ()
