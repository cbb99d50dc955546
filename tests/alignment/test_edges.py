import numpy as np

from diffmf_cli.alignment.edges import content, edges, turn


def test_edges_do_not_know_which_side_is_bright(scene_of):
    ir, _ = scene_of(0, (96, 64))
    assert np.allclose(edges(1 - ir), edges(ir), atol=1e-3)


def test_edges_do_not_know_units(scene_of):
    ir, _ = scene_of(0, (96, 64))
    assert np.allclose(edges(273 + 100 * ir), edges(ir), atol=2e-2)


def test_a_turned_picture_has_turned_edges(scene_of):
    ir, _ = scene_of(0, (96, 96))
    # One quarter to the left on the screen is minus 90 degrees where y points down.
    expected = turn(np.rot90(edges(ir)), -np.pi / 2)
    assert np.allclose(edges(np.ascontiguousarray(np.rot90(ir))), expected, atol=1e-3)


def test_turning_adds_to_the_angle():
    def described(a):
        return np.stack([np.cos(2 * a), np.sin(2 * a), np.cos(4 * a), np.sin(4 * a)], -1)

    angles = np.linspace(0, 3, 7)
    assert np.allclose(turn(described(angles), 0.3), described(angles + 0.3), atol=1e-6)


def test_content_is_what_a_flat_border_leaves():
    rng = np.random.default_rng(0)
    picture = rng.uniform(0.2, 1, (60, 80)).astype(np.float32)
    assert content(picture) is None or content(picture).mean() > 0.95
    picture[:, :20] = 0
    mask = content(picture)
    assert not mask[:, :20].any()
    assert mask[:, 24:].all()


def test_an_edge_of_the_border_is_no_edge(scene_of):
    ir, _ = scene_of(0, (96, 64))
    ir[:, :30] = 0
    assert edges(ir)[:, :29].any()
    assert not edges(ir, content(ir))[:, :29].any()
