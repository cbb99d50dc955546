"""Every backend is held to `reference` in float64."""

import numpy as np
import pytest
import torch

from diffmf_cli import scan
from diffmf_cli.scan import reference

SHAPES = [
    (1, 1, 1, 16),
    (1, 1, 13, 16),
    (1, 13, 1, 16),
    (2, 7, 5, 16),
    (3, 6, 9, 5),
    (2, 5, 4, 40),
    (1, 17, 23, 33),
]
BACKENDS = [
    *(("cpu", name) for name in ("numba", "torch", "reference")),
    *(("cuda", name) for name in ("triton", "mamba-ssm", "torch")),
]


@pytest.fixture(params=BACKENDS, ids=lambda p: "-".join(p))
def backend(request):
    """A scan on its device by a forced backend; skips what cannot run here."""
    device, name = request.param
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    reason = scan.available(device)[name]
    if reason is not None:
        pytest.skip(reason)

    def run(**arguments):
        with scan.using(name):
            return scan.selective_scan_2d(**{k: t.to(device) for k, t in arguments.items()})

    run.name = name
    return run


def in_float32(arguments):
    return {name: t.float() for name, t in arguments.items()}


def widened(arguments):
    """What float32 rounding leaves of the arguments, so that only the scan's own error is measured."""
    return {name: t.float().double() for name, t in arguments.items()}


