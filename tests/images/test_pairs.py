"""Pairs by name: which names belong together, and what is refused."""

import errno
import os
from pathlib import Path, PurePath

import pytest

from diffmf_cli.errors import UsageError
from diffmf_cli.images.pairs import list_pictures, match_results, pair_folders, pair_names, scan_folder


@pytest.fixture
def folders(tmp_path):
    """A function that makes a folder with empty files of the given names."""

    def make(folder, *names):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / folder

    return make


def keys(pairing):
    return [(pair.key, pair.ir.name, pair.vis.name) for pair in pairing.pairs]


@pytest.mark.parametrize(
    ("ir", "vis", "key"),
    [
        ("00001.png", "00001.jpg", "00001"),
        ("FLIR_0007.PNG", "FLIR_0007.tiff", "FLIR_0007"),
        ("DJI_0001_T.JPG", "DJI_0001_W.JPG", "DJI_0001"),
        ("DJI_0001_T.JPG", "DJI_0001_Z.JPG", "DJI_0001"),
        ("img1_ir.png", "img1_vis.png", "img1"),
        ("img1-thermal.png", "img1-visible.png", "img1"),
        ("IR1.png", "VIS1.png", "1"),
        ("lwir 12.png", "RGB 12.png", "12"),
        ("20230101T120000_T.png", "20230101T120000_V.png", "20230101T120000"),
        ("ir.png", "vis.png", "scene"),
    ],
)
def test_names_that_pair(folders, ir, vis, key):
    pairing = pair_folders(folders("a", ir), folders("b", vis))
    assert keys(pairing) == [(key, ir, vis)]
    assert not pairing.ir_orphans
    assert not pairing.vis_orphans


@pytest.mark.parametrize(
    ("ir", "vis"),
    [("1.png", "2.png"), ("bird.png", "b_vis.png"), ("visit1.png", "1.png"), ("at.png", "a.png")],
)
def test_names_that_do_not_pair_are_orphans(folders, ir, vis):
    pairing = pair_folders(folders("a", ir), folders("b", vis))
    assert keys(pairing) == []
    assert [path.name for path in pairing.ir_orphans + pairing.vis_orphans] == [ir, vis]


def test_never_by_order(folders):
    pairing = pair_folders(folders("a", "1.png", "2.png", "3.png"), folders("b", "2.png", "3.png", "4.png"))
    assert [key for key, *_ in keys(pairing)] == ["2", "3"]


def test_equal_stems_come_before_stripped_ones(folders):
    pairing = pair_folders(folders("a", "x_v.png", "x_t.png"), folders("b", "x_v.png", "x_t.png"))
    assert keys(pairing) == [("x_t", "x_t.png", "x_t.png"), ("x_v", "x_v.png", "x_v.png")]


@pytest.mark.parametrize(
    ("ir", "vis"), [(("1.png", "1.jpg"), ("1.png",)), (("1_T.png",), ("1_W.png", "1_Z.png"))]
)
def test_ambiguity_names_both_candidates(folders, ir, vis):
    with pytest.raises(UsageError) as error:
        pair_folders(folders("a", *ir), folders("b", *vis))
    assert all(name in str(error.value) for name in max(ir, vis, key=len))


def test_ambiguous_names_without_a_partner_are_only_orphans(folders):
    pairing = pair_folders(folders("a", "1.png", "2.png", "2.jpg"), folders("b", "1.png"))
    assert [path.name for path in pairing.ir_orphans] == ["2.jpg", "2.png"]


def test_other_files_do_not_count(folders):
    pairing = pair_folders(folders("a", "1.png", "Thumbs.db", "._1.png", "notes.txt"), folders("b", "1.png"))
    assert len(pairing.pairs) == 1
    assert not pairing.ir_orphans


def test_folders_below_are_part_of_the_name(folders):
    ir, vis = folders("a", "1.png", "day/1.png", "night/1.png"), folders("b", "1.png", "day/1.png")
    assert [pair.key for pair in pair_folders(ir, vis).pairs] == ["1"]
    pairing = pair_folders(ir, vis, recursive=True)
    assert [pair.key for pair in pairing.pairs] == ["1", "day/1"]
    assert [path.relative_to(ir).as_posix() for path in pairing.ir_orphans] == ["night/1.png"]


