"""Where training crops come from."""

from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
import pytest
import torch

from diffmf_cli.errors import ImageError, UsageError
from diffmf_cli.training.data import CropSampler, Pairs, load_pairs, name_pairs
from diffmf_cli.training.recipe import Data

PLAIN = np.zeros(10, np.float32)  # variation that leaves a crop as it is:
PLAIN[[4, 5, 6]] = 0.9, 0.5, 0.0  # no gamma, no constants, no noise


def sampler(pairs, seed=0, **recipe):
    return CropSampler(pairs, Data(crop=48, **recipe), torch.device("cpu"), seed)


def cut(made, where, vary=PLAIN):
    return made.cut(torch.tensor(where), torch.from_numpy(np.tile(vary, (len(where), 1))))


@pytest.fixture
def ruler():
    """Two pairs whose IR tells the row, and whose VIS tells the column; the second is 100 brighter."""
    pairs = Pairs([], [], [])
    for i, (height, width) in enumerate([(64, 80), (90, 50)]):
        y, x = np.mgrid[:height, :width]
        pairs.names.append(str(i))
        pairs.ir.append((y + 100 * i).astype(np.uint8))
        pairs.vis.append((x + 100 * i).astype(np.uint8))
    return pairs


@pytest.mark.parametrize("turn", range(8))
@pytest.mark.parametrize(("number", "top", "left"), [(0, 0, 0), (0, 16, 32), (0, 5, 11), (1, 42, 2)])
def test_crops_of_each_symmetry(ruler, turn, number, top, left):
    made = sampler(ruler)
    width = int(made.widths[number])
    crops = cut(made, [[int(made.offsets[number]) + top * width + left, width, turn]])
    for crop, whole in zip(crops, [ruler.ir[number], ruler.vis[number]] * 2, strict=True):
        window = whole[top : top + 48, left : left + 48]
        window = window[::-1] if turn & 2 else window
        window = window[:, ::-1] if turn & 4 else window
        window = window.T if turn & 1 else window
        np.testing.assert_array_equal((crop[0, 0] * 255).round().numpy(), window)


def test_draws_cover_the_picture_and_all_symmetries(ruler):
    where, vary = sampler(ruler).draw(3000)
    assert vary.shape == (3000, 10)
    assert 0 <= vary.min() <= vary.max() < 1
    assert set(where[:, 2]) == set(range(8))
    for width, offset, height in ((80, 0, 64), (50, 64 * 80, 90)):
        top, left = np.divmod(where[where[:, 1] == width][:, 0] - offset, width)
        assert (top.min(), top.max()) == (0, height - 48)
        assert (left.min(), left.max()) == (0, width - 48)


def test_seed_decides(ruler):
    (a, va), (b, vb), (_, vc) = (sampler(ruler, seed).draw(16) for seed in (1, 1, 2))
    assert np.array_equal(a, b)
    assert np.array_equal(va, vb)
    assert not np.array_equal(va, vc)


def test_state_goes_on_with_the_same_crops(ruler):
    made = sampler(ruler)
    made.draw(4)
    state = made.state()
    expected = made.draw(4)
    other = sampler(ruler, seed=9)
    other.restore(state)
    for got, wanted in zip(other.draw(4), expected, strict=True):
        assert np.array_equal(got, wanted)


def test_state_goes_on_with_the_same_noise(ruler):
    noisy = PLAIN.copy()
    noisy[6] = 1.0
    dark = [[0, 80, 0]]
    made = sampler(ruler)
    first = cut(made, dark, noisy)[1]
    state = made.state()
    second = cut(made, dark, noisy)[1]
    assert not torch.equal(first, second)
    other = sampler(ruler, seed=9)
    other.restore(state)
    assert torch.equal(cut(other, dark, noisy)[1], second)


def test_constants(ruler):
    vary = PLAIN.copy()
    vary[[5, 8, 9]] = 0.01, 0.4, 0.7
    _, _, ir, vis = cut(sampler(ruler, constants=0.1), [[0, 80, 0]], vary)
    assert ir.unique().item() == pytest.approx(1.2 * 0.4 - 0.1)
    assert vis.unique().item() == pytest.approx(1.2 * 0.7 - 0.1)
    vary[5] = 0.98
    _, _, ir, vis = cut(sampler(ruler), [[0, 80, 0]], vary)
    assert len(ir.unique()) == 1
    assert len(vis.unique()) == 48
    vary[5] = 0.96
    _, _, ir, vis = cut(sampler(ruler), [[0, 80, 0]], vary)
    assert len(ir.unique()) == 48
    assert len(vis.unique()) == 1


