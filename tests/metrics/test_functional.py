"""The door to all metrics: one call, every convention, agreement with the toolkit named."""

import math

import pytest
import torch

from diffmf_cli.errors import UsageError
from diffmf_cli.metrics.functional import evaluate

# Where the reference evaluator gives NaN: F equals IR (SCD), IR is black (SCD, CC).
UNDEFINED = {"SCD": {"edge_eqir~x": 0.714419, "edge_zeroir~x": 0.999615}}


@pytest.mark.parametrize(
    ("key", "theirs", "absolute", "relative"),
    [
        ("EN", "EN", 1e-12, 0),
        ("SD", "SD", 1e-5, 0),
        ("SF", "SF", 1e-5, 0),
        ("MI", "MI", 1e-10, 0),
        ("SCD", "SCD", 1e-6, 0),
        ("VIF", "VIFF", 1e-8, 0),
        ("Qabf", "Qabf", 1e-6, 0),
        ("SSIM", "SSIM", 1e-4, 0),  # their float32 is 5e-5 off on clipped pictures
    ],
)
def test_cddfuse_convention_agrees_with_its_evaluator(assert_agrees, key, theirs, absolute, relative):
    def ours(ir, vis, fused):
        return evaluate(ir, vis, fused, metrics=key)[key]

    assert_agrees(ours, "cddfuse", theirs, absolute=absolute, relative=relative, undefined=UNDEFINED.get(key))


def test_every_value_is_one_float64_per_picture(triple):
    values = evaluate(*triple, metrics="full")
    assert {"EN", "VIF", "VIF.ir", "VIF.vis", "VIF.worst"} <= values.keys()
    assert all(v.shape == (2,) and v.dtype == torch.float64 for v in values.values())


def test_batch_neighbours_do_not_change_a_value(triple):
    together = evaluate(*triple, metrics="full")
    alone = evaluate(*(p[1:] for p in triple), metrics="full")
    for key, value in alone.items():
        assert float(together[key][1]) == pytest.approx(float(value), rel=1e-12, nan_ok=True), key


def test_float_pictures_give_the_same_values_as_uint8(triple):
    bytes_, floats = evaluate(*triple, metrics="full"), evaluate(*(p.float() for p in triple), metrics="full")
    assert {k: v.tolist() for k, v in bytes_.items()} == {k: v.tolist() for k, v in floats.items()}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_values_of_the_cpu(triple):
    cpu, cuda = evaluate(*triple, metrics="full"), evaluate(*(p.cuda() for p in triple), metrics="full")
    for key, value in cpu.items():
        assert cuda[key].is_cuda
        assert cuda[key].tolist() == pytest.approx(value.tolist(), rel=1e-9, abs=1e-9, nan_ok=True), key


def test_a_copy_of_one_input_has_a_low_worst_source(triple):
    ir, vis, _ = triple
    copy = evaluate(ir, vis, ir)
    for key in ("MI", "VIF", "Qabf", "SSIM"):
        assert (copy[f"{key}.ir"] > copy[f"{key}.vis"]).all()
        assert (copy[f"{key}.worst"] == copy[f"{key}.vis"]).all()
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
    values = {key: float(value) for key, value in evaluate(*triple).items()}
    undefined = {key for key, value in values.items() if not math.isfinite(value)}
    expected = set()
    if min(shape) < 41:
        expected |= {"VIF", "VIF.ir", "VIF.vis", "VIF.worst"}
    if min(shape) < 7:
        expected |= {"SSIM", "SSIM.ir", "SSIM.vis", "SSIM.worst"}
    assert undefined == expected


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
