import errno
import io
import os
import stat
import subprocess
import sys

import numpy as np
import pytest

from diffmf_cli.errors import ImageError, UsageError
from diffmf_cli.images import write
from diffmf_cli.images.read import read_image
from diffmf_cli.images.write import check_writable, encode_image, format_of, losses, write_atomically

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 17, 3)).astype(np.uint8)
GREY = RGB[..., 0].copy()
ALPHA = RNG.integers(0, 256, (12, 17)).astype(np.uint8)
DEEP = RNG.integers(0, 65536, (12, 17, 3)).astype(np.uint16)
FLOAT = RNG.random((12, 17, 3), dtype=np.float32)


def round_trip(pixels, alpha, extension, quality=95):
    return read_image(encode_image(pixels, alpha, extension, quality))


# Encoding


@pytest.mark.parametrize("extension", [".png", ".tif", ".tiff", ".PNG"])
@pytest.mark.parametrize(
    "pixels", [RGB, GREY, DEEP, DEEP[..., 1].copy()], ids=["rgb", "grey", "rgb16", "grey16"]
)
@pytest.mark.parametrize("opaque", [True, False])
def test_lossless_formats(extension, pixels, opaque):
    alpha = None if opaque else ALPHA.astype(pixels.dtype) * (257 if pixels.dtype == np.uint16 else 1)
    image = round_trip(pixels, alpha, extension)
    if opaque:
        np.testing.assert_array_equal(image.pixels, pixels)
        assert image.alpha is None
    else:  # grey with alpha is stored as colour: OpenCV writes no two-channel files
        np.testing.assert_array_equal(image.pixels if pixels.ndim == 3 else image.pixels[..., 0], pixels)
        np.testing.assert_array_equal(image.alpha, alpha)
    assert image.pixels.dtype == pixels.dtype


@pytest.mark.parametrize("pixels", [FLOAT, FLOAT[..., 0].copy() * 300 - 40])
def test_float_tiff(pixels):
    np.testing.assert_array_equal(round_trip(pixels, None, ".tif").pixels, pixels)


@pytest.mark.parametrize(
    ("pixels", "extension", "dtype", "tolerance"),
    [
        (FLOAT, ".png", np.uint16, 0.6 / 65535),
        (FLOAT.astype(np.float64), ".tiff", np.float32, 1e-7),
        (FLOAT, ".webp", np.uint8, 0.6 / 255),
        (DEEP, ".webp", np.uint8, 0.6 / 255),
    ],
)
def test_depth_that_a_format_cannot_hold_is_rounded(pixels, extension, dtype, tolerance):
    stored = round_trip(pixels, None, extension, 100).pixels
    assert stored.dtype == dtype

    def unit(a):
        return a / (np.iinfo(a.dtype).max if a.dtype.kind == "u" else 1)

    assert np.abs(unit(stored) - unit(pixels)).max() <= tolerance


def test_alpha_follows_the_depth():
    image = round_trip(DEEP, ALPHA, ".png")
    np.testing.assert_array_equal(image.alpha, ALPHA.astype(np.uint16) * 257)


def test_webp_keeps_alpha_and_is_lossless_at_100():
    image = round_trip(RGB, np.maximum(ALPHA, 1), ".webp", 100)
    np.testing.assert_array_equal(image.pixels, RGB)
    np.testing.assert_array_equal(image.alpha, np.maximum(ALPHA, 1))
    assert (round_trip(RGB, None, ".webp", 90).pixels != RGB).any()