def test_a_nearly_black_picture_is_seen_and_counts_as_black(ruler):
    vary = PLAIN.copy()
    vary[[5, 9]] = 0.9, 0.5
    made = sampler(ruler, flat_vis=0.02, dim_vis=0.1)
    seen_ir, seen_vis, ir, vis = cut(made, [[0, 80, 0]], vary)
    plain = cut(sampler(ruler), [[0, 80, 0]], vary)
    torch.testing.assert_close(seen_vis, plain[1] * 0.06)
    assert vis.unique().item() == 0
    assert torch.equal(ir, plain[2])
    assert torch.equal(seen_ir, plain[0])
    vary[5] = 0.84  # other crops stay
    assert all(map(torch.equal, cut(made, [[0, 80, 0]], vary), plain))


def test_noise_is_seen_by_the_network_only_and_on_dark_crops_only(ruler):
    vary = PLAIN.copy()
    vary[6] = 1.0
    seen_ir, seen_vis, ir, vis = cut(sampler(ruler), [[0, 80, 0]], vary)
    assert vis.mean() < 0.25
    assert torch.equal(seen_ir, ir)
    assert 0.01 < (seen_vis - vis).std() < 0.05
    _, seen_vis, _, vis = cut(sampler(ruler), [[64 * 80, 50, 0]], vary)
    assert vis.mean() > 0.25
    assert torch.equal(seen_vis, vis)


def test_variation_stays_in_range(ruler):
    made = sampler(ruler)
    where, vary = (torch.from_numpy(a) for a in made.draw(200))
    for crop in made.cut(where, vary):
        assert crop.shape == (200, 1, 48, 48)
        assert 0 <= crop.min() <= crop.max() <= 1
        assert crop.isfinite().all()


def test_small_pairs_are_left_out(ruler):
    ruler.ir[0], ruler.vis[0] = ruler.ir[0][:40], ruler.vis[0][:40]
    where, _ = sampler(ruler).draw(50)
    assert set(where[:, 1]) == {50}
    ruler.ir[1], ruler.vis[1] = ruler.ir[1][:40], ruler.vis[1][:40]
    with pytest.raises(UsageError, match="crop = 48"):
        sampler(ruler)


def test_reads_folders_in_order(data):
    read = load_pairs([data / "a/train", data / "b/train"])
    assert read.names == [f"a/train/{i:03}" for i in range(4)] + [f"b/train/{i:03}" for i in range(4, 8)]
    for i, (ir, vis) in enumerate(zip(read.ir, read.vis, strict=True)):
        source = data / ("a" if i < 4 else "b") / "train"
        assert np.array_equal(ir, cv2.imread(str(source / "ir" / f"{i:03}.png"), -1))
        visible = next(source.glob(f"vi*/{i:03}.png"))
        assert np.array_equal(vis, cv2.imread(str(visible), -1))


REAL = Path(__file__).parents[3] / "shared/data"


@pytest.mark.skipif(not REAL.exists(), reason=f"no pictures in {REAL}")
@pytest.mark.parametrize(
    ("source", "together", "count", "names", "held_count", "held"),
    [
        ("roadscene/train", "", 171, 0x60576596, 18, 0x5802A48B),
        ("msrs/train", "", 241, 0xECCE7FA9, 24, 0xE6156BFC),
        ("harvard/ct-mri/train", r".*(?=\d$)", 160, 0x6CE13E7D, 5, 0x3EE51DBD),
        ("harvard/pet-mri/train", r".*(?=\d$)", 245, 0xC4CA9F3C, 0, 0),
        ("harvard/spect-mri/train", r".*(?=\d$)", 333, 0x30C631C7, 17, 0x9D92F0C1),
    ],
)
def test_what_the_shipped_weights_were_trained_on_stays_the_same(
    source, together, count, names, held_count, held
):
    """Other names or another order would validate on pairs that were trained on."""

    def digest(lines):
        return len(lines), crc32("\n".join(lines).encode())

    found = name_pairs(REAL / source)
    assert all(ir.stem == vis.stem == name.rpartition("/")[2] for name, ir, vis in found)
    assert digest([name for name, _, _ in found]) == (count, names)
    nothing = [np.zeros((1, 1), np.uint8)] * count
    pairs = Pairs([name for name, _, _ in found], nothing, nothing)
    assert digest(pairs.split(Data().hold_out, together)[1].names) == (held_count, held)


