import numpy as np
import pytest

from diffmf_cli.alignment.geometry import corner_distance, similarity
from diffmf_cli.alignment.rig import consensus, fit_together
from diffmf_cli.alignment.transform import Transform
from diffmf_cli.errors import DiffmfError

SIZE = 480, 320
TRUTH = np.array([[1, 0, 30], [0, 1, -12], [0, 0, 1]]) @ similarity(SIZE, 3, 1.05)


def guesses(count, noise, wrong=0, model="affine"):
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        off = np.array([[1, 0, rng.normal(0, noise)], [0, 1, rng.normal(0, noise)], [0, 0, 1]])
        matrix = off @ TRUTH @ similarity(SIZE, rng.normal(0, noise / 8), 1 + rng.normal(0, noise / 300))
        if number < wrong:
            matrix = similarity(SIZE, rng.uniform(-6, 6), rng.uniform(0.5, 0.8))
        found.append(Transform(matrix, model, SIZE, SIZE, float(rng.uniform(0.2, 0.6))))
    return found


@pytest.mark.parametrize("wrong", [0, 8])
def test_many_are_better_than_one_and_wrong_ones_have_no_say(wrong):
    found = guesses(20, 2.0, wrong)
    rig, agreeing = consensus(found)
    single = np.median([corner_distance(one.matrix, TRUTH, SIZE) for one in found])
    assert corner_distance(rig.matrix, TRUTH, SIZE) < single / 2
    assert 20 - wrong - 5 <= len(agreeing) <= 20 - wrong
    assert min(agreeing) >= wrong
    assert (rig.model, rig.matrix[2].tolist()) == ("affine", [0, 0, 1])


def test_homographies_stay_homographies():
    tilted = TRUTH @ np.array([[1, 0, 0], [0, 1, 0], [1e-4, 0, 1]])
    rig, _ = consensus([Transform(tilted / tilted[2, 2], "homography", SIZE, SIZE, 0.5)] * 3)
    assert rig.model == "homography"
    assert corner_distance(rig.matrix, tilted, SIZE) < 0.01


def test_no_agreement_is_an_error():
    with pytest.raises(DiffmfError, match="only 1 of 6 pairs agree"):
        consensus(guesses(6, 2.0, 6))
    with pytest.raises(DiffmfError, match="only 1 of 1 pairs agree"):
        consensus(guesses(1, 0))


def test_one_fit_to_all_pairs_is_better_than_where_it_starts(scene_of, moved):
    pairs = []
    for seed in range(4):
        ir, vis = scene_of(seed, SIZE)
        pairs.append((moved(ir, np.linalg.inv(TRUTH)), vis))
    pairs.append((pairs[0][0], scene_of(9, SIZE)[1]))  # of two scenes: it must not pull
    start = np.array([[1, 0, 2.5], [0, 1, -2], [0, 0, 1]]) @ TRUTH
    rig = fit_together(Transform(start, "affine", SIZE, SIZE, 0.5), lambda: iter(pairs))
    assert corner_distance(start, TRUTH, SIZE) > 3
    assert corner_distance(rig.matrix, TRUTH, SIZE) < 0.25
    assert 0.3 < rig.score < 1
    assert rig.model == "affine"


def test_one_fit_finds_a_perspective(scene_of, moved):
    tilted = TRUTH @ np.array([[1, 0, 0], [0, 1, 0], [8e-5, -5e-5, 1]])
    tilted /= tilted[2, 2]
    scenes = [scene_of(seed, SIZE) for seed in range(3)]
    pairs = [(moved(ir, np.linalg.inv(tilted)), vis) for ir, vis in scenes]
    rig = fit_together(Transform(TRUTH, "homography", SIZE, SIZE, 0.5), lambda: iter(pairs))
    assert corner_distance(TRUTH, tilted, SIZE) > 3
    assert corner_distance(rig.matrix, tilted, SIZE) < 0.4


def test_a_pair_of_few_edges_has_a_say(scene_of, moved):
    """Two pairs of one scene that disagree by 4 pixels, one of them blank but for a third of it."""
    ir, vis = scene_of(2, SIZE)
    other = np.array([[1, 0, 4], [0, 1, 0], [0, 0, 1]])
    few = [np.full_like(picture, picture.mean()) for picture in (ir, vis)]
    for blank, picture in zip(few, (ir, vis), strict=True):
        blank[:, 160:320] = picture[:, 160:320]
    pairs = [(ir, vis), (moved(few[0], np.linalg.inv(other)), few[1])]
    rig = fit_together(Transform(np.eye(3), "affine", SIZE, SIZE, 0.5), lambda: iter(pairs))
    middle = rig.matrix @ [240, 160, 1] - [240, 160, 1]
    assert 0.4 < middle[0] < 3.6