@pytest.mark.parametrize("extension", [".jpg", ".jpeg", ".webp"])
def test_quality_counts(extension):
    smooth = np.repeat(np.linspace(30, 220, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    smooth[..., 2] = 90
    sizes = [len(encode_image(RGB, None, extension, quality)) for quality in (10, 60, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]
    assert np.abs(round_trip(smooth, None, extension).pixels.astype(int) - smooth).max() <= 8


def test_jpeg_drops_alpha_and_says_so():
    assert round_trip(RGB, ALPHA, ".jpg").alpha is None
    assert losses(np.uint8, True, ".jpg") == ["JPEG holds no transparency: alpha is left out"]
    assert losses(np.uint8, True, ".png") == []


@pytest.mark.parametrize(
    ("dtype", "extension", "says"),
    [
        (np.uint16, ".jpg", ["JPEG holds no 16-bit pixels: written with 8 bits"]),
        (np.float32, ".png", ["PNG holds no float pixels: written with 16 bits"]),
        (np.float32, ".webp", ["WebP holds no float pixels: written with 8 bits"]),
        (np.uint16, ".png", []),
        (np.float32, ".tif", []),
        (np.uint8, ".jpg", []),
    ],
)
def test_lost_depth_is_said(dtype, extension, says):
    assert losses(dtype, False, extension) == says


@pytest.mark.parametrize(
    ("extension", "says"), [(".pgn", "mean '.png'"), (".gif", "'.gif'"), ("", "without ext")]
)
def test_unknown_extension(extension, says):
    for function in (format_of, lambda e: encode_image(RGB, None, e)):
        with pytest.raises(UsageError, match=says) as caught:
            function(extension)
        assert ".tiff" in str(caught.value)


@pytest.mark.parametrize("quality", [0, 101, -3])
def test_quality_out_of_range(quality):
    with pytest.raises(UsageError, match=f"quality {quality} "):
        encode_image(RGB, None, ".jpg", quality)


def test_too_large_for_the_format():
    with pytest.raises(ImageError, match="20000x1 is too large for WebP"):
        encode_image(np.zeros((1, 20000), np.uint8), None, ".webp")
    with pytest.raises(ImageError, match="too large for JPEG"):
        encode_image(np.zeros((65501, 1), np.uint8), None, ".jpg")


# Writing


def files(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_writes_and_makes_folders(tmp_path):
    path = tmp_path / "new" / "deeper" / "out.png"
    check_writable(path, overwrite=False)
    assert files(tmp_path) == []
    write_atomically(path, b"data", overwrite=False)
    assert path.read_bytes() == b"data"
    assert files(tmp_path) == ["deeper", "new", "out.png"] or set(files(tmp_path)) == {
        "new",
        "deeper",
        "out.png",
    }


def test_existing_needs_overwrite(tmp_path):
    path = tmp_path / "out.png"
    path.write_bytes(b"old")
    for refuse in (lambda: check_writable(path, False), lambda: write_atomically(path, b"new", False)):
        with pytest.raises(ImageError, match=r"out.png exists: .*--overwrite"):
            refuse()
    assert path.read_bytes() == b"old"
    check_writable(path, True)
    write_atomically(path, b"new", True)
    assert path.read_bytes() == b"new"
    assert files(tmp_path) == ["out.png"]


def test_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new.png", b"x", False)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.png").stat().st_mode) == 0o640
    (tmp_path / "new.png").chmod(0o604)
    write_atomically(tmp_path / "new.png", b"y", True)
    assert stat.S_IMODE((tmp_path / "new.png").stat().st_mode) == 0o604


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "r.png", tmp_path / "link.png"
    real.write_bytes(b"old")
    link.symlink_to(real)
    with pytest.raises(ImageError, match=r"link.png exists"):
        write_atomically(link, b"new", False)
    write_atomically(link, b"new", True)
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    dangling = tmp_path / "dangling.png"
    dangling.symlink_to(tmp_path / "real" / "later.png")
    write_atomically(dangling, b"later", False)
    assert (tmp_path / "real" / "later.png").read_bytes() == b"later"


def test_folder_pipe_and_file_as_folder(tmp_path):
    (tmp_path / "dir.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "file").write_bytes(b"")
    cases = {
        "dir.png": "is a folder",
        "pipe.png": "device or pipe",
        "file/out.png": "file is a file, not a folder",
    }
    for name, says in cases.items():
        with pytest.raises(ImageError, match=says):
            check_writable(tmp_path / name, overwrite=True)
        with pytest.raises(ImageError, match=name):
            write_atomically(tmp_path / name, b"x", overwrite=True)
    assert files(tmp_path) == ["dir.png", "file", "pipe.png"]
    assert stat.S_ISFIFO((tmp_path / "pipe.png").stat().st_mode)


def test_unknown_extension_before_the_work(tmp_path):
    with pytest.raises(UsageError, match=r"'\.pgn'"):
        check_writable(tmp_path / "out.pgn", False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ImageError, match="no permission in folder"):
        check_writable(tmp_path / "out.png", False)
    with pytest.raises(ImageError, match="no permission in folder"):
        write_atomically(tmp_path / "out.png", b"x", False)
    tmp_path.chmod(0o700)
    assert files(tmp_path) == []


def test_unwritable_folder_whoever_runs_the_tests(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ImageError, match=f"no permission in folder {tmp_path}"):
        check_writable(tmp_path / "a" / "b" / "out.png", False)


@pytest.mark.parametrize(
    ("failure", "raised", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ImageError, "no space left for"),
        (OSError(errno.EROFS, "Read-only file system"), ImageError, "no permission in folder"),
        (OSError(errno.EIO, "Input/output error"), ImageError, "Input/output error"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
@pytest.mark.parametrize("moment", ["write", "replace"])
def test_nothing_is_left_of_a_failure(tmp_path, monkeypatch, failure, raised, says, moment):
    path = tmp_path / "out.png"
    path.write_bytes(b"old")

    def fail(*args):
        assert len(files(tmp_path)) == 2  # the temporary file is in the same folder
        raise failure

    if moment == "replace":
        monkeypatch.setattr(os, "replace", fail)
    else:

        class Full(io.FileIO):
            def write(self, data):
                super().write(data[:1])
                fail()

        monkeypatch.setattr(write, "open", Full, raising=False)
    with pytest.raises(raised, match=says):
        write_atomically(path, b"new data", overwrite=True)
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == ["out.png"]


def test_a_system_that_stops_in_the_middle(tmp_path):
    """A limit on file size is the full disk that needs no root: the kernel takes a part, then refuses."""
    code = (
        "import resource, signal, sys, pathlib\n"
        "from diffmf_cli.errors import ImageError\n"
        "from diffmf_cli.images.write import write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))\n"
        "try: write_atomically(pathlib.Path(sys.argv[1]), bytes(200000), False)\n"
        "except ImageError as error: print(error)\n"
    )
    path = tmp_path / "out.png"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path} cannot be written: ")
    assert files(tmp_path) == []