def test_names_that_differ_by_the_camera_pair_and_other_files_do_not_count(tmp_path, pairs):
    pairs(tmp_path / "s", range(2))
    for folder, camera in (("ir", "ir"), ("vi", "vis")):
        (tmp_path / "s" / folder / "000.png").rename(tmp_path / "s" / folder / "a.png")
        (tmp_path / "s" / folder / "001.png").rename(tmp_path / "s" / folder / f"a-1_{camera}.png")
    (tmp_path / "s/ir/notes.txt").write_text("a")
    (tmp_path / "s/vi/.hidden.png").write_text("b")
    # In the order of file names, in which `-` comes before the `.` of an extension.
    assert load_pairs([tmp_path / "s"]).names == [f"{tmp_path.name}/s/a-1_ir", f"{tmp_path.name}/s/a"]


def test_colours_become_luma(tmp_path, pairs):
    pairs(tmp_path / "s", range(1))
    red = np.zeros((56, 72, 3), np.uint8)
    red[..., 2] = 200  # BGR
    cv2.imwrite(str(tmp_path / "s/vi/000.png"), red)
    assert np.unique(load_pairs([tmp_path / "s"]).vis[0]).tolist() == [round(0.299 * 200)]


def test_held_out_by_name_alone(data):
    everything = load_pairs([data / "a/train", data / "b/train"])
    train, held = everything.split(3)
    assert sorted(train.names + held.names) == sorted(everything.names)
    assert held.names == [name for name in everything.names if crc32(name.encode()) % 3 == 0]
    assert held.names
    assert train.names
    alone_train, alone_held = load_pairs([data / "b/train"]).split(3)
    assert set(alone_held.names) == {name for name in held.names if name.startswith("b/")}
    assert set(alone_train.names) == {name for name in train.names if name.startswith("b/")}
    assert everything.split(0)[0].names == everything.names
    assert everything.split(0)[1].names == []
    for name, ir in zip(held.names, held.ir, strict=True):
        assert ir is everything.ir[everything.names.index(name)]


def test_neighbours_are_held_out_together():
    names = [f"s/{case}{piece:03}" for case in (2, 17, 25) for piece in range(60)]
    nothing = [np.zeros((1, 1), np.uint8)] * len(names)
    train, held = Pairs(names, nothing, nothing).split(4, r".*(?=\d$)")
    tens = {name[:-1] for name in names}
    assert {name[:-1] for name in held.names} == {t for t in tens if crc32(t.encode()) % 4 == 0}
    assert held.names
    assert not {name[:-1] for name in train.names} & {name[:-1] for name in held.names}
    assert Pairs(names, nothing, nothing).split(4, "no match")[1].names == (
        Pairs(names, nothing, nothing).split(4)[1].names
    )


@pytest.mark.parametrize(("ir", "vis"), [("mri", "pet"), ("mri", "ct"), ("ir", "vis")])
def test_names_of_folders(tmp_path, pairs, ir, vis):
    pairs(tmp_path / "s", range(1))
    expected = load_pairs([tmp_path / "s"])
    (tmp_path / "s/ir").rename(tmp_path / "s/1")
    (tmp_path / "s/vi").rename(tmp_path / "s/2")
    (tmp_path / "s/1").rename(tmp_path / "s" / ir)
    (tmp_path / "s/2").rename(tmp_path / "s" / vis)
    read = load_pairs([tmp_path / "s"])
    assert np.array_equal(read.ir[0], expected.ir[0])
    assert np.array_equal(read.vis[0], expected.vis[0])


def test_bad_folders(tmp_path, pairs):
    with pytest.raises(UsageError, match=f"{tmp_path / 'no'}: training reads pairs from"):
        load_pairs([tmp_path / "no"])
    pairs(tmp_path / "empty", [])
    with pytest.raises(UsageError, match="no pictures"):
        load_pairs([tmp_path / "empty"])
    pairs(tmp_path / "s", range(2))
    (tmp_path / "s/vi/001.png").rename(tmp_path / "s/vi/002.png")
    with pytest.raises(UsageError, match=r"ir/001\.png: no picture of that name in .*vi"):
        load_pairs([tmp_path / "s"])
    (tmp_path / "s/vi/002.png").unlink()
    cv2.imwrite(str(tmp_path / "s/vi/001.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(UsageError, match=r"001\.png: \(72, 56\) but .* is \(9, 9\)"):
        load_pairs([tmp_path / "s"])
    (tmp_path / "s/vi/001.jpg").write_text("another")
    with pytest.raises(UsageError, match=r"s: 001\.jpg and 001\.png show one scene"):
        load_pairs([tmp_path / "s"])
    (tmp_path / "s/vi/001.jpg").unlink()
    (tmp_path / "s/vi/001.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"vi/001\.png"):
        load_pairs([tmp_path / "s"])