@pytest.mark.parametrize("d_state", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(scans, backend, shape, d_state):
    arguments = widened(scans.make(shape, d_state))
    expected = reference.selective_scan_2d(**arguments)
    got = scans.forward(backend, in_float32(arguments))
    assert got.dtype == torch.float32
    assert scans.error(got, expected) < 1e-5


@pytest.mark.parametrize("d_state", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients(scans, backend, shape, d_state):
    arguments = widened(scans.make(shape, d_state))
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    expected = scans.gradients(reference.selective_scan_2d, arguments, weight)
    got = scans.gradients(backend, in_float32(arguments), weight)
    assert scans.error(got.pop("y"), expected.pop("y")) < 1e-5
    for name in scans.arguments:
        assert scans.error(got[name], expected[name]) < 1e-4, name


@pytest.mark.parametrize("delta", [-1e4, -200.0, -60.0, 30.0, 1e4])
def test_extreme_steps(scans, backend, delta):
    arguments = widened(scans.make((2, 5, 6, 17)))
    arguments["delta"] = arguments["delta"] + delta
    expected = reference.selective_scan_2d(**arguments)
    assert torch.isfinite(expected).all()
    assert scans.error(scans.forward(backend, in_float32(arguments)), expected) < 1e-5
    if backend.name == "reference" and delta < -100:
        return  # float32 cannot hold the steps; the oracle is for float64
    got = scans.gradients(backend, in_float32(arguments), torch.ones(2, 5, 6, 17))
    assert all(torch.isfinite(t).all() for t in got.values())


def test_steps_of_every_size_in_one_picture(scans, backend):
    arguments = widened(scans.make((1, 8, 9, 16)))
    arguments["delta"] = torch.linspace(-80, 80, 8 * 9).roll(31).view(1, 8, 9, 1).expand(1, 8, 9, 16).double()
    expected = reference.selective_scan_2d(**arguments)
    assert scans.error(scans.forward(backend, in_float32(arguments)), expected) < 1e-5


def test_constant_picture_stays_constant(scans, backend):
    one = in_float32(scans.make((2, 1, 1, 20), d_state=2))
    wide = {k: t.expand(2, 12, 19, -1) if t.ndim == 4 else t for k, t in one.items()}
    y = scans.forward(backend, wide)
    assert ((y - y.mean((1, 2), keepdim=True)).abs().amax((1, 2)) / y.abs().amax((1, 2))).max() < 1e-5


def test_does_not_depend_on_batch_neighbours(scans, backend):
    arguments = in_float32(scans.make((3, 6, 7, 24)))
    whole = scans.forward(backend, arguments)
    alone = {k: t[1:2] if t.ndim == 4 else t for k, t in arguments.items()}
    result = scans.forward(backend, alone)
    if backend.name == "reference":  # torch's exp of the last numbers of an array may round another way
        assert scans.error(result, whole[1:2]) < 1e-6
    else:
        assert torch.equal(result, whole[1:2])


def test_two_runs_give_the_same_bytes(scans, backend):
    arguments = in_float32(scans.make((2, 9, 11, 40)))
    weight = torch.randn(2, 9, 11, 40, generator=torch.Generator().manual_seed(1))
    first, second = (scans.gradients(backend, arguments, weight) for _ in range(2))
    for name, value in first.items():
        if backend.name == "mamba-ssm":  # its kernel sums some gradients with atomics, in any order
            torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(value, second[name]), name
    assert torch.equal(scans.forward(backend, arguments), scans.forward(backend, arguments))


def test_non_contiguous_arguments(scans, backend):
    arguments = in_float32(scans.make((2, 6, 7, 24), d_state=2))
    scattered = {}
    for name, t in arguments.items():
        holder = torch.zeros(*t.shape, 2)
        holder[..., 0] = t
        scattered[name] = holder[..., 0]
        if t.ndim == 4:
            scattered[name] = t.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
        assert not scattered[name].is_contiguous()
    assert torch.equal(scans.forward(backend, scattered), scans.forward(backend, arguments))
    # A gradient that comes in with strides of 0 and one in another memory order.
    for weight in (torch.ones(1, 1, 1, 1), torch.randn(2, 24, 7, 6).permute(0, 3, 2, 1)):
        weight = weight.expand(2, 6, 7, 24)
        got = scans.gradients(backend, scattered, weight)
        expected = scans.gradients(backend, arguments, weight.contiguous())
        for name in scans.arguments:
            assert scans.error(got[name], expected[name]) < 1e-5, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_a_wide_state(scans, backend, dtype):
    if backend.name == "reference":
        pytest.skip("computes in the dtype of its inputs")
    arguments = {k: t.to(dtype) for k, t in scans.make((1, 24, 24, 16)).items()}
    arguments["A"] = arguments["A"] * 0.02  # slow decay: errors of a narrow state would add up
    expected = reference.selective_scan_2d(**{k: t.double() for k, t in arguments.items()})
    got = scans.forward(backend, arguments)
    assert got.dtype == dtype
    assert scans.error(got, expected) < 1.5 * torch.finfo(dtype).eps


def test_float64_stays_float64(scans, backend):
    if backend.name in ("triton", "mamba-ssm"):
        pytest.skip("the kernel is float32")
    arguments = scans.make((2, 5, 7, 18), d_state=2)
    weight = torch.randn(2, 5, 7, 18, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = scans.gradients(reference.selective_scan_2d, arguments, weight)
    got = scans.gradients(backend, arguments, weight)
    assert got["y"].dtype == torch.float64
    for name, value in expected.items():
        assert scans.error(got[name], value) < 1e-12, name


def test_inference_and_training_paths_agree(scans, backend):
    arguments = in_float32(scans.make((2, 11, 6, 24)))
    trained = scans.gradients(backend, arguments, torch.ones(2, 11, 6, 24))["y"]
    assert scans.error(scans.forward(backend, arguments), trained) < 1e-5


@pytest.mark.parametrize("name", ["numba", "torch"])
def test_does_not_depend_on_where_the_arrays_lie(scans, name):
    if scan.available()[name] is not None:
        pytest.skip(scan.available()[name])
    arguments = in_float32(scans.make((1, 8, 20, 24)))  # the second block of lanes is half full
    random = np.random.default_rng(0)
    between = []
    with scan.using(name):
        expected = scans.forward(scan.selective_scan_2d, arguments)
        for _ in range(300 if name == "numba" else 20):
            between = [*between[-20:], np.empty(random.integers(1, 200_000), np.uint8)]
            moved = {key: t.clone() for key, t in arguments.items()}
            assert torch.equal(scans.forward(scan.selective_scan_2d, moved), expected)


@pytest.mark.parametrize("name", ["numba", "torch"])
def test_does_not_depend_on_the_number_of_threads(scans, name):
    if scan.available()[name] is not None:
        pytest.skip(scan.available()[name])
    arguments = in_float32(scans.make((3, 8, 9, 40)))
    weight = torch.randn(3, 8, 9, 40, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            with scan.using(name):
                y = scans.forward(scan.selective_scan_2d, arguments)
                results.append({"inference": y, **scans.gradients(scan.selective_scan_2d, arguments, weight)})
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for key, value in results[0].items():
            assert torch.equal(value, other[key]), key


def test_gradcheck_of_torch(scans):
    arguments = scans.make((2, 3, 4, 2), d_state=2)
    leaves = [t.requires_grad_() for t in arguments.values()]
    with scan.using("torch"):
        assert torch.autograd.gradcheck(scan.selective_scan_2d, leaves)
