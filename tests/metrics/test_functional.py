"""The door to all metrics: every convention against the toolkit that it follows, and the edges."""

import math

import pytest
import torch

from diffmf_cli.errors import UsageError
from diffmf_cli.metrics.catalogue import CONVENTIONS, METRICS
from diffmf_cli.metrics.functional import OF_FUSED, OF_TRIPLE, evaluate

# Our values where a toolkit gives NaN, on the triples edge_*~x: F constant or equal to IR, IR black.
INSTEAD_OF_NAN = {
    "SCD": {"eqir": 0.714419, "zeroir": 0.999615},
    "CC": {"const": 0, "zeroir": 0.499807},
    "VIF": {"zeroir": 0.809736},
    "QCB": {"const": 0.071175, "zeroir": 0.891386},
    "QCV": {"const": 308.0493},
    "QMI": {"const": 0},
    "QNCIE": {"const": 0.802069},
    "QTE": {"const": 0.570582},
    "QP": {"const": 0, "zeroir": 0.918414},
    "QC": {"const": 0, "sat": 0.216346},
}

AGREEMENT = [  # toolkit, convention, our key, their key, absolute and relative tolerance
    ("cddfuse", "cddfuse", "EN", "EN", 1e-12, 0),
    ("cddfuse", "cddfuse", "SD", "SD", 1e-5, 0),
    ("cddfuse", "cddfuse", "SF", "SF", 1e-5, 0),
    ("cddfuse", "cddfuse", "AG", "AG", 1e-5, 0),
    ("cddfuse", "cddfuse", "MI", "MI", 1e-10, 0),
    ("cddfuse", "cddfuse", "SCD", "SCD", 1e-6, 0),
    ("cddfuse", "cddfuse", "VIF", "VIFF", 1e-8, 0),
    ("cddfuse", "cddfuse", "Qabf", "Qabf", 1e-6, 0),
    ("cddfuse", "cddfuse", "SSIM", "SSIM", 1e-4, 0),  # their float32 is 5e-5 off on clipped pictures
    ("cddfuse", "cddfuse", "CC", "CC", 1e-6, 0),
    ("cddfuse", "cddfuse", "MSE", "MSE", 0, 1e-6),
    ("cddfuse", "cddfuse", "PSNR", "PSNR", 1e-5, 0),
    ("sfmfusion", "cddfuse-255", "SSIM", "SSIM", 1e-5, 0),
    ("tdfusion", "tdfusion", "VIF", "VIFF", 1e-8, 0),
    ("tdfusion", "tdfusion", "SSIM", "SSIM", 1e-12, 0),
    *(("tang-2023", "tang", key, key, 1e-10, 0) for key in ("EN", "SD", "SF", "AG", "MI", "SCD", "VIF")),
    *(("tang-2023", "tang", key, key, 1e-10, 0) for key in ("CC", "MSE", "PSNR", "SSIM", "Nabf")),
    ("tang-2023", "tang", "Qabf", "Qabf", 1e-6, 0),
    ("tang-2023", "cddfuse", "Nabf", "Nabf_correct_order", 1e-12, 0),
    ("mark-bear", "cddfuse", "Nabf", "Nabf", 2e-5, 0),  # they drop the weight of weak edges
    ("vifb", "vifb", "EN", "Entropy", 1e-12, 0),
    ("vifb", "vifb", "SD", "Variance", 1e-10, 0),
    ("vifb", "vifb", "SF", "Spatial_frequency", 1e-10, 0),
    ("vifb", "vifb", "AG", "Avg_gradient", 1e-10, 0),
    ("vifb", "vifb", "EI", "Edge_intensity", 1e-10, 0),
    ("vifb", "vifb", "MI", "Mutinf", 1e-10, 0),
    ("vifb", "vifb", "CE", "Cross_entropy", 1e-10, 0),
    ("vifb", "vifb", "MSE", "Rmse", 1e-10, 0),
    ("vifb", "vifb", "PSNR", "Psnr", 1e-10, 0),
    ("vifb", "vifb", "Qabf", "Qabf", 1e-6, 0),
    ("vifb", "vifb", "SSIM", "Ssim", 1e-10, 0),
    ("vifb", "vifb", "QCB", "Qcb", 1e-10, 0),
    ("vifb", "vifb", "QCV", "Qcv", 0, 1e-10),
    ("zhengliu", "cddfuse", "QMI", "Q_MI", 1e-10, 0),
    # They raise a rounding error in the entropy of a constant to the power of 0.43.
    ("zhengliu", "cddfuse", "QTE", "Q_TE", 1e-7, 0),
    ("zhengliu", "cddfuse", "QNCIE", "Q_NCIE", 1e-10, 0),
    ("zhengliu", "cddfuse", "QG", "Q_G", 1e-8, 0),  # they add 1e-5 to some gradients of 0 only
    ("zhengliu", "cddfuse", "QSF", "Q_SF", 1e-12, 0),
    ("zhengliu", "cddfuse", "QP", "Q_P", 1e-10, 0),
    ("zhengliu", "cddfuse", "QS", "Q_S", 1e-10, 0),
    ("zhengliu", "cddfuse", "QW", "Q_W", 1e-10, 0),
    ("zhengliu", "cddfuse", "QY", "Q_Y", 1e-10, 0),
    ("zhengliu", "cddfuse", "QC", "Q_C", 5e-3, 0),  # theirs hangs on rounding in flat windows
    ("zhengliu", "cddfuse", "QCB", "Q_CB", 1e-10, 0),
    ("zhengliu", "cddfuse", "QCV", "Q_CV", 0, 1e-10),
    ("tang-2023", "cddfuse", "FMI", "FMI_none_rawpixels", 1e-12, 0),
    ("tang-2023", "cddfuse", "FMI-grad", "FMI_gradient", 1e-12, 0),
    ("tang-2023", "cddfuse", "FMI-w", "FMI_w", 1e-12, 0),
    ("metricslab", "cddfuse", "FMI-dct", "fmi_d_metric", 1e-6, 0),  # theirs is float32
    ("metricslab", "cddfuse", "QM", "pww_metric", 2e-6, 0),  # so is this
    ("viff-han2013", "cddfuse", "VIFF", "VIFF_Han2013", 1e-6, 0),  # their choice of source hangs on rounding
    ("libraries", "cddfuse", "EN", "skimage.shannon_entropy", 1e-12, 0),
    ("libraries", "cddfuse", "MS-SSIM", "piq.ms_ssim_dr255.sum", 0, 1e-4),  # theirs is float32
    ("libraries", "paper", "SSIM", "skimage.ssim_gaussian_wang.sum", 1e-10, 0),
]


