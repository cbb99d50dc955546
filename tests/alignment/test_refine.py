import numpy as np
import pytest

from diffmf_cli.alignment.geometry import corner_distance
from diffmf_cli.alignment.pyramid import Pyramid
from diffmf_cli.alignment.refine import SIMILARITY, ZOOM, frame, halves, template

SIZE = 480, 320


@pytest.mark.parametrize("parameters", [ZOOM, SIMILARITY])
def test_halves_of_the_edges_agree_where_all_edges_fit(scene_of, parameters):
    ir, vis = scene_of(0, SIZE)
    one, other = halves(frame(template(ir, 1.0, 480), Pyramid(vis), np.eye(3)), parameters)
    assert 0 < corner_distance(one, other, SIZE) < 0.5


def test_halves_of_the_edges_differ_where_they_pull_apart(scene_of):
    ir, vis = scene_of(0, SIZE)
    squares = [np.arange(side) * 8 // max(SIZE) for side in SIZE[::-1]]
    white = np.add.outer(*squares) % 2 == 0
    ir = np.where(white, ir, np.roll(ir, 3, 1))
    one, other = halves(frame(template(ir, 1.0, 480), Pyramid(vis), np.eye(3)), ZOOM)
    assert corner_distance(one, np.eye(3), SIZE) < 0.5
    assert 2 < corner_distance(one, other, SIZE) < 4
