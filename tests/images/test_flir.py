import sys

import numpy as np
import pytest

from diffmf_cli.errors import ImageError, UsageError
from diffmf_cli.fusion.files import read_pair
from diffmf_cli.images.flir import is_flir
from diffmf_cli.images.read import read_image

pytest.importorskip("flyr")

KELVIN = np.linspace(273.15, 333.15, 40 * 30).reshape(30, 40)
# The camera's equation, the other way round: from temperature to counts.
COUNTS = np.rint(14364.633 / (0.010603162 * (np.exp(1385.4 / KELVIN) - 1)) + 5753).astype(np.uint16)


def test_temperatures_come_back(flir_jpeg):
    image = read_image(flir_jpeg(COUNTS))
    assert image.unit == "C"
    assert image.pixels.dtype == np.float32
    assert image.visible is None
    np.testing.assert_allclose(image.pixels, KELVIN - 273.15, atol=0.05)  # counts are rounded


def test_emissivity_of_the_file_counts(flir_jpeg):
    """What emits less and shines as much is hotter."""
    shiny = read_image(flir_jpeg(COUNTS, emissivity=0.8)).pixels
    hot = KELVIN - 273.15 > 30
    assert (shiny[hot] > KELVIN[hot] - 273.15 + 1).all()


def test_records_in_several_segments_and_the_visible_picture(flir_jpeg, scene):
    data = flir_jpeg(COUNTS, scene[1], chunk=1000)
    assert data.count(b"FLIR\0") > 5
    image = read_image(data)
    np.testing.assert_allclose(image.pixels, KELVIN - 273.15, atol=0.05)
    np.testing.assert_array_equal(image.visible, scene[1])


def test_one_file_is_both_pictures(flir_jpeg, scene):
    data = flir_jpeg(COUNTS, scene[1])
    ir, vis = read_pair(data, data, ("a.jpg", "a.jpg"))
    assert ir.unit == "C"
    assert vis.unit == ""
    np.testing.assert_array_equal(vis.pixels, scene[1])


def test_one_file_without_a_visible_picture(flir_jpeg):
    data = flir_jpeg(COUNTS)
    with pytest.raises(UsageError, match=r"a\.jpg are the same picture"):
        read_pair(data, data, ("a.jpg", "a.jpg"))
    with pytest.raises(UsageError, match=r"VIS b\.jpg holds temperatures and no visible picture"):
        read_pair(flir_jpeg(COUNTS + 1), data, ("a.jpg", "b.jpg"))


def test_without_flyr_one_line_says_what_to_install(flir_jpeg, monkeypatch):
    monkeypatch.setitem(sys.modules, "flyr", None)
    with pytest.raises(ImageError, match=r"^f\.jpg is a FLIR .* pip install 'diffmf\[thermal\]'$"):
        read_image(flir_jpeg(COUNTS), "f.jpg")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.4, 0.7, 0.98])
def test_damaged_records(flir_jpeg, share):
    """The file is cut within the records: of each place one line."""
    data = flir_jpeg(COUNTS)
    end = 4 + int.from_bytes(data[4:6])
    with pytest.raises(ImageError, match=r"^f\.jpg holds damaged FLIR records.*copy it again") as caught:
        read_image(data[: max(40, int(share * end))], "f.jpg")
    assert "\n" not in str(caught.value)


def test_a_directory_without_end(flir_jpeg):
    """A number of records that no file can hold ends at once."""
    data = bytearray(flir_jpeg(COUNTS))
    start = data.index(b"FFF\0") + 28
    data[start : start + 4] = b"\xff" * 4
    with pytest.raises(ImageError, match="holds damaged FLIR records"):
        read_image(bytes(data))


def test_no_temperatures_from_wrong_constants(flir_jpeg):
    data = flir_jpeg(np.zeros((60, 80), np.uint16))  # below what the sensor can count
    with pytest.raises(ImageError, match="no temperatures result"):
        read_image(data)


def test_a_plain_jpeg_is_none(flir_jpeg):
    assert is_flir(flir_jpeg(COUNTS))
    assert not is_flir(flir_jpeg(COUNTS).replace(b"FLIR\0", b"Flir\0"))
    assert not is_flir(b"\xff\xd8\xff\xe1\xff")
    assert not is_flir(b"\xff\xd8" + b"\xff" * 50)