def test_pair_by_regex(folders):
    ir, vis = folders("a", "left_0012_x.png"), folders("b", "right-0012-y.png", "right-0013-y.png")
    pairing = pair_folders(ir, vis, pair_by=r"(?P<id>\d{4})")
    assert keys(pairing) == [("0012", "left_0012_x.png", "right-0012-y.png")]
    assert [path.name for path in pairing.vis_orphans] == ["right-0013-y.png"]


@pytest.mark.parametrize(
    ("pattern", "hint"), [("(?P<id>", "not a regular expression"), (r"\d+", "named group")]
)
def test_bad_regex(folders, pattern, hint):
    with pytest.raises(UsageError, match=hint):
        pair_folders(folders("a", "1.png"), folders("b", "1.png"), pair_by=pattern)


def test_missing_empty_and_equal_folders(folders, tmp_path):
    full = folders("a", "1.png")
    (tmp_path / "empty").mkdir()
    for other, hint in [("none", "does not exist"), ("empty", "no picture"), ("a/1.png", "is a file")]:
        with pytest.raises(UsageError, match=hint):
            pair_folders(full, tmp_path / other)
    with pytest.raises(UsageError, match="the same"):
        pair_folders(full, full)


@pytest.mark.parametrize(
    "result", ["1_vis.png", "1_vis_fused.png", "1.png", "1_fused.jpg", "Fusion_1_ir.png"]
)
def test_results_are_found_by_scene_or_visible_name(folders, result):
    vis = folders("b", "1_vis.png")
    pairs = pair_folders(folders("a", "1_ir.png"), vis).pairs
    found, rest = match_results(pairs, vis, folders("r", result, "other.png"))
    assert {key: path.name for key, path in found.items()} == {"1": result}
    assert [path.name for path in rest] == ["other.png"]


def test_results_of_names_that_differ_in_one_letter(folders):
    names = ("x-v.png", "x-t.png")
    vis = folders("b", *names)
    pairs = pair_folders(folders("a", *names), vis).pairs
    found, _ = match_results(pairs, vis, folders("r", "x-v-fused.png", "x-t-fused.png"))
    assert {key: path.name for key, path in found.items()} == {
        "x-t": "x-t-fused.png",
        "x-v": "x-v-fused.png",
    }


def test_ambiguous_names_leave_the_others_alone():
    names = [PurePath(name) for name in ("1.png", "1.jpg", "2.png")]
    found = pair_names(names, [PurePath("1.png"), PurePath("2.png"), PurePath("3.png")])
    assert found.pairs == [("2", PurePath("2.png"), PurePath("2.png"))]
    assert [str(name) for name in found.ir_orphans + found.vis_orphans] == ["3.png"]
    (ambiguity,) = found.ambiguous
    assert ambiguity.names == (PurePath("1.png"), PurePath("1.jpg"))
    assert "1.png and 1.jpg in the infrared folder" in str(ambiguity)


def test_links_are_followed_but_not_in_circles(folders, tmp_path):
    ir = folders("a", "1.png", "day/2.png")
    folders("elsewhere", "3.png")
    (ir / "more").symlink_to(tmp_path / "elsewhere")
    (ir / "day" / "again").symlink_to(ir)
    listing = scan_folder(ir, recursive=True)
    assert [name.as_posix() for name in listing.names] == ["1.png", "day/2.png", "more/3.png"]
    assert [str(ir / "day" / "again") in line for line in listing.loops] == [True]


def test_broken_links_are_listed_and_pipes_are_not(folders):
    ir = folders("a", "1.png")
    (ir / "lost.png").symlink_to(ir / "nowhere.png")
    (ir / "self.png").symlink_to(ir / "self.png")
    os.mkfifo(ir / "pipe.png")
    (ir / "folder.png").mkdir()
    assert [str(name) for name in scan_folder(ir).names] == ["1.png", "lost.png", "self.png"]


def test_folder_of_results_and_hidden_folders_do_not_count(folders):
    ir = folders("a", "1.png", "fused/1_fused.png", ".cache/1.png")
    names = scan_folder(ir, recursive=True, besides=ir / "fused").names
    assert [str(name) for name in names] == ["1.png"]


def test_unreadable_folder_is_told(folders, monkeypatch):
    ir = folders("a", "1.png", "closed/2.png")
    scandir = os.scandir

    def denied(path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    listing = scan_folder(ir, recursive=True)
    assert [str(name) for name in listing.names] == ["1.png"]
    assert "closed cannot be read (Permission denied)" in listing.unreadable[0]
    with pytest.raises(UsageError, match="closed"):
        list_pictures(ir, recursive=True)
