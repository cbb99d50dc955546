"""`diffmf volume`: the slices of two volumes, as one that lies where the second does."""

import numpy as np
import pytest

import diffmf_cli
from diffmf_cli.images.range import IntensityRange

nibabel = pytest.importorskip("nibabel")
AFFINE = np.array([[-2, 0, 0, 90], [0, 2, 0, -100], [0, 0, 3, -40], [0, 0, 0, 1]], float)


@pytest.fixture
def volumes(tmp_path):
    random = np.random.default_rng(0)
    mri = random.integers(0, 900, (132, 40, 5)).astype(np.int16)
    ct = random.integers(-1000, 1000, (132, 40, 5)).astype(np.int16)
    mri[:, :, 0] = ct[:, :, 0] = 0  # air above the head
    paths = tmp_path / "mri.nii.gz", tmp_path / "ct.nii.gz"
    for path, volume in zip(paths, (mri, ct), strict=True):
        nibabel.save(nibabel.Nifti1Image(volume, AFFINE), path)
    return paths, (mri, ct)


def run(cli, volumes, tiny_model, tmp_path, *options):
    out = tmp_path / "out.nii.gz"
    return cli("volume", *volumes[0], "-m", tiny_model, "--device", "cpu", "-o", out, *options), out


def test_slices_keep_their_place(cli, volumes, tiny_model, tmp_path):
    options = ("--slices", "2-4", "--window", "40,80", "--ir-range", "100,800", "--json")
    result, out = run(cli, volumes, tiny_model, tmp_path, *options)
    assert result.code == 0
    assert result.json["slices"] == [2, 4]
    written = nibabel.load(out)
    assert written.shape == (132, 40, 3)
    assert written.get_data_dtype() == np.uint16
    fuser = diffmf_cli.load_model(str(tiny_model), device="cpu")
    mri, ct = volumes[1]
    for index, number in enumerate((1, 2, 3)):
        # The file is stored from right to left; a slice is shown with the right at the right.
        ir, vis = (volume[::-1, ::-1, number].T.astype(np.float32) for volume in (mri, ct))
        expected = fuser.fuse(ir, (vis / 79).clip(0, 1), ir_range="100,800", dtype="uint16")
        shown = np.asarray(written.dataobj)[:, ::-1, index].T
        np.testing.assert_allclose(shown.astype(int), expected, atol=2)
    # The voxel at the left, back, and feet of slice 2, in millimetres.
    np.testing.assert_allclose(written.affine @ [0, 0, 0, 1], AFFINE @ [131, 0, 1, 1])


def test_all_slices_share_one_range(cli, volumes, tiny_model, tmp_path):
    result, out = run(cli, volumes, tiny_model, tmp_path, "--depth", "8")
    assert result.code == 0
    one = np.asarray(nibabel.load(out).dataobj)
    assert (one.shape, one.dtype) == ((132, 40, 5), np.uint8)
    mri, ct = (volume[::-1, ::-1].transpose(2, 1, 0).astype(np.float32) for volume in volumes[1])
    fuser = diffmf_cli.load_model(str(tiny_model), device="cpu")
    span = IntensityRange("fixed", *IntensityRange().limits(np.concatenate(mri)))
    window = IntensityRange("fixed", float(ct.min()), float(ct.max()))
    expected = fuser.fuse(span.apply(mri)[3], window.apply(ct)[3], ir_range="0,1", dtype="uint8")
    np.testing.assert_allclose(one[:, ::-1, 3].T.astype(int), expected, atol=1)
    result, out = run(cli, volumes, tiny_model, tmp_path, "--overwrite", "--depth", "8", "--slices", "all")
    np.testing.assert_array_equal(np.asarray(nibabel.load(out).dataobj), one)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--slices", "4-6"), 2, "ct.nii.gz has no slice 6: it has 5"),
        (("--slices", "x"), 2, "slices 'x' are not understood"),
        (("--window", "40"), 2, "window '40' is not understood"),
        (("--depth", "12"), 2, "depth '12'"),
    ],
)
def test_what_cannot_be_meant(cli, volumes, tiny_model, tmp_path, options, code, says):
    result, out = run(cli, volumes, tiny_model, tmp_path, *options)
    assert result.code == code
    assert says in result.err
    assert not out.exists()


def test_files_that_are_no_such_volumes(cli, volumes, pair, tiny_model, tmp_path):
    (mri, ct), _ = volumes
    result = cli("volume", mri, pair[1], "-m", tiny_model, "-o", tmp_path / "out.nii")
    assert result.code == 1
    assert "is no NIfTI file: diffmf fuse takes pictures" in result.err
    assert cli("volume", mri, ct, "-m", tiny_model, "-o", tmp_path / "out.png").code == 2
    small = tmp_path / "small.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 5), np.int16), AFFINE), small)
    result = cli("volume", mri, small, "-m", tiny_model, "-o", tmp_path / "out.nii")
    assert result.code == 2
    assert "are of 132x40x5 and 8x8x5 voxels: resample one" in result.err
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(mri.read_bytes()[:900])
    result = cli("volume", damaged, ct, "-m", tiny_model, "-o", tmp_path / "out.nii")
    assert result.code == 1
    assert "damaged.nii.gz is a damaged NIfTI file" in result.err
    assert not list(tmp_path.glob("out*"))


def test_places_that_differ_are_told(cli, volumes, tiny_model, tmp_path):
    moved = AFFINE.copy()
    moved[0, 3] += 5
    nibabel.save(nibabel.Nifti1Image(volumes[1][0], moved), volumes[0][0])
    result, _ = run(cli, volumes, tiny_model, tmp_path, "--slices", "3")
    assert result.code == 0
    assert "are they registered?" in result.err
