import logging

import numpy as np
import pytest

import diffmf_cli
from diffmf_cli.errors import DiffmfError, ImageError, UsageError
from diffmf_cli.fusion import fuser as module
from diffmf_cli.images.color import luma


@pytest.fixture(scope="module")
def model(tiny_model):
    return diffmf_cli.load_model(str(tiny_model), device="cpu")


@pytest.fixture
def plain(tiny_model):
    """Loads a model without kernels, as on devices that have none."""

    def load(**options):
        model = diffmf_cli.load_model(str(tiny_model), device="cpu", **options)
        model._fused_kernels = None
        return model

    return load


def as_dtype(pixels, dtype):
    if np.dtype(dtype).kind == "f":
        return (pixels / 255).astype(dtype)
    return (pixels.astype(dtype) * (np.iinfo(dtype).max // 255)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("vis_form", ["HW", "HW1", "HW3"])
@pytest.mark.parametrize("ir_form", ["HW", "HW1", "HW3"])
def test_result_has_the_shape_and_dtype_of_vis(model, scene, dtype, vis_form, ir_form):
    ir, vis = scene
    ir = {"HW": ir, "HW1": ir[:, :, None], "HW3": np.repeat(ir[:, :, None], 3, 2)}[ir_form]
    vis = {"HW": vis[:, :, 0], "HW1": vis[:, :, :1], "HW3": vis}[vis_form]
    fused = model.fuse(ir, as_dtype(vis, dtype))
    assert (fused.shape, fused.dtype) == (vis.shape, np.dtype(dtype))
    expected = model.fuse(scene[0], as_dtype(vis, np.float64)) * (
        np.iinfo(dtype).max if fused.dtype.kind == "u" else 1
    )
    assert np.abs(fused.astype(float) - expected).max() <= (1 if fused.dtype.kind == "u" else 1e-5)


def test_inputs_are_left_alone(model, scene):
    ir, vis = (pixels.copy() for pixels in scene)
    model.fuse(ir, vis)
    assert np.array_equal(ir, scene[0])
    assert np.array_equal(vis, scene[1])


def test_views_and_read_only_arrays_work(model, scene):
    ir, vis = (pixels[::-1, ::-1] for pixels in scene)
    for pixels in (ir, vis):
        pixels.flags.writeable = False
    assert np.array_equal(model.fuse(ir, vis), model.fuse(ir.copy(), vis.copy()))


def test_luma_of_the_result_is_what_the_network_gave(model, scene):
    ir, vis = scene[0] / 255, scene[1] / 255
    coloured = model.fuse(ir, vis)
    grey = model.fuse(ir, vis, color="gray")
    assert grey.shape == vis.shape[:2]
    assert np.abs(luma(coloured) - grey).max() < 1e-5
    assert np.array_equal(coloured, model.fuse(ir, vis, color="ycbcr"))


def test_dtype_of_choice(model, scene):
    assert model.fuse(*scene, dtype=np.uint16).dtype == np.uint16


def test_ir_range_reaches_the_network(model, scene):
    ir, vis = scene
    counts = ir.astype(np.uint16) * 20 + 8000
    same = model.fuse(counts, vis, ir_range=f"8000,{8000 + 255 * 20}")
    assert np.abs(same.astype(int) - model.fuse(ir, vis)).max() <= 1
    assert not np.array_equal(model.fuse(counts, vis, ir_range="0,65535"), same)


def test_ir_of_another_size(model, scene, caplog):
    ir, vis = scene
    assert model.fuse(ir[::2, ::2], vis).shape == vis.shape
    assert "IR of 32x24 was resampled to the 64x48 of VIS" in caplog.text


def test_ir_of_another_shape(model, scene):
    ir, vis = scene
    with pytest.raises(UsageError, match=r"48x48.*64x48"):
        model.fuse(ir[:, :48], vis)
    assert model.fuse(ir[:, :48], vis, stretch=True).shape == vis.shape


def test_swapped_looking_pair_is_mentioned(model, scene, caplog):
    ir, vis = scene
    model.fuse(vis, ir)
    assert "swapped" in caplog.text
    caplog.clear()
    model.fuse(ir, vis)
    model.fuse(vis, vis)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda ir, vis: (ir, np.dstack([vis, ir])), r"vis has shape \(48, 64, 4\)"),
        (lambda ir, vis: (ir[0], vis), r"ir has shape \(64,\)"),
        (lambda ir, vis: (ir[:0], vis), "ir .* holds no pixels"),
        (lambda ir, vis: (ir.astype(int), vis), "ir has type int64"),
        (lambda ir, vis: (ir > 100, vis), "ir has type bool"),
        (lambda ir, vis: (ir, vis.astype(np.float32)), r"vis has float pixels from .*\[0, 1\]"),
        (lambda ir, vis: (ir, np.where(vis > 100, np.nan, vis / 255)), "vis holds NaN"),
        (lambda ir, vis: (np.where(ir > 200, np.inf, ir), vis), "ir holds NaN or inf"),
    ],
)
def test_arrays_that_cannot_be_fused(model, scene, change, says):
    with pytest.raises(ImageError, match=says):
        model.fuse(*change(*scene))


