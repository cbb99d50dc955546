"""Pairs of arrays through the network: prepare, run, restore."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffmf_cli import scan
from diffmf_cli.alignment.choice import choose, parse_align
from diffmf_cli.alignment.outside import OUTSIDE, Placed, place
from diffmf_cli.alignment.transform import Transform
from diffmf_cli.errors import DiffmfError, ImageError, UsageError, check_choice
from diffmf_cli.fusion.device import check_device_name, resolve_device
from diffmf_cli.images import color as colors
from diffmf_cli.images.range import IntensityRange, from_unit, to_unit
from diffmf_cli.images.resize import check_aspect, resize_to
from diffmf_cli.model.catalogue import check_task, find_weights

if TYPE_CHECKING:
    import torch

    from diffmf_cli.model.cpu.inference import CpuInference
    from diffmf_cli.model.cuda.inference import CudaInference
    from diffmf_cli.model.network import DiffMF

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
COLORS = ("auto", "gray", "ycbcr")
_SMALLEST_TILE = 64


def check_settings(
    *,
    device: str = "auto",
    precision: str = "auto",
    scan_backend: str = "auto",
    tile: str | int = "auto",
    color: str = "auto",
    ir_range: str = "auto",
) -> None:
    """Refuses values that can be known to be wrong without importing torch.

    Raises:
        UsageError: for the first of them.
    """
    check_device_name(device)
    check_choice("precision", precision, PRECISIONS)
    check_choice("color", color, COLORS)
    _parse_tile(tile)
    IntensityRange.parse(ir_range)
    with scan.using(scan_backend):
        scan.requested()


def check_pair(
    ir: np.ndarray, vis: np.ndarray, *, stretch: bool = False, names: tuple[str, str] = ("ir", "vis")
) -> None:
    """Refuses pictures that cannot be fused; see `Fuser.fuse` for what can.

    Args:
        ir: infrared picture.
        vis: visible picture.
        stretch: accept aspect ratios that differ.
        names: what messages call the two.

    Raises:
        ImageError: for an array of another form, or a float `vis` outside [0, 1].
        UsageError: if the aspect ratios differ by more than 2 % and `stretch` is not set.
    """
    for name, pixels in zip(names, (ir, vis), strict=True):
        if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3)):
            raise ImageError(f"{name} has shape {pixels.shape}: give (H, W), (H, W, 1) or (H, W, 3)")
        if pixels.size == 0:
            raise ImageError(f"{name} has shape {pixels.shape}: it holds no pixels")
        if pixels.dtype not in (np.uint8, np.uint16) and pixels.dtype.kind != "f":
            raise ImageError(f"{name} has type {pixels.dtype}: give uint8, uint16 or float")
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise ImageError(f"{name} holds NaN or infinite values: replace them by finite ones")
    if vis.dtype.kind == "f":
        try:
            to_unit(vis)
        except ImageError as error:
            raise ImageError(f"{names[1]} has {error}") from None
    if not stretch:
        check_aspect(ir.shape[:2], vis.shape[:2])


@dataclass(frozen=True, eq=False)
class Prepared:
    """A pair between `prepare` and `Fuser.restore`.

    Attributes:
        ir: infrared luma on the grid of `vis`: `(H, W)` float32 in [0, 1].
        vis: visible luma: `(H, W)` float32 in [0, 1].
        vis_rgb: `(H, W, 3)` as it was given, whose colours the result gets, or None for a grey result.
        shape: of the result.
        dtype: of the result.
        notices: what deserves attention, such as an infrared picture of another size.
        shown: rows and columns of the given visible picture that the result shows.
        placed: where an aligned infrared picture lies; `ir` and `vis` are then only the part that it covers.
        around: `(H, W)` float32 that the fusion of that part is put into.
    """

    ir: np.ndarray
    vis: np.ndarray
    vis_rgb: np.ndarray | None
    shape: tuple[int, ...]
    dtype: np.dtype
    notices: tuple[str, ...]
    shown: tuple[slice, slice] = (slice(None), slice(None))
    placed: Placed | None = None
    around: np.ndarray | None = None


def prepare(
    ir: np.ndarray,
    vis: np.ndarray,
    *,
    color: str = "auto",
    ir_range: str | IntensityRange = "auto",
    stretch: bool = False,
    dtype: np.typing.DTypeLike | None = None,
    align: Transform | str = "none",
    outside: str = "vis",
    fov_ratio: float | None = None,
    names: tuple[str, str] = ("ir", "vis"),
) -> Prepared:
    """What of `Fuser.fuse` comes before the network and needs no model; its arguments and errors.

    Messages call the two pictures by `names`.
    """
    check_choice("color", color, COLORS)
    span = IntensityRange.parse(ir_range) if isinstance(ir_range, str) else ir_range
    check_choice("outside", outside, OUTSIDE)
    align = parse_align(align, fov_ratio) if isinstance(align, str) else align
    check_pair(ir, vis, stretch=stretch or align != "none", names=names)
    transform, left_as_is = choose(align, ir, vis, fov_ratio=fov_ratio, ir_range=span)
    notices = [left_as_is] if left_as_is else []
    if transform is None and not stretch:
        check_aspect(ir.shape[:2], vis.shape[:2], tried=align != "none")
    if nothing_shown := span.beside(ir):
        notices.append(nothing_shown)
    if _is_coloured(ir) and not _is_coloured(vis):
        notices.append("IR has colours and VIS has none: are they swapped?")

    vis_luma = _luma(to_unit(vis))  # in float no longer than needed: a large picture's colours are memory
    ir_luma = _luma(span.apply(ir))
    part, placed, around = (slice(None), slice(None)), None, None
    if transform is not None:
        found = place(ir_luma, transform, outside)
        if outside == "crop":
            part = found.box
        else:
            placed, around = found, vis_luma if outside == "vis" else np.zeros_like(vis_luma)
        ir_luma, vis_luma = found.ir, vis_luma[found.box]
    elif ir_luma.shape != vis_luma.shape:
        (h, w), (height, width) = ir_luma.shape, vis_luma.shape
        notices.append(f"IR of {w}x{h} was resampled to the {width}x{height} of VIS")
        ir_luma = resize_to(ir_luma, (height, width), stretch)
    vis = vis[part]
    rgb = vis.ndim == 3 and vis.shape[2] == 3
    return Prepared(
        ir_luma,
        vis_luma,
        vis if rgb and color != "gray" else None,
        vis.shape[:2] if rgb and color == "gray" else vis.shape,
        np.dtype(vis.dtype if dtype is None else dtype),
        tuple(notices),
        part,
        placed,
        around,
    )


class Fuser:
    """A loaded checkpoint that fuses pairs of arrays; made by `diffmf_cli.load_model`.

    Attributes:
        name: what the checkpoint was asked for by.
        metadata: what the checkpoint says of itself.
        task: what it was trained for, such as `ir-vis` or `medical`.
        device: where the network is, such as `cpu` or `cuda:0`.
        precision: `fp32`, `bf16` or `fp16`.
        scan_backend: the implementation of the selective scan that runs here.
    """

    def __init__(
        self,
        network: "DiffMF",
        metadata: dict[str, str],
        *,
        name: str,
        device: "torch.device",
        precision: str,
        scan_backend: str,
        tile: str | int,
    ) -> None:
        self.name, self.metadata = name, metadata
        self.task = metadata.get("task", "unknown")
        self.device = str(device)
        self.scan_backend = scan_backend
        self._network = network.eval()
        self._fused_kernels = _fused_kernels(self._network, device, precision, scan_backend)
        automatic = "fp32" if self._fused_kernels is None or device.type == "cpu" else "fp16"
        self.precision = automatic if precision == "auto" else precision
        self._tile = _parse_tile(tile)

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        device: str = "auto",
        precision: str = "auto",
        scan_backend: str = "auto",
        tile: str | int = "auto",
        task: str = "auto",
    ) -> "Fuser":
        """See `diffmf_cli.load_model`."""
        check_settings(device=device, precision=precision, scan_backend=scan_backend, tile=tile)
        path = find_weights(str(name_or_path))
        check_task(str(name_or_path), path, task)
        found = resolve_device(device)
        with scan.using(scan_backend):
            chosen = scan.choose(found)
        from diffmf_cli.model.checkpoint import load_checkpoint

        network, metadata = load_checkpoint(path, found)
        return cls(
            network,
            metadata,
            name=str(name_or_path),
            device=found,
            precision=precision,
            scan_backend=chosen,
            tile=tile,
        )

    def fuse(
        self,
        ir: np.ndarray,
        vis: np.ndarray,
        *,
        color: str = "auto",
        ir_range: str = "auto",
        stretch: bool = False,
        dtype: np.typing.DTypeLike | None = None,
        align: Transform | str = "none",
        outside: str = "vis",
        fov_ratio: float | None = None,
    ) -> np.ndarray:
        """Fuses one pair.

        The network fuses the infrared picture with the BT.601 luma of the visible one; colour comes from
        `vis`. The output is clamped to its range, never stretched. What deserves attention, such as an
        infrared picture of another size, is logged as a warning.

        Args:
            ir: `(H, W)`, `(H, W, 1)` or `(H, W, 3)`; uint8, uint16 or float. Resampled where its size is not
                that of `vis`.
            vis: the same forms, RGB order; floats in [0, 1].
            color: `auto` and `ycbcr` keep the colours of `vis`, `gray` gives `(H, W)` of a coloured one.
            ir_range: which infrared values become black and white; see `IntensityRange.parse`.
            stretch: accept aspect ratios that differ.
            dtype: of the result, where not that of `vis`: uint8, uint16 or a float in [0, 1].
            align: `none` for a registered pair, `auto` to find where `ir` lies in `vis`, or a transform or
                its file.
            outside: what the result shows where an aligned `ir` does not reach: `vis` with a soft border,
                `blank` is black, `crop` cuts it off.
            fov_ratio: width of the infrared view over that of the visible one, which helps `auto`.

        Returns:
            An array of the shape and dtype of `vis`; smaller with `crop`.

        Raises:
            ImageError: for pictures that cannot be fused, and for a result that is constant or not finite.
            UsageError: for values that an option does not take, and aspect ratios that differ.
        """
        prepared = prepare(
            ir,
            vis,
            color=color,
            ir_range=ir_range,
            stretch=stretch,
            dtype=dtype,
            align=align,
            outside=outside,
            fov_ratio=fov_ratio,
        )
        for notice in prepared.notices:
            log.warning(notice)
        return self.restore(prepared, self.run([prepared])[0])

    def run(self, pairs: Sequence[Prepared]) -> list[np.ndarray]:
        """The network's part of `fuse`, for one or several pairs of one size at once.

        Several at once use a GPU better. Sums are then taken in another order: the results differ by about
        3e-7, which can turn one grey level of a rounded picture.

        Args:
            pairs: prepared pairs whose pictures all have the same size.

        Returns:
            For each the fused luma, `(H, W)`, for `restore`.

        Raises:
            DiffmfError: if memory does not suffice even in the smallest strips.
        """
        if len(pairs) == 1:
            return [self._run(pairs[0].ir, pairs[0].vis)]
        return list(self._run(np.stack([pair.ir for pair in pairs]), np.stack([pair.vis for pair in pairs])))

    def restore(self, pair: Prepared, fused: np.ndarray) -> np.ndarray:
        """What of `fuse` comes after the network: `(H, W)` of `run` -> the result, in colour.

        Raises:
            ImageError: for a result that is constant or not finite.
        """
        if not np.isfinite(fused).all():
            raise ImageError(f"the network gave NaN or infinite values in {self.precision}; use fp32")
        if _is_constant(fused) and not (_is_constant(pair.ir) and _is_constant(pair.vis)):
            raise ImageError("the network gave a constant picture; use another model, or fp32")
        if pair.placed is not None and pair.around is not None:
            fused = pair.placed.complete(fused, pair.around)
        if pair.vis_rgb is not None:
            return colors.restore_color(fused, pair.vis_rgb, pair.dtype)
        return from_unit(fused.reshape(pair.shape), pair.dtype)

    def _run(self, ir: np.ndarray, vis: np.ndarray) -> np.ndarray:
        """Two `([B,] H, W)` in [0, 1] -> one; fewer at once, then smaller strips, where memory runs out."""
        height, width = vis.shape[-2:]
        kernels, tile = self._fused_kernels, self._tile
        wanted = tile is None or self.device == "cpu"  # there they go row by row whatever the tile
        if wanted and kernels is not None and kernels.fits(height * width):
            tile = 0
        elif tile is None:
            tile = _automatic_tile(height * width)
        halved = False
        while True:
            fused = self._forward(ir, vis, tile)
            if fused is not None:
                break
            if vis.ndim == 3 and len(vis) > 1:
                half = len(vis) // 2
                return np.concatenate([self._run(ir[:half], vis[:half]), self._run(ir[half:], vis[half:])])
            tile = (tile or max(height, width)) // 2
            halved = True
            if tile < _SMALLEST_TILE:
                elsewhere = "" if self.device == "cpu" else "--device cpu, "
                raise DiffmfError(
                    f"{self.device} has too little memory for {width}x{height} pixels: "
                    f"use {elsewhere}a smaller model, or a smaller picture"
                )
        if halved:
            log.warning("%s ran out of memory; worked with --tile %d instead", self.device, tile)
        return fused

    def _forward(self, ir: np.ndarray, vis: np.ndarray, tile: int) -> np.ndarray | None:
        """One pass of the network, or None where the device ran out of memory."""
        import torch

        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        kind = torch.device(self.device).type
        try:
            with (
                # Kernels of our own run on the current device, which is one for each thread.
                torch.cuda.device(self.device) if kind == "cuda" else nullcontext(),
                torch.inference_mode(),
                torch.autocast(kind, dtype=half, enabled=half is not None),
                # Same bytes in two runs, and fp32 that is not TF32.
                torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
                scan.using(self.scan_backend),
            ):
                size = (-1, 1, *vis.shape[-2:])
                pair = (torch.from_numpy(np.ascontiguousarray(t)).reshape(size) for t in (ir, vis))
                inputs = [t.to(self.device) for t in pair]
                if self._fused_kernels is None or tile:
                    fused = self._network(*inputs, tile=tile)
                else:
                    fused = self._fused_kernels(*inputs)
                result: np.ndarray = fused.reshape(vis.shape).float().cpu().numpy()
                return result
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        # Only here is the traceback gone, and with it the tensors of the failed pass.
        if kind == "cuda":
            torch.cuda.empty_cache()
        return None


def _parse_tile(tile: str | int) -> int | None:
    """Side in pixels, 0 for the whole picture, None for automatic."""
    if tile == "auto":
        return None
    try:
        side = int(tile)
    except ValueError:
        side = -1
    if side < 0 or 0 < side < _SMALLEST_TILE:
        raise UsageError(
            f"tile '{tile}': use auto, 0 (the whole picture) or at least {_SMALLEST_TILE} pixels"
        )
    return side


def _automatic_tile(pixels: int) -> int:
    """Strips of a quarter of a megapixel for everything above one."""
    return 0 if pixels <= 2**20 else 512


def _fused_kernels(
    network: "DiffMF", device: "torch.device", precision: str, scan_backend: str
) -> "CpuInference | CudaInference | None":
    """The network as our own kernels, which come with our own scans; None where they do not apply."""
    if scan_backend == "numba" and precision in ("auto", "fp32"):
        from diffmf_cli.model.cpu.inference import CpuInference

        return CpuInference(network)
    if device.type != "cuda" or scan_backend != "triton":
        return None
    import torch

    from diffmf_cli.model.cuda import inference

    if not inference.supports(network.config):
        return None
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}.get(precision, torch.float16)
    return inference.CudaInference(network, dtype)


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU and MPS allocators raise plain RuntimeErrors.
    return "out of memory" in str(error) or "can't allocate memory" in str(error)


def _luma(unit: np.ndarray) -> np.ndarray:
    """`(H, W)` of one or three channels, or of none."""
    if unit.ndim == 3 and unit.shape[2] == 3:
        return colors.luma(unit)
    return unit.reshape(unit.shape[:2])


def _is_constant(pixels: np.ndarray) -> bool:
    return bool(pixels.min() == pixels.max())


def _is_coloured(pixels: np.ndarray) -> bool:
    """Whether the channels differ by more than what JPEG does to a grey picture."""
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return False
    sample: Any = pixels[::4, ::4].astype(np.float32)
    white = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1.0
    return bool((sample.max(2) - sample.min(2)).mean() > 0.02 * white)
