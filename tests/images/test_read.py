import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from diffmf_cli.errors import ImageError
from diffmf_cli.images.read import read_image

# A test run sets its own filters; test_libraries_print_nothing checks those of the package.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

DATA = Path(__file__).parents[3] / "shared" / "data"
RGB = np.array(
    [[[200, 100, 50], [10, 20, 30], [255, 0, 0]], [[0, 255, 0], [0, 0, 255], [90, 90, 90]]], np.uint8
)


def encode(array, format="PNG", mode=None, **options):
    picture = array if isinstance(array, Pillow.Image) else Pillow.fromarray(array)
    file = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, format, **options)
    return file.getvalue()


def opencv_file(extension, array):
    """What OpenCV writes from RGB or grey: the only encoder here of 16-bit and float colour."""
    if array.ndim == 3:
        array = cv2.cvtColor(array, cv2.COLOR_RGB2BGR if array.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    lzw = [
        cv2.IMWRITE_TIFF_COMPRESSION,
        cv2.IMWRITE_TIFF_COMPRESSION_LZW,
    ]  # OpenCV 4 stores float colour lossily
    return cv2.imencode(extension, array, lzw if extension == ".tif" else [])[1].tobytes()


def tiff(array, photometric=1, orientation=1, planar=1, pages=1):
    """A plain uncompressed little-endian TIFF with any tags, directories last."""
    channels = array.shape[2] if array.ndim == 3 else 1
    height, width = array.shape[:2]
    sample = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    body = (np.moveaxis(array, 2, 0) if planar == 2 else array).tobytes()
    body += b"\0" * (len(body) % 2)
    plane = array.nbytes // channels if planar == 2 else array.nbytes
    offsets = [8 + i * plane for i in range(channels if planar == 2 else 1)]
    tags = {256: width, 257: height, 258: [array.itemsize * 8] * channels, 259: 1, 262: photometric}
    tags |= {273: offsets, 274: orientation, 277: channels, 278: height, 279: [plane] * len(offsets)}
    tags |= {284: planar, 339: [sample] * channels}
    if channels in (2, 4):
        tags[338] = 2
    blocks, start = b"", 8 + len(body)
    for page in range(pages):
        entries, extra = b"", b""
        after = start + 2 + 12 * len(tags) + 4
        for tag, value in sorted(tags.items()):
            values = value if isinstance(value, list) else [value]
            packed = struct.pack(f"<{len(values)}I", *values)
            if len(values) > 1:
                extra, packed = extra + packed, struct.pack("<I", after + len(extra))
            entries += struct.pack("<HHI", tag, 4, len(values)) + packed
        following = after + len(extra) if page + 1 < pages else 0
        blocks += struct.pack("<H", len(tags)) + entries + struct.pack("<I", following) + extra
        start = after + len(extra)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + blocks


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png, kind, data):
    """`png` with one more chunk after its header."""
    return png[:33] + png_chunk(kind, data) + png[33:]


def exif(orientation):
    tags = Pillow.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


# What is read


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("pixels", [RGB, RGB[..., 0]], ids=["rgb", "grey"])
def test_eight_bits(tmp_path, format, pixels):
    path = tmp_path / "picture.any"
    path.write_bytes(encode(pixels, format, **({"lossless": True} if format == "WEBP" else {})))
    image = read_image(path)
    if format == "WEBP" and pixels.ndim == 2:  # WebP has no grey
        pixels = np.dstack([pixels] * 3)
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.pixels.dtype == np.uint8
    assert image.alpha is None
    assert image.name == str(path)
    assert image.notes == ()


@pytest.mark.parametrize("extension", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_pixels_keep_every_bit(extension, dtype, channels):
    if extension == ".png" and dtype is np.float32:
        pytest.skip("PNG holds no floats")
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 7, channels)).astype(dtype)
    image = read_image(opencv_file(extension, pixels[..., 0] if channels == 1 else pixels))
    np.testing.assert_array_equal(image.pixels, pixels[..., 0] if channels == 1 else pixels[..., :3])
    assert image.pixels.dtype == dtype
    if channels == 4:
        np.testing.assert_array_equal(image.alpha, pixels[..., 3])
        assert image.alpha.dtype == dtype
    else:
        assert image.alpha is None