@pytest.mark.parametrize(
    "options", [{"device": "gpu"}, {"precision": "fp8"}, {"scan_backend": "x"}, {"tile": -1}, {"tile": "big"}]
)
def test_settings_that_mean_nothing(tiny_model, options):
    with pytest.raises(UsageError, match=str(next(iter(options.values())))):
        diffmf_cli.load_model(str(tiny_model), **options)


def test_options_that_mean_nothing(model, scene):
    with pytest.raises(UsageError, match="grey"):
        model.fuse(*scene, color="grey")
    with pytest.raises(UsageError, match="9,1"):
        model.fuse(*scene, ir_range="9,1")


def test_convenience_is_the_same(model, tiny_model, scene):
    fused = diffmf_cli.fuse(*scene, model=str(tiny_model), device="cpu", tile=64, color="gray")
    assert np.array_equal(fused, model.fuse(*scene, color="gray"))


@pytest.mark.parametrize("backend", ["numba", "torch", "reference"])
def test_backend_of_choice_runs(tiny_model, scene, model, backend, monkeypatch):
    from diffmf_cli import scan

    used = set()
    original = scan.choose
    monkeypatch.setattr(scan, "choose", lambda device: used.add(original(device)) or original(device))
    forced = diffmf_cli.load_model(str(tiny_model), device="cpu", scan_backend=backend)
    fused = forced.fuse(*scene)
    assert forced.scan_backend == backend
    assert used == {backend}
    assert np.abs(fused.astype(int) - model.fuse(*scene)).max() <= 1


def test_backend_from_the_environment_is_what_is_reported(tiny_model, monkeypatch):
    monkeypatch.setenv("DIFFMF_SCAN", "torch")
    assert diffmf_cli.load_model(str(tiny_model), device="cpu").scan_backend == "torch"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close(tiny_model, scene, model, precision):
    fused = diffmf_cli.load_model(str(tiny_model), device="cpu", precision=precision).fuse(*scene)
    assert np.abs(fused.astype(int) - model.fuse(*scene)).max() <= 4


def test_tile_changes_nothing(plain, model):
    rng = np.random.default_rng(0)
    ir, vis = rng.random((2, 200, 150), np.float32)
    tiled = plain(tile=64).fuse(ir, vis)
    assert np.abs(tiled - model.fuse(ir, vis)).max() < 1e-5


def test_automatic_tile():
    assert module._automatic_tile(640 * 480) == 0
    assert module._automatic_tile(4000 * 3000) == 512


@pytest.mark.parametrize("tile", ["auto", 0, 1024])
def test_out_of_memory_halves_the_tile_and_says_so_once(plain, model, scene, monkeypatch, caplog, tile):
    import torch

    small = plain(tile=tile)
    tiles = []
    original = small._network.forward

    def short_of_memory(ir, vis, tile):
        tiles.append(tile)
        if tile not in range(1, 257):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return original(ir, vis, tile)

    monkeypatch.setattr(small._network, "forward", short_of_memory)
    big = [np.pad(pixels, ((0, 452), (0, 436), *[(0, 0)] * (pixels.ndim - 2))) for pixels in scene]
    with caplog.at_level(logging.WARNING):
        fused = small.fuse(*big)
    assert tiles == {"auto": [0, 250], 0: [0, 250], 1024: [1024, 512, 256]}[tile]
    assert caplog.text.count("ran out of memory") == 1
    assert f"--tile {tiles[-1]}" in caplog.text
    assert np.abs(fused.astype(int) - model.fuse(*big)).max() <= 1