@pytest.mark.parametrize(("toolkit", "convention", "key", "theirs", "absolute", "relative"), AGREEMENT)
def test_agrees_with_the_toolkit(reference, toolkit, convention, key, theirs, absolute, relative):
    expected = reference.values(toolkit, theirs)
    assert expected
    if key == "QP":  # half a minute for all
        expected = dict(list(expected.items())[::3])
    for name, value in expected.items():
        ours = float(evaluate(*reference.triple(name), metrics=key, convention=convention)[key])
        if math.isnan(value):
            value, absolute = INSTEAD_OF_NAN[key][name.removeprefix("edge_").removesuffix("~x")], 1e-3
        assert ours == pytest.approx(value, abs=absolute, rel=relative), name


def test_every_metric_of_the_catalogue_is_computed_and_compared():
    assert OF_FUSED.keys() | OF_TRIPLE.keys() == METRICS.keys()
    assert not OF_FUSED.keys() & OF_TRIPLE.keys()
    # Of these no toolkit's value is at hand: see test_plain.
    assert {row[2] for row in AGREEMENT} | {"QE", "FMI-edge"} == METRICS.keys()


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_convention_gives_one_float64_per_picture(triple, convention):
    values = evaluate(*triple, metrics="full", convention=convention)
    balanced = {key for key, metric in METRICS.items() if metric.by_source}
    expected = METRICS.keys() | {f"{key}.{part}" for key in balanced for part in ("ir", "vis", "worst")}
    assert values.keys() == expected
    assert all(v.shape == (2,) and v.dtype == torch.float64 for v in values.values())


def test_batch_neighbours_do_not_change_a_value(triple):
    together = evaluate(*triple, metrics="full")
    alone = evaluate(*(p[1:] for p in triple), metrics="full")
    for key, value in alone.items():
        assert float(together[key][1]) == pytest.approx(float(value), rel=1e-9, nan_ok=True), key