def test_jpeg_is_rgb_within_its_loss():
    red = np.zeros((16, 16, 3), np.uint8)
    red[...] = (220, 30, 40)
    assert np.abs(read_image(encode(red, "JPEG", quality=95)).pixels - red.astype(int)).max() <= 3


def test_cmyk_jpeg_and_tiff():
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    for format in ("JPEG", "TIFF"):
        pixels = read_image(encode(flat, format, "CMYK")).pixels
        assert pixels.shape == (16, 16, 3)
        assert np.abs(pixels - flat.astype(int)).max() <= 4


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_one_bit(format):
    bits = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    np.testing.assert_array_equal(read_image(encode(bits, format, "1")).pixels, bits)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_palette(format):
    image = read_image(encode(Pillow.fromarray(RGB).quantize(colors=16), format))
    np.testing.assert_array_equal(image.pixels, RGB)
    assert image.alpha is None


def test_palette_with_a_transparent_entry():
    picture = Pillow.fromarray(RGB).quantize(colors=16)
    image = read_image(encode(picture, transparency=picture.getpixel((0, 0))))
    np.testing.assert_array_equal(image.pixels, RGB)
    assert image.alpha[0, 0] == 0
    assert (image.alpha.ravel()[1:] == 255).all()


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_apart_and_not_multiplied_in(format):
    alpha = np.array([[128, 255, 1], [200, 7, 60]], np.uint8)
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    image = read_image(encode(np.dstack([RGB, alpha]), format, **options))
    np.testing.assert_array_equal(image.pixels, RGB)
    np.testing.assert_array_equal(image.alpha, alpha)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_grey_with_alpha_stays_grey(format):
    pair = np.dstack([RGB[..., 0], RGB[..., 1]])
    image = read_image(encode(Pillow.fromarray(pair, "LA"), format))
    np.testing.assert_array_equal(image.pixels, pair[..., 0])
    np.testing.assert_array_equal(image.alpha, pair[..., 1])


def test_equal_channels_stay_three():
    assert read_image(encode(np.full((4, 5, 3), 77, np.uint8))).pixels.shape == (4, 5, 3)


def test_white_is_zero_tiff():
    counts = np.array([[0, 1000, 65535]], np.uint16)
    np.testing.assert_array_equal(read_image(tiff(counts, photometric=0)).pixels, 65535 - counts)
    grey = np.array([[0, 10, 255]], np.uint8)
    np.testing.assert_array_equal(read_image(tiff(grey, photometric=0)).pixels, 255 - grey)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float64])
def test_other_numbers_become_float32(dtype):
    celsius = np.array([[-20, 0, 300]], dtype)
    pixels = read_image(tiff(celsius)).pixels
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, celsius)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_tiny(shape):
    for dtype in (np.uint8, np.uint16):
        pixels = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
        np.testing.assert_array_equal(read_image(opencv_file(".png", pixels)).pixels, pixels)


