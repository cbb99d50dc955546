import numpy as np
import pytest

from diffmf_cli.alignment.choice import choose, parse_align
from diffmf_cli.alignment.transform import Transform
from diffmf_cli.errors import UsageError
from diffmf_cli.fusion.fuser import prepare

SIZE = 320, 240
SHIFT = np.array([[1, 0, 24], [0, 1, -15], [0, 0, 1]], np.float64)


@pytest.fixture
def pair(scene_of, moved):
    ir, vis = scene_of(0, SIZE)
    ir16 = (7000 + 2000 * moved(ir, SHIFT)).astype(np.uint16)
    return ir16, np.rint(255 * np.dstack([vis, vis, vis / 2])).astype(np.uint8)


def test_words_and_files(tmp_path):
    assert (parse_align("none"), parse_align("auto", 0.5)) == ("none", "auto")
    path = tmp_path / "rig.json"
    path.write_bytes(Transform(SHIFT, "affine", SIZE, SIZE, 0.5).to_json())
    assert np.array_equal(parse_align(str(path)).matrix, SHIFT)
    with pytest.raises(UsageError, match="did you mean 'none'"):
        parse_align("nnoe")
    with pytest.raises(UsageError, match="--align auto only"):
        parse_align(str(path), 0.5)
    assert np.array_equal(parse_align(str(path), outside="blank").matrix, SHIFT)
    assert parse_align("auto", outside="crop") == "auto"
    with pytest.raises(UsageError, match="--outside crop is for an aligned IR: add --align"):
        parse_align("none", outside="crop")


def test_raw_counts_and_colours_align(pair):
    transform, why_not = choose("auto", *pair)
    assert why_not == ""
    assert np.abs(transform.matrix - np.linalg.inv(SHIFT)).max() < 1


def test_left_as_it_is_says_why(scene_of):
    transform, why_not = choose("auto", *scene_of(0, SIZE))
    assert transform is None
    assert why_not.startswith("not aligned")


def test_prepared_pictures_fit(pair):
    """What `prepare` hands to the network is the part of both that shows the same."""
    aligned = prepare(*pair, align="auto", outside="crop", ir_range="7000,9000")
    assert aligned.ir.shape == aligned.vis.shape == aligned.shape[:2]
    height, width = aligned.shape[:2]
    assert (height, width) == (pytest.approx(225, abs=2), pytest.approx(296, abs=2))
    original = pair[1][aligned.shown]
    assert original.shape == aligned.shape
    # Back from where it was shifted to, the infrared picture is its own original again.
    expected = prepare(pair[0][: 240 - 15, 24:], pair[1][15:, : 320 - 24], ir_range="7000,9000").ir
    top = aligned.shown[0].start - 15
    inner = aligned.ir[5:-5, 5:-5], expected[top + 5 : top + height - 5, 5 : width - 5]
    assert np.abs(inner[0] - inner[1]).mean() < 0.02


def test_a_transform_of_other_sizes_is_refused(pair):
    with pytest.raises(UsageError, match="IR pictures of 9x9"):
        prepare(*pair, align=Transform(np.eye(3), "affine", (9, 9), SIZE, 0.5))
    with pytest.raises(UsageError, match="did you mean 'blank'"):
        prepare(*pair, outside="blanc")
