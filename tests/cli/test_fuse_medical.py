"""`diffmf fuse` on slices of DICOM files and NIfTI volumes."""

import cv2
import numpy as np
import pytest

import diffmf_cli

nibabel = pytest.importorskip("nibabel")
RANDOM = np.random.default_rng(0)


@pytest.fixture
def volumes(tmp_path):
    """An MRI and a CT of the same body, in three slices."""
    mri = RANDOM.integers(0, 900, (32, 40, 3)).astype(np.int16)
    ct = RANDOM.integers(-1000, 1000, (32, 40, 3)).astype(np.int16)
    paths = tmp_path / "mri.nii.gz", tmp_path / "ct.nii.gz"
    for path, volume in zip(paths, (mri, ct), strict=True):
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    return paths, (mri, ct)


def test_a_slice_in_a_window(cli, volumes, tiny_model, tmp_path):
    (mri_path, ct_path), (mri, ct) = volumes
    out = tmp_path / "out.png"
    common = ("-m", tiny_model, "--device", "cpu", "-o", out)
    assert cli("fuse", mri_path, ct_path, "--slice", "3", "--window", "40,80", *common).code == 0
    ir, vis = (volume[:, ::-1, 2].T.astype(np.float32) for volume in (mri, ct))
    fuser = diffmf_cli.load_model(str(tiny_model), device="cpu")
    windowed = np.rint((vis / 79).clip(0, 1) * 65535).astype(np.uint16)
    expected = fuser.fuse(ir, windowed)
    np.testing.assert_allclose(
        cv2.imread(str(out), cv2.IMREAD_UNCHANGED).astype(int), expected.astype(int), atol=2
    )


def test_the_middle_slice_is_told(cli, volumes, tiny_model, tmp_path):
    result = cli("fuse", *volumes[0], "-m", tiny_model, "--json")
    assert result.code == 0
    assert result.json["output"] == str(tmp_path / "ct_fused.png")
    assert [note.endswith("number 2 is read, choose with --slice") for note in result.json["notices"]] == [
        True
    ] * 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--slice", "4"), "mri.nii.gz has no slice 4: it has 3"),
        (("--window", "40"), "window '40' is not understood"),
    ],
)
def test_what_cannot_be_meant(cli, volumes, tiny_model, tmp_path, options, says):
    result = cli("fuse", *volumes[0], "-m", tiny_model, "-o", tmp_path / "out.png", *options)
    assert result.code == 2
    assert says in result.err
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("options", "says"), [(("--slice", "1"), "has no slices"), (("--window", "40,80"), "has no window")]
)
def test_pictures_without_slices(cli, pair, tiny_model, options, says):
    result = cli("fuse", *pair, "-m", tiny_model, *options)
    assert result.code == 2
    assert says in result.err