def test_out_of_memory_for_good(plain, scene, monkeypatch):
    model = plain()

    def never(*args, **kwargs):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(model._network, "forward", never)
    with pytest.raises(DiffmfError, match="too little memory for 64x48"):
        model.fuse(*scene)


def test_other_errors_of_torch_pass(plain, scene, monkeypatch):
    model = plain()

    def broken(*args, **kwargs):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(model._network, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        model.fuse(*scene)


@pytest.mark.parametrize(("value", "says"), [(np.nan, "NaN"), (0.5, "constant")])
def test_unusable_results_are_errors(model, scene, monkeypatch, value, says):
    monkeypatch.setattr(model, "_run", lambda ir, vis: np.full_like(vis, value))
    with pytest.raises(ImageError, match=says):
        model.fuse(*scene)


def test_constant_inputs_may_give_a_constant_result(model, monkeypatch):
    monkeypatch.setattr(model, "_run", lambda ir, vis: np.full_like(vis, 0.5))
    assert (model.fuse(np.full((4, 5), 9, np.uint8), np.full((4, 5), 200, np.uint8)) == 128).all()


def test_no_gradients_are_kept(model, scene):
    assert not model._network.training
    model.fuse(*scene)
    assert all(parameter.grad is None for parameter in model._network.parameters())


@pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="needs CUDA")
def test_cuda_gives_what_the_cpu_gives(tiny_model, scene, model):
    fused = diffmf_cli.load_model(str(tiny_model), device="cuda").fuse(*scene)
    assert np.abs(fused.astype(int) - model.fuse(*scene)).max() <= 1


@pytest.mark.parametrize(
    ("options", "by_kernels"),
    [
        ({}, True),
        ({"precision": "fp32", "tile": 64}, True),
        ({"precision": "bf16"}, False),
        ({"scan_backend": "torch"}, False),
    ],
    ids=str,
)
def test_kernels_are_for_float32_with_the_numba_scan(
    tiny_model, plain, scene, monkeypatch, options, by_kernels
):
    from diffmf_cli.model.network import DiffMF

    fuser = diffmf_cli.load_model(str(tiny_model), device="cpu", **options)
    called, forward = [], DiffMF.forward
    monkeypatch.setattr(DiffMF, "forward", lambda *a, **k: called.append(a) or forward(*a, **k))
    fused = fuser.fuse(*scene)
    assert bool(called) != by_kernels
    assert fuser.precision == options.get("precision", "fp32")
    largest = 4 if "precision" in options else 1
    assert np.abs(fused.astype(int) - plain().fuse(*scene)).max() <= largest


def test_a_prepared_pair_holds_no_colours_of_its_own(scene):
    ir, vis = scene
    pair = module.prepare(ir, vis)
    assert np.shares_memory(pair.vis_rgb, vis)
    assert pair.ir.nbytes == pair.vis.nbytes == 4 * ir.size


def test_a_range_that_shows_nothing_of_the_infrared_picture_is_told(scene):
    assert not module.prepare(*scene, ir_range="0,100").notices
    assert "IR is all black" in " ".join(module.prepare(*scene, ir_range="250,900").notices)


def test_several_pairs_at_once_are_what_each_is_alone(model, scene):
    ir, vis = scene
    pairs = [module.prepare(ir, vis), module.prepare(ir[::-1], vis), module.prepare(ir, vis[:, ::-1])]
    together = model.run(pairs)
    for pair, fused in zip(pairs, together, strict=True):
        assert np.abs(fused - model.run([pair])[0]).max() < 2e-6
        assert np.abs(fused - together[0]).max() > 1e-4 or pair is pairs[0]
    assert np.array_equal(model.restore(pairs[1], model.run(pairs[1:2])[0]), model.fuse(ir[::-1], vis))


def test_too_little_memory_for_several_pairs_takes_fewer(model, scene, monkeypatch):
    pairs = [module.prepare(*scene), module.prepare(scene[0][::-1], scene[1]), module.prepare(*scene)]
    expected = [model.run([pair])[0] for pair in pairs]
    forward, seen = model._forward, []

    def limited(ir, vis, tile):
        seen.append(vis.shape)
        return forward(ir, vis, tile) if len(vis) < 3 else None

    monkeypatch.setattr(model, "_forward", limited)
    for fused, alone in zip(model.run(pairs), expected, strict=True):
        assert np.abs(fused - alone).max() < 2e-6
    assert seen == [(3, 48, 64), (1, 48, 64), (2, 48, 64)]
