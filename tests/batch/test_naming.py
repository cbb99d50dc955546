from pathlib import PurePath

import pytest

from diffmf_cli.batch.naming import WRITABLE, OutsideError, ResultFolder, check_template, result_name
from diffmf_cli.errors import UsageError
from diffmf_cli.images.write import FORMATS


def name(template="{stem}_fused{ext}", format="auto", vis="day/a.b_vis.jpg", ir="day/a.b_ir.tif"):
    check_template(template, format)
    return result_name(template, format, "day/a.b", PurePath(ir), PurePath(vis)).as_posix()


def test_the_tree_of_vis_is_kept():
    assert name() == "day/a.b_vis_fused.png"


def test_tiff_stays_tiff():
    assert name(vis="x.TIF") == "x_fused.TIF"
    assert name(vis="x.TIF", format="jpg") == "x_fused.jpg"


def test_fields():
    assert name("{key}-{ir_stem}.webp") == "day/a.b-a.b_ir.webp"
    assert name("fused/{stem}{ext}", format="tiff") == "day/fused/a.b_vis.tiff"


@pytest.mark.parametrize(
    ("template", "format", "says"),
    [
        ("{stm}{ext}", "auto", "did you mean 'stem'"),
        ("{stem.__class__}{ext}", "auto", "unknown field"),
        ("{stem", "auto", "not understood"),
        ("fused{ext}", "auto", "the same name"),
        ("{stem}", "auto", "does not end as a picture"),
        ("{stem}.bmp", "auto", "does not end as a picture"),
        ("{stem}.png", "jpg", "--format jpg"),
    ],
)
def test_templates_that_cannot_be_meant(template, format, says):
    with pytest.raises(UsageError, match=says):
        check_template(template, format)


def test_known_extensions_are_those_that_can_be_written():
    assert set(FORMATS) == WRITABLE


@pytest.mark.parametrize("bad", ["../x.png", "a/../../x.png", "/etc/x.png", "s3://b/x.png", "", "..", "a/.."])
def test_nothing_leaves_the_folder(tmp_path, bad):
    with pytest.raises(OutsideError):
        ResultFolder(str(tmp_path / "out")).place(bad)


def test_links_out_of_the_folder_are_refused(tmp_path):
    out = tmp_path / "out"
    (out / "inside").mkdir(parents=True)
    (out / "away").symlink_to(tmp_path)
    (out / "x.png").symlink_to(tmp_path / "precious.png")
    (out / "near").symlink_to(out / "inside")
    folder = ResultFolder(str(out))
    for bad in ("away/x.png", "x.png", "away/deep/er/x.png"):
        with pytest.raises(OutsideError, match="link out of"):
            folder.place(bad)
    assert folder.place("near/x.png") == str(out / "near" / "x.png")
    assert folder.place("new/x.png") == str(out / "new" / "x.png")