def test_the_first_of_several_pages_with_a_note(tmp_path):
    path = tmp_path / "pages.tif"
    path.write_bytes(tiff(np.full((2, 3), 40000, np.uint16), pages=2))
    image = read_image(path)
    assert image.pixels[0, 0] == 40000
    assert image.notes == (f"{path} holds more than one picture: the first is read",)
    frames = [Pillow.fromarray(np.full((4, 4, 3), v, np.uint8)) for v in (10, 200)]
    animated = read_image(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    assert animated.pixels[0, 0, 0] == 10
    assert len(animated.notes) == 1


def test_names():
    assert read_image(encode(RGB)).name == "stdin"
    assert read_image(encode(RGB), "IR").name == "IR"


def upright(stored, orientation):
    """The EXIF standard in words of numpy: what a viewer shows of `stored`."""
    return {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.swapaxes(a, 0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
        8: lambda a: np.rot90(a, 1),
    }[orientation](stored)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation):
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    deep = grey.astype(np.uint16) * 257
    rgba = np.dstack([RGB, grey])
    tag = exif(orientation)
    files = {
        "PNG": (encode(RGB, exif=tag), RGB),
        "PNG 16-bit": (with_chunk(opencv_file(".png", deep), b"eXIf", tag.removeprefix(b"Exif\0\0")), deep),
        "WebP": (encode(RGB, "WEBP", lossless=True, exif=tag), RGB),
        "TIFF": (tiff(RGB, 2, orientation), RGB),
        "TIFF grey": (tiff(grey, 1, orientation), grey),
        "TIFF 16-bit": (tiff(deep, 1, orientation), deep),
        "TIFF 16-bit RGB": (tiff(RGB.astype(np.uint16) * 257, 2, orientation), RGB.astype(np.uint16) * 257),
        "TIFF float": (tiff(deep.astype(np.float32), 1, orientation), deep.astype(np.float32)),
    }
    for what, (data, stored) in files.items():
        np.testing.assert_array_equal(read_image(data).pixels, upright(stored, orientation), what)
    image = read_image(encode(rgba, exif=tag))
    np.testing.assert_array_equal(image.alpha, upright(grey, orientation))
    blocks = np.kron(grey, np.ones((16, 16), np.uint8))
    pixels = read_image(encode(blocks, "JPEG", quality=95, exif=tag)).pixels
    assert np.abs(pixels.astype(int) - upright(blocks, orientation)).max() <= 8
    assert pixels.flags.c_contiguous


def test_senseless_metadata_does_not_stop_a_good_picture():
    for tag in (exif(0), exif(99), b"Exif\0\0garbage"):
        np.testing.assert_array_equal(read_image(encode(RGB, exif=tag)).pixels, RGB)


# What is refused


def refused(source, *words):
    with pytest.raises(ImageError) as caught:
        read_image(source)
    message = str(caught.value)
    assert "\n" not in message
    assert ":" in message  # cause: fix
    for word in (str(source) if isinstance(source, Path) else "stdin", *words):
        assert word in message
    return message


def test_missing(tmp_path):
    refused(tmp_path / "nothing.png", "does not exist")


def test_folder(tmp_path):
    refused(tmp_path, "is a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(encode(RGB))
    path.chmod(0)
    refused(path, "may not be read")


def test_no_permission_whoever_runs_the_tests(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    refused(tmp_path / "secret.png", "may not be read")


def test_empty_file(tmp_path):
    path = tmp_path / "empty.png"
    path.touch()
    refused(path, "is empty")


def test_text_with_a_picture_name(tmp_path):
    path = tmp_path / "text.png"
    path.write_text("Not a picture\n" * 40)
    refused(path, "is not a picture")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (encode(RGB, "GIF"), "GIF"),
        (b"\0\0\0\x18ftypheic" + bytes(64), "HEIC"),
        (encode(np.zeros((8, 8, 3), np.uint8), "JPEG2000"), "JPEG 2000"),
    ],
)
def test_formats_that_are_not_read(data, word):
    assert "convert it to PNG" in refused(data, word)


def noise(dtype, channels=3):
    top = 1 if dtype is np.float32 else np.iinfo(dtype).max
    values = np.random.default_rng(0).random((60, 80, channels)) * top
    return values.astype(dtype) if channels > 1 else values[..., 0].astype(dtype)


WHOLE = {
    "PNG": encode(noise(np.uint8)),
    "PNG 16-bit": opencv_file(".png", noise(np.uint16)),
    "JPEG": encode(noise(np.uint8), "JPEG"),
    "progressive JPEG": encode(noise(np.uint8), "JPEG", progressive=True),
    "WEBP": encode(noise(np.uint8), "WEBP"),
    "BMP": encode(noise(np.uint8), "BMP"),
    "TIFF": encode(noise(np.uint8), "TIFF"),
    "TIFF LZW": encode(noise(np.uint8), "TIFF", compression="tiff_lzw"),
    "TIFF directory last": tiff(noise(np.uint8), 2),
    "TIFF 16-bit": opencv_file(".tif", noise(np.uint16)),
    "TIFF 16-bit directory last": tiff(noise(np.uint16, 1)),
    "TIFF float": opencv_file(".tif", noise(np.float32)),
}

FORMAT = {kind: next(word for word in kind.split() if word.isupper()) for kind in WHOLE}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.99, -5])
def test_truncated(kind, kept, capfd):
    data = WHOLE[kind]
    assert read_image(data).pixels.shape[:2] == (60, 80)
    refused(
        data[: int(len(data) * kept)] if kept > 0 else data[:kept], f"truncated or damaged {FORMAT[kind]}"
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["PNG", "PNG 16-bit"])
def test_flipped_bit_in_png(kind, capfd):
    data = bytearray(WHOLE[kind])
    data[len(data) // 2] ^= 4
    refused(bytes(data), "damaged PNG")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["PNG", "PNG 16-bit"])
