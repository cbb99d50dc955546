import io

import PIL.Image
import pytest
from PIL import ExifTags

from diffmf_cli.alignment.focal import fov_ratio


def photo(**values):
    picture = PIL.Image.new("L", (400, 300))
    exif = PIL.Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base[name]: value for name, value in values.items()})
    data = io.BytesIO()
    picture.save(data, "JPEG", exif=exif)
    return data.getvalue()


@pytest.mark.parametrize(
    ("ir", "vis", "expected"),
    [
        ({"FocalLengthIn35mmFilm": 48}, {"FocalLengthIn35mmFilm": 24}, 0.5),
        # 400 pixels at 1000 a centimetre are 4 mm.
        (
            {"FocalLength": 8.0, "FocalPlaneXResolution": 1000.0, "FocalPlaneResolutionUnit": 3},
            {"FocalLengthIn35mmFilm": 36},
            0.5,
        ),
        ({"FocalLength": 8.0}, {"FocalLengthIn35mmFilm": 36}, None),
        ({}, {"FocalLengthIn35mmFilm": 36}, None),
        ({"FocalLengthIn35mmFilm": 0}, {"FocalLengthIn35mmFilm": 36}, None),
        ({"FocalLengthIn35mmFilm": 1000}, {"FocalLengthIn35mmFilm": 8}, None),
    ],
)
def test_ratio_of_the_views(ir, vis, expected):
    assert fov_ratio(photo(**ir), photo(**vis)) == pytest.approx(expected)


def test_files_without_exif(tmp_path):
    assert fov_ratio(tmp_path / "no.jpg", b"no picture") is None
