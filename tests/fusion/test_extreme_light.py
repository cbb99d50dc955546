"""The shipped weights where one camera sees next to nothing: the result shows what the better one shows.

Scenes are the project's own: a black visible frame, headlight glare, saturated infrared, fog.
"""

import cv2
import numpy as np
import pytest

import diffmf_cli

SCENES = ("black", "glare", "saturated-ir", "fog")


@pytest.fixture(scope="module", params=["base", "lite"])
def model(request):
    return diffmf_cli.load_model(request.param, device="cpu")


def local_contrast(picture):
    """Standard deviation in windows of 15x15 pixels, in grey levels of 8 bits."""
    x = picture.astype(np.float64) / (257 if picture.dtype == np.uint16 else 1)
    x = x @ [0.299, 0.587, 0.114] if x.ndim == 3 else x
    mean = cv2.blur(x, (15, 15))
    return np.sqrt(np.maximum(cv2.blur(x * x, (15, 15)) - mean**2, 0))


@pytest.mark.parametrize("scene", SCENES)
def test_contrast_of_the_better_picture_stays(model, street_in, scene):
    ir, vis = street_in(scene)
    sources = [local_contrast(p) for p in (ir, vis)]
    fused = local_contrast(model.fuse(ir, vis))
    # `base` in the black scene: 10.70 beside 10.78.
    assert fused.mean() >= 0.99 * max(s.mean() for s in sources)
    # And nearly everywhere, not in the mean alone: lost windows have less than half of what there was.
    better = np.maximum(*sources)
    textured = better > 4  # twice what sensor noise gives in the infrared sky
    assert (fused[textured] < better[textured] / 2).mean() < 0.08
    assert (fused[textured] / better[textured]).mean() > 0.85


def test_the_check_can_fail(street_in):
    ir, vis = street_in("black")
    average = local_contrast((ir.astype(np.float64)[..., None] + vis) / 2)
    assert average.mean() < local_contrast(ir).mean()