def test_float_pictures_are_rounded_to_grey_levels(triple):
    levels = evaluate(*triple, metrics="full")
    offsets = torch.tensor([-0.4, 0.4]).view(2, 1, 1, 1)  # one for each of the two pictures
    floats = evaluate(*(p.float() + offsets for p in triple), metrics="full")
    assert str(levels) == str(floats)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_cuda_gives_the_values_of_the_cpu(triple, convention):
    cpu = evaluate(*triple, metrics="full", convention=convention)
    cuda = evaluate(*(p.cuda() for p in triple), metrics="full", convention=convention)
    for key, value in cpu.items():
        assert cuda[key].is_cuda
        assert cuda[key].tolist() == pytest.approx(value.tolist(), rel=1e-6, abs=1e-9, nan_ok=True), key


def test_a_copy_of_one_input_has_a_low_worst_source(triple):
    ir, vis, _ = triple
    copy = evaluate(ir, vis, ir)
    for key in ("MI", "VIF", "Qabf", "SSIM"):
        assert (copy[f"{key}.ir"] > copy[f"{key}.vis"]).all()
        assert (copy[f"{key}.worst"] == copy[f"{key}.vis"]).all()
    assert copy["SCD.vis"].tolist() == [0, 0]
    assert copy["SSIM.ir"].tolist() == pytest.approx([1, 1])
    assert copy["VIF.ir"].tolist() == pytest.approx([1, 1])


def test_qabf_part_of_a_source_is_qabf_with_that_source_twice(triple):
    ir, vis, fused = triple
    values = evaluate(ir, vis, fused, metrics="Qabf")
    assert torch.equal(values["Qabf.ir"], evaluate(ir, ir, fused, metrics="Qabf")["Qabf"])
    assert torch.equal(values["Qabf.vis"], evaluate(vis, vis, fused, metrics="Qabf")["Qabf"])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 8), (40, 100), (41, 41)])
def test_small_pictures_have_values_or_are_undefined(shape):
    generator = torch.Generator().manual_seed(1)
    triple = [torch.randint(0, 256, (1, 1, *shape), generator=generator, dtype=torch.uint8) for _ in "abc"]
    values = {key: float(value) for key, value in evaluate(*triple, metrics="full").items() if "." not in key}
    smallest = {"VIF": 41, "VIFF": 41, "SSIM": 7, "QY": 7, "QC": 7, "QS": 11, "QW": 11, "MS-SSIM": 161}
    smallest |= {"FMI": 3, "FMI-grad": 3, "FMI-dct": 3, "FMI-w": 3, "FMI-edge": 3, "QE": 11, "QM": 4}
    undefined = {key for key, side in smallest.items() if min(shape) < side}
    assert {key for key, value in values.items() if not math.isfinite(value)} == undefined


@pytest.mark.parametrize("level", [0, 128, 255])
def test_constant_pictures_never_give_nan(level):
    flat = torch.full((1, 1, 48, 50), level, dtype=torch.uint8)
    values = evaluate(flat, flat, flat, metrics="full")
    small = {"MS-SSIM", "MS-SSIM.ir", "MS-SSIM.vis", "MS-SSIM.worst"}
    infinite = {"PSNR"}
    assert {key for key, v in values.items() if not torch.isfinite(v).all()} == small | infinite


def test_a_frame_of_one_pixel_counts_as_in_the_definitions():
    frame = torch.zeros(1, 1, 60, 60, dtype=torch.uint8)
    frame[..., [0, -1], :] = 200
    frame[..., [0, -1]] = 200
    values = evaluate(frame, frame, frame, metrics="EN,SD,SF,AG,SSIM,VIF,CC")
    share = (60 * 60 - 58 * 58) / 3600
    assert float(values["SD"]) == pytest.approx(200 * math.sqrt(share * (1 - share)))
    assert float(values["EN"]) == pytest.approx(
        -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    )
    assert float(values["SF"]) == pytest.approx(200 * math.sqrt(2 * (58 * 2) / (60 * 59)))
    assert [float(values[key]) for key in ("SSIM", "VIF", "CC")] == pytest.approx([2, 2, 1])


def test_pictures_of_different_size_are_refused(triple):
    ir, vis, fused = triple
    with pytest.raises(ValueError, match="differ in shape"):
        evaluate(ir, vis, fused[..., :-1])


def test_values_in_unit_range_are_refused(triple):
    with pytest.raises(ValueError, match=r"expect grey values 0..255"):
        evaluate(*(p / 255 for p in triple))


def test_unknown_names_are_usage_errors(triple):
    with pytest.raises(UsageError, match="'SIM'"):
        evaluate(*triple, metrics="EN,SIM")
    with pytest.raises(UsageError, match="'wang'"):
        evaluate(*triple, convention="wang")
