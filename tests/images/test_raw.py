import numpy as np
import pytest

from diffmf_cli.errors import ImageError, UsageError
from diffmf_cli.images.raw import RawLayout
from diffmf_cli.images.read import read_image


@pytest.mark.parametrize(
    ("kind", "stored"), [("u8", "u1"), ("u16le", "<u2"), ("u16be", ">u2"), ("f32le", "<f4"), ("f32be", ">f4")]
)
def test_round_trip(tmp_path, kind, stored):
    pixels = (17 * np.arange(12).reshape(3, 4)).astype(stored)
    path = tmp_path / "frame.bin"
    path.write_bytes(pixels.tobytes())
    image = read_image(path, raw=RawLayout.parse(f"4x3:{kind}"))
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.pixels.dtype == np.dtype(stored).newbyteorder("=")
    assert image.name == str(path)


@pytest.mark.parametrize("text", ["", "640x512", "640x512:u12", "0x5:u8", "ax5:u8", "640:u8", "-4x5:u8"])
def test_layouts_that_cannot_be_meant(text):
    with pytest.raises(UsageError, match=f"raw layout '{text}' is not understood: use .*640x512:u16le"):
        RawLayout.parse(text)


@pytest.mark.parametrize("size", [1, 23, 25, 48])
def test_a_file_of_another_size(size):
    with pytest.raises(ImageError, match=f"f has {size} bytes, but --raw 4x3:u16le means 24"):
        read_image(bytes(size), "f", RawLayout.parse("4x3:u16le"))


def test_values_that_are_none():
    pixels = np.array([[1, np.nan]], "<f4")
    with pytest.raises(ImageError, match="f holds 1 NaN or infinite values"):
        read_image(pixels.tobytes(), "f", RawLayout.parse("2x1:f32le"))
