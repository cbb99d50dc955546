import json

import numpy as np
import pytest

from diffmf_cli.alignment.transform import Transform, read_transform
from diffmf_cli.errors import UsageError

GOOD = {
    "matrix": [[0.5, 0.01, 100], [-0.01, 0.5, 80], [0, 0, 1]],
    "model": "affine",
    "ir_size": [640, 512],
    "vis_size": [1280, 960],
    "score": 0.4,
}


@pytest.fixture
def saved(tmp_path):
    def write(text, **changes):
        path = tmp_path / "rig.json"
        path.write_text(json.dumps(GOOD | changes) if text is None else text)
        return path

    return write


def test_a_file_reads_back(tmp_path):
    transform = Transform(np.array(GOOD["matrix"]), "affine", (640, 512), (1280, 960), 0.4)
    path = tmp_path / "rig.json"
    path.write_bytes(transform.to_json(pairs=20))
    again = read_transform(path)
    assert np.allclose(again.matrix, transform.matrix, rtol=1e-9)
    assert again.facts() == transform.facts()
    assert json.loads(path.read_text())["pairs"] == 20


def test_matrix_may_have_any_scale(saved):
    path = saved(None, matrix=[[2 * value for value in row] for row in GOOD["matrix"]])
    assert np.allclose(read_transform(path).matrix, GOOD["matrix"])


@pytest.mark.parametrize(
    ("text", "changes", "says"),
    [
        ("", {}, "not a JSON file"),
        ("[" * 100_000, {}, "not a JSON file"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), {}, "not a JSON file"),
        ("[1, 2]", {}, "no object"),
        ("{}", {}, "'matrix' is not 3 rows"),
        (None, {"matrix": [[1, 0, 0], [0, 1, 0]]}, "'matrix' is not 3 rows"),
        (None, {"matrix": [[1, 0, 0], [0, "1", 0], [0, 0, 1]]}, "'matrix' is not 3 rows"),
        (None, {"matrix": [[1, 0, 0], [0, float("nan"), 0], [0, 0, 1]]}, "'matrix' is not 3 rows"),
        (None, {"matrix": [[1, 2, 0], [2, 4, 0], [0, 0, 1]]}, "singular"),
        (None, {"matrix": [[0, 0, 0], [0, 0, 0], [0, 0, 0]]}, "singular"),
        (None, {"matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 0]]}, "singular"),
        (None, {"matrix": [[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]], "model": "homography"}, "horizon"),
        (
            None,
            {"matrix": [[1, 0, 0], [0, 1, 0], [0, 1e-5, 1]]},
            "with 0, 1e-05, 1, where an affine one ends",
        ),
        (None, {"matrix": [[1, 0, 5000], [0, 1, 0], [0, 0, 1]]}, "outside"),
        (None, {"model": "tps"}, "'tps'"),
        (None, {"score": "high"}, "'high'"),
        (None, {"ir_size": [640]}, "'ir_size'"),
        (None, {"vis_size": [0, 5]}, "'vis_size'"),
        (None, {"vis_size": None}, "'vis_size'"),
    ],
)
def test_files_that_are_none(saved, text, changes, says):
    path = saved(text, **changes)
    with pytest.raises(UsageError) as error:
        read_transform(path)
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_perspective_is_a_homography(saved):
    path = saved(None, matrix=[[1, 0, 0], [0, 1, 0], [0, 1e-5, 1]], model="homography")
    assert read_transform(path).model == "homography"
    unsaid = {key: value for key, value in json.loads(path.read_text()).items() if key != "model"}
    path.write_text(json.dumps(unsaid))
    assert read_transform(path).model == "homography"
    path.write_text(json.dumps(unsaid | {"matrix": [[2, 0, 0], [0, 2, 0], [0, 0, 2]], "model": "affine"}))
    assert read_transform(path).model == "affine"  # in any scale


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "no.json", tmp_path):
        with pytest.raises(UsageError, match="cannot read the alignment"):
            read_transform(path)


def test_other_sizes_are_refused():
    transform = Transform(np.eye(3), "affine", (640, 512), (1280, 960), 0.4)
    transform.check_sizes((640, 512), (1280, 960))
    with pytest.raises(UsageError, match=r"rig\.json is for VIS pictures of 1280x960, this one has 640x480"):
        transform.check_sizes((640, 512), (640, 480), "rig.json")
    with pytest.raises(UsageError, match="IR pictures of 640x512"):
        transform.check_sizes((512, 640), (1280, 960))
