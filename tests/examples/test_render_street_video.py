import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "render_street_video.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("render_street_video", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_clip_in_which_something_moves(script, tmp_path):
    arguments = ["--out", str(tmp_path), "--size", "96x72", "--seconds", "1", "--fps", "2"]
    assert script.main(arguments) == 0
    for name, coloured in (("ir", False), ("vis", True)):
        capture = cv2.VideoCapture(str(tmp_path / f"street_night_{name}.mp4"))
        assert capture.get(cv2.CAP_PROP_FPS) == 2
        frames = [capture.read()[1].astype(int) for _ in range(2)]
        assert not capture.read()[0]
        assert all(frame.shape == (72, 96, 3) for frame in frames)
        assert (np.ptp(frames[0], axis=2).max() > 60) == coloured
        changed = np.abs(frames[1] - frames[0]).max(2) > 40
        assert 0.005 < changed.mean() < 0.3  # the traffic, not the street


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--seed", "-1"], ["--size", "8x8"]])
def test_impossible_arguments(script, arguments, tmp_path):
    with pytest.raises(SystemExit) as exit:
        script.main([*arguments, "--out", str(tmp_path)])
    assert exit.value.code == 2
    assert not list(tmp_path.iterdir())