def test_png_without_its_last_byte(kind, capfd):
    refused(WHOLE[kind][:-1], "its end is missing")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [(0, 3), (3, 0)])
def test_no_pixels(size, capfd):
    header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    refused(png + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b""))
    refused(tiff(np.zeros((size[1], size[0]), np.uint8)))
    refused(tiff(np.zeros((size[1], size[0]), np.uint16)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(value):
    pixels = np.ones((4, 5), np.float32)
    pixels[1, 2:4] = value
    refused(opencv_file(".tif", pixels), "2 NaN or infinite")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (tiff(np.zeros((4, 5, 5), np.uint8), 2), "5 channels"),
        (tiff(np.zeros((4, 5, 6), np.float32), 2), "6 channels"),
        (tiff(np.zeros((4, 5, 2), np.uint16)), "alpha"),
        (tiff(np.zeros((4, 5, 3), np.uint16), 2, planar=2), "one plane per colour"),
    ],
)
def test_tiff_layouts_that_would_be_read_wrongly(data, word):
    refused(data, word)


def test_planar_eight_bit_tiff_is_read():
    np.testing.assert_array_equal(read_image(tiff(RGB, 2, planar=2)).pixels, RGB)


def test_beyond_the_pixel_limit(monkeypatch):
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 2)
    refused(encode(RGB), "megapixels")


def test_libraries_print_nothing(tmp_path):
    """In a process of its own, where no test runner changes what warnings and descriptors do."""
    odd = with_chunk(opencv_file(".png", noise(np.uint16)), b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))
    files = {"odd": odd, "exif": encode(RGB, exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0"), "tag": tiff(RGB, 2)[:-3]}
    files |= {f"cut {kind}": data[: len(data) // 2] for kind, data in WHOLE.items()}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    code = (
        "import sys, pathlib\n"
        "from diffmf_cli.errors import ImageError\n"
        "from diffmf_cli.images.read import read_image\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try: read_image(path); print('read', path.name)\n"
        "    except ImageError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["read exif", "read odd"]


@pytest.mark.skipif(not DATA.exists(), reason="no real pairs here")
def test_real_pictures():
    for folder in ("roadscene/train", "msrs/train"):
        names = sorted(path.name for path in (DATA / folder / "ir").iterdir())[::40]
        assert names
        for name in names:
            ir, vis = read_image(DATA / folder / "ir" / name), read_image(DATA / folder / "vi" / name)
            assert ir.pixels.shape[:2] == vis.pixels.shape[:2]
            assert vis.pixels.shape[2] == 3
            reference = cv2.imread(str(DATA / folder / "vi" / name), cv2.IMREAD_COLOR)[..., ::-1]
            assert np.abs(vis.pixels - reference.astype(int)).max() <= 2


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
@pytest.mark.parametrize("transparent", [False, True])
def test_every_kind_of_png_is_read_as_pillow_reads_it(mode, transparent):
    rng = np.random.default_rng(3)
    picture = Pillow.fromarray(rng.integers(0, 256, (19, 31, 4), np.uint8), "RGBA")
    picture = picture.convert("RGB").quantize(90) if mode == "P" else picture.convert(mode)
    key = {"L": 3, "RGB": (1, 2, 3), "P": 5}.get(mode) if transparent else None
    file = io.BytesIO()
    picture.save(file, "PNG", **({} if key is None else {"transparency": key}))

    found = read_image(file.getvalue())

    with Pillow.open(file) as expected:
        wanted = {"L": "L", "1": "L", "LA": "LA"}.get(mode, "RGB") + ("A" if mode == "RGBA" else "")
        if key is not None:
            wanted += "A"
        pixels = np.asarray(expected.convert(wanted))
    alpha = pixels[..., -1] if wanted.endswith("A") else None
    colours = pixels if alpha is None else pixels[..., :-1]
    np.testing.assert_array_equal(found.pixels, colours.squeeze())
    if alpha is None:
        assert found.alpha is None
    else:
        np.testing.assert_array_equal(found.alpha, alpha)
