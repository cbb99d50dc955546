"""The whole network on a CPU, by kernels: what `network` says block by block, for float32 inference.

The kernels work on some rows each, on threads of their own. Every pixel is computed by the same operations in
the same order wherever the strips lie; only the sums of the channel exchange run over strips, of a size that
does not depend on the machine. Weights are folded once: gains and layers that follow each other without
anything between them become one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffmf_cli.model.cpu import block_kernels as blocks
from diffmf_cli.model.cpu import picture_kernels as pictures
from diffmf_cli.model.cpu.product_kernels import CHUNK
from diffmf_cli.model.cpu.scan_kernels import scan_in_place, scan_room
from diffmf_cli.model.network import (
    MARGIN,
    ChannelExchange,
    Decoder,
    DifferenceGuidedExtraction,
    DiffMF,
    SpatialExchange,
    Stem,
    VSSBlock,
    reflected,
)
from diffmf_cli.scan.numba_kernels import LANES
from diffmf_cli.threads import on_threads

_ROWS = 8  # of a strip at least: lower ones would compute their neighbours' rows too often
_SUMMED_TOKENS = 2**12  # in a strip of sums
_KEPT_TOKENS = 2**16  # of a map whose decays stay in a cache: fewer than that are not computed twice


def _double(t: Tensor | None) -> np.ndarray:
    assert t is not None
    result: np.ndarray = t.detach().to("cpu", torch.float64).numpy()
    return result


def _empty(*shape: int) -> np.ndarray:
    """Vectors of `LANES` that no line of the cache cuts: numpy's begin a quarter of a line late.

    Numpy asks for large pages, without which walks along columns would wait for addresses.
    """
    line = LANES * 4
    size = math.prod(shape)
    room = np.empty(size + LANES, np.float32)
    return room[-room.ctypes.data % line // 4 :][:size].reshape(shape)


def _float(array: np.ndarray) -> np.ndarray:
    result = _empty(*array.shape)
    result[...] = array
    return result


def _padded(array: np.ndarray, *axes: int) -> np.ndarray:
    """With zeros after the end of the given axes, up to whole `LANES`."""
    room = [(0, -n % LANES if axis in axes else 0) for axis, n in enumerate(array.shape)]
    return _float(np.pad(array, room))


def _windows(weight: np.ndarray, bias: np.ndarray, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A 3x3 convolution `(outputs, inputs, 3, 3)` as `convolve` takes it, and its bias.

    Few outputs would leave lanes idle: then a window spans as many pixels as fill whole `LANES`.
    """
    outputs, inputs = weight.shape[:2]
    pixels = LANES // math.gcd(LANES, outputs)
    windows = np.zeros((3, (pixels - 1) * stride + 3, inputs, pixels, outputs))
    for i in range(pixels):
        windows[:, i * stride : i * stride + 3, :, i] = weight.transpose(2, 3, 1, 0)
    return _float(windows.reshape(3, -1, pixels * outputs)), _float(np.tile(bias, pixels))


def _convolution(conv: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    assert isinstance(conv, nn.Conv2d)
    return _windows(_double(conv.weight), _double(conv.bias), conv.stride[0])


def _shuffled(conv: nn.Conv2d, added: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A convolution before a pixel shuffle by 2, as two: of the upper and the lower row.

    Each of its inputs shall be larger by what is to be `added`: the border is repeated, so that is a bias.
    """
    weight = _double(conv.weight).reshape(-1, 2, 2, *conv.weight.shape[1:])
    bias = _double(conv.bias).reshape(-1, 2, 2)
    if added is not None:
        bias = bias + weight.sum((-2, -1)) @ added
    parts = [
        _windows(weight[:, k].swapaxes(0, 1).reshape(-1, *weight.shape[3:]), bias[:, k].T.ravel())
        for k in range(2)
    ]
    return _float(np.stack([part[0] for part in parts])), _float(np.stack([part[1] for part in parts]))


def _depthwise(conv: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Weight `(9, channels)` and bias."""
    assert isinstance(conv, nn.Conv2d)
    return _double(conv.weight).reshape(-1, 9).T, _double(conv.bias)


def _norm(norm: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    assert isinstance(norm, nn.LayerNorm)
    return _float(_double(norm.weight)), _float(_double(norm.bias))


def _linear(linear: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Weight `(inputs, outputs)` and bias."""
    assert isinstance(linear, nn.Linear)
    return _double(linear.weight).T, _double(linear.bias)


@dataclass
class _Room:
    """Memory that one scan after the other uses: new one from the system would cost as much as filling it.

    Attributes:
        values: what the scan walks through and makes, and whose result the next one overwrites.
        selected: step sizes, B and C.
        tasks: what each block of channels at work needs for itself.
    """

    values: np.ndarray
    selected: np.ndarray
    tasks: np.ndarray


def _rows(work: Callable[[int, int], Any], h: int, lowest: int = _ROWS) -> None:
    """Calls `work(top, bottom)` for strips of rows on all threads."""
    count = max(1, min(2 * torch.get_num_threads(), h // lowest))
    edges = [h * i // count for i in range(count + 1)]
    on_threads(lambda i: work(edges[i], edges[i + 1]), range(count))


class _Scan:
    """A `VSSBlock`'s norm, and its `SS2D` up to the result of the scan."""

    def __init__(self, block: VSSBlock) -> None:
        ss2d = block.scan
        inner = ss2d.inner
        weight, bias = _linear(ss2d.in_proj)
        conv, conv_bias = _depthwise(ss2d.conv)
        self.norm = _norm(block.norm_scan)
        self.prepare = (
            *self.norm,
            _padded(weight[:, :inner], 1),
            _padded(bias[:inner], 0),
            _padded(conv, 1),
            _padded(conv_bias, 0),
            _padded(_double(ss2d.select.weight).T, 0, 1),
        )
        self.selected = ss2d.rank + 2 * ss2d.d_state
        delta = _padded(_double(ss2d.delta.weight).T, 1)
        self.delta = _float(delta.reshape(ss2d.rank, -1, LANES).swapaxes(0, 1))
        self.A = _padded(-np.exp(_double(ss2d.A_log)), 0)
        self.A[inner:] = -1  # of channels that hold zeros: any rate
        self.D = _padded(_double(ss2d.D), 0)
        self.delta_bias = _padded(_double(ss2d.delta_bias), 0)
        self.gate = (_padded(weight[:, inner:], 1), _padded(bias[inner:], 0), *_norm(ss2d.norm))
        # In double precision, for those who fold them further.
        gain = _double(block.gain_scan)
        out, out_bias = _linear(ss2d.out_proj)
        self.out, self.out_bias = np.pad(out * gain, [(0, -inner % LANES), (0, 0)]), out_bias * gain

    def _tasks(self, h: int, w: int) -> tuple[int, int, int]:
        """Columns whose decays a block of channels keeps, the size of its room, and how many are at work."""
        kept = w if h * w <= _KEPT_TOKENS else min(w, CHUNK)
        return kept, scan_room(h, w, kept), min(torch.get_num_threads(), len(self.delta))

    def needs(self, h: int, w: int) -> tuple[int, int, int]:
        """Sizes of a `_Room` for this."""
        _, size, at_once = self._tasks(h, w)
        return self.delta_bias.size * h * w, self.selected * h * w, size * at_once

    def run(
        self, tokens: np.ndarray, h: int, w: int, layout: tuple[int, int, int, int], room: _Room
    ) -> np.ndarray:
        """The scan's result `(d / LANES, h * w, LANES)`, until the next; for `layout` see `prepare`."""
        kept, size, at_once = self._tasks(h, w)
        values = room.values[: self.delta_bias.size * h * w].reshape(len(self.delta), h * w, LANES)
        selected = room.selected[: self.selected * h * w].reshape(h * w, self.selected)
        free = [room.tasks[i * size :][:size] for i in range(at_once)]
        _rows(
            lambda top, bottom: blocks.prepare(
                tokens, h, w, *layout, top, bottom, *self.prepare, values, selected
            ),
            h,
        )

        def scan(block: int) -> None:
            parameters = self.delta, self.A, self.D, self.delta_bias
            own = free.pop()
            scan_in_place(values, selected, *parameters, h, w, block, kept, own)
            free.append(own)

        on_threads(scan, range(len(self.delta)))
        return values


class _Block:
    """A `VSSBlock` with FFN."""

    def __init__(self, block: VSSBlock) -> None:
        assert block.ffn is not None
        norm, widen, _, narrow = block.ffn
        self.scan = _Scan(block)
        widened, widened_bias = _linear(widen)
        narrowed, narrowed_bias = _linear(narrow)
        gain = _double(block.gain_ffn)
        self.finish = (
            *self.scan.norm,
            *self.scan.gate,
            _float(self.scan.out),
            _float(self.scan.out_bias),
            *_norm(norm),
            _float(widened),
            _float(widened_bias),
            _float(narrowed * gain),
            _float(narrowed_bias * gain),
        )

    def run(self, tokens: np.ndarray, h: int, w: int, room: _Room) -> None:
        """In place."""
        y = self.scan.run(tokens, h, w, (w, w, 0, 1), room)
        _rows(lambda top, bottom: blocks.finish(tokens, y, top * w, bottom * w, *self.finish), h, 1)


class _Stem:
    def __init__(self, stem: Stem) -> None:
        self.detail = _convolution(stem.full)
        self.weights = (*self.detail, *_convolution(stem.to_half), *_convolution(stem.to_quarter))

    def run(self, picture: np.ndarray, rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> None:
        _rows(
            lambda top, bottom: pictures.stem(picture, rows, columns, top, bottom, *self.weights, out),
            len(rows) // 4,
        )


class _Extraction:
    """`DifferenceGuidedExtraction`, in place."""

    def __init__(self, stage: nn.Module) -> None:
        assert isinstance(stage, DifferenceGuidedExtraction)
        self.ir, self.vis, self.shared = _Block(stage.ir), _Block(stage.vis), _Block(stage.shared)
        self.conv = _convolution(stage.shared_conv)
        self.spread = tuple(_float(t) for t in _depthwise(stage.spread))
        (ir, ir_bias), (vis, vis_bias) = (_linear(stage.guide[m]) for m in ("ir", "vis"))
        self.guide = _float(np.stack([ir, -vis])), _float(np.stack([ir_bias, vis_bias]))

    def run(self, ir: np.ndarray, vis: np.ndarray, shared: np.ndarray, h: int, w: int, room: _Room) -> None:
        """`shared` `(2, h * w, C)` is overwritten."""
        for feature, out in zip((ir, vis), shared, strict=True):
            _rows(lambda *rows, x=feature, out=out: blocks.conv(x, h, w, *rows, *self.conv, out), h)
            self.shared.run(out, h, w, room)
        self.ir.run(ir, h, w, room)
        self.vis.run(vis, h, w, room)
        _rows(lambda *rows: blocks.guide_both(*shared, h, w, *rows, *self.spread, *self.guide, ir, vis), h)


class _Channels:
    """`ChannelExchange`."""

    def __init__(self, exchange: ChannelExchange) -> None:
        c, state = exchange.sizes[0], exchange.STATE
        heads = exchange.sizes[-1]
        both = ("ir", "vis")

        def stacked(arrays: list[np.ndarray]) -> np.ndarray:
            return _float(np.stack(arrays))

        projections = [_linear(exchange.in_proj[m]) for m in both]
        starts = np.cumsum([0, *exchange.sizes])
        z, x, B, C, delta = (np.arange(*starts[i : i + 2]) for i in range(5))
        convs = [_depthwise(exchange.conv[m]) for m in both]
        norms = [_norm(exchange.norm[m]) for m in both]
        self.norm = stacked([n[0] for n in norms]), stacked([n[1] for n in norms])

        def part(columns: np.ndarray, mixed: np.ndarray) -> tuple[np.ndarray, ...]:
            """Projections to some columns, of which `mixed` go through the convolution."""
            weights = [_padded(w[:, columns], 1) for w, _ in projections]
            biases = [_padded(b[columns], 0) for _, b in projections]
            return (
                stacked(weights),
                stacked(biases),
                stacked([w[:, mixed - c] for w, _ in convs]),
                stacked([b[mixed - c] for _, b in convs]),
            )

        written, read = np.concatenate([x, B]), np.concatenate([x, C])
        self.rate = stacked([np.exp(_double(exchange.rate_log[m])) for m in both])
        self.sums = (*self.norm, *part(np.concatenate([written, delta]), written), self.rate)
        self.read = (*self.norm, *part(read, read))
        self.gate = (
            stacked([w[:, z] for w, _ in projections]),
            stacked([b[z] for _, b in projections]),
        )
        self.skip = stacked([np.repeat(_double(exchange.D[m]), exchange.HEAD) for m in both])
        after = [_norm(exchange.norm_out[m]) for m in both]
        self.norm_out = stacked([n[0] for n in after]), stacked([n[1] for n in after])
        self.out = [_linear(exchange.out_proj[m]) for m in both]
        self.omega = [_linear(exchange.omega[0]), _linear(exchange.omega[2])]
        self.c, self.state, self.heads = c, state, heads

    def run(self, ir: np.ndarray, vis: np.ndarray, both: np.ndarray, h: int, w: int) -> None:
        """`both` `(h * w * 2, C)` becomes that of both, token by token in turns."""
        c = self.c
        step = max(1, _SUMMED_TOKENS // w)

        def sums(top: int) -> tuple[np.ndarray, ...]:
            kv, totals = np.zeros((2, c, self.state)), np.zeros((2, self.heads))
            means, peaks = np.zeros((2, c)), np.full((2, c), -np.inf, np.float32)
            rows = top, min(top + step, h)
            blocks.channel_sums(ir, vis, h, w, *rows, *self.sums, kv, totals, means, peaks)
            return kv, totals, means, peaks

        parts = on_threads(sums, range(0, h, step))
        kv, totals, means = (np.sum([part[i] for part in parts], 0) for i in range(3))
        peaks = np.max([part[3] for part in parts], 0)
        kv = kv / np.repeat(totals, c // self.heads, 1)[..., None]
        pooled = np.concatenate([*(means / (h * w)), *peaks])
        (first, first_bias), (second, second_bias) = self.omega
        hidden = torch.nn.functional.gelu(torch.from_numpy(pooled @ first + first_bias)).numpy()
        omega = 1 / (1 + np.exp(-(hidden @ second + second_bias))).reshape(2, 1, c)
        weight = _float(np.stack([w for w, _ in self.out]) * 2 * omega)
        bias = _float(np.stack([b for _, b in self.out]) * 2 * omega[:, 0])
        _rows(
            lambda *rows: blocks.channel_read(
                ir,
                vis,
                h,
                w,
                *rows,
                *self.read,
                *self.gate,
                _float(kv.swapaxes(1, 2)),
                self.skip,
                *self.norm_out,
                weight,
                bias,
                both,
            ),
            h,
        )


class _Space:
    """`SpatialExchange` of one level and its share of the decoder's first convolution."""

    def __init__(self, exchange: nn.Module, reduce: np.ndarray, bias: np.ndarray) -> None:
        assert isinstance(exchange, SpatialExchange)
        c = exchange.linear.out_features
        weight, linear_bias = _linear(exchange.linear)
        weight = weight @ reduce
        self.bias = linear_bias @ reduce + bias
        stacked, first, second, left, right = np.split(weight, np.cumsum([2 * c, c, c, c]))
        self.scans = [_Scan(block) for block in (exchange.stack, exchange.column, exchange.row)]
        self.finish = []
        for scan, parts in zip(self.scans, ([stacked], [first, second], [left, right]), strict=True):
            for part in parts:
                self.bias = self.bias + scan.out_bias @ part
                folded = _float(part), _float(scan.out @ part)
                self.finish.append((*scan.norm, *scan.gate, *folded))
        self.bias = _float(self.bias)

    def needs(self, h: int, w: int) -> list[tuple[int, int, int]]:
        """Sizes of a `_Room` for each scan of a level of `h` x `w` tokens."""
        return [scan.needs(h, columns) for scan, columns in zip(self.scans, (w, 2 * w, 2 * w), strict=True)]

    def run(
        self, both: np.ndarray, below: list[np.ndarray], h: int, w: int, room: _Room, out: np.ndarray
    ) -> None:
        """`both` `(h * w * 2, C)` -> `out` `(h * w, C)`, to which the result `below` is added, if any.

        There `out` takes its place, since the last two scans need most memory.
        """
        c = both.shape[1]
        stacked = both.reshape(h * w, 2 * c)

        def finish(
            k: int, tokens: np.ndarray, x: tuple[int, int], y: np.ndarray, layout: tuple[int, ...]
        ) -> None:
            _rows(
                lambda *rows: blocks.finish_into(
                    tokens, *x, y, *layout, w, *rows, *self.finish[k], self.bias, k == 0, out
                ),
                h,
                1,
            )

        y = self.scans[0].run(stacked, h, w, (w, w, 0, 1), room)
        finish(0, stacked, (0, 1), y, (0, w, 1))
        if below:
            _add_doubled(below.pop(), h, w, out)
        below.append(out)
        y = self.scans[1].run(both, h, 2 * w, (2 * w, 2 * w, 0, 1), room)
        for m in range(2):
            finish(1 + m, both, (m, 2), y, (m, 2 * w, 2))
        y = self.scans[2].run(both, h, 2 * w, (2 * w, w, 1 - 2 * w, 2), room)
        for m in range(2):
            finish(3 + m, both, (m, 2), y, (m * w, 2 * w, 1))


class CpuInference:
    """`DiffMF.forward` of float32 pictures, with the weights that a network had when this was made."""

    def __init__(self, network: DiffMF) -> None:
        decoder: Decoder = network.decoder
        second, second_bias = _convolution(decoder.residual[2])
        self.width = c = network.config.width
        self.stems = _Stem(network.stem_ir), _Stem(network.stem_vis)
        self.extraction = [_Extraction(stage) for stage in network.extraction]
        self.channels = _Channels(network.channel_exchange)
        # The decoder's first convolution is of single pixels: it may go before the doubling.
        shares = np.split(_double(decoder.reduce.weight)[:, :, 0, 0].T, 3)
        biases = _double(decoder.reduce.bias), np.zeros(c), np.zeros(c)
        self.levels = [
            _Space(network.spatial_exchange[level], share, bias)
            for level, share, bias in zip(("high", "middle", "low"), shares, biases, strict=True)
        ]
        merge, quartered = _double(decoder.merge.weight), c // 4
        parts = [
            _windows(merge[:, i : i + quartered], _double(decoder.merge.bias))
            for i in range(0, 3 * quartered, quartered)
        ]
        self.decoder = (
            *self.stems[0].detail,
            *self.stems[1].detail,
            *_convolution(decoder.residual[0]),
            second,
            *_shuffled(decoder.to_half, second_bias),
            *_shuffled(decoder.to_full),
            *(weight for weight, _ in parts),
            parts[0][1],
            *_convolution(decoder.out),
        )

    def fits(self, pixels: int) -> bool:
        """True: row by row anyway, it needs no strips."""
        return True

    def __call__(self, ir: Tensor, vis: Tensor) -> Tensor:
        """Two `(B, 1, H, W)` in [0, 1] -> one."""
        fused = torch.empty(ir.shape)
        for one, other, result in zip(ir[:, 0], vis[:, 0], fused[:, 0], strict=True):
            self._fuse(one.contiguous().numpy(), other.contiguous().numpy(), result.numpy())
        return fused

    def _fuse(self, ir: np.ndarray, vis: np.ndarray, out: np.ndarray) -> None:
        """Two pictures `(H, W)` -> `out` `(H, W)`."""
        rows, columns = (reflected(n).numpy() for n in ir.shape)
        features = self._features(ir, vis, rows, columns)
        _rows(
            lambda *strip: pictures.decode(
                features, ir, vis, rows, columns, MARGIN, *strip, *self.decoder, out
            ),
            len(rows) // 4,
        )

    def _features(self, ir: np.ndarray, vis: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Stems, the state space part, and the decoder's first convolution: `(h * w, C)`."""
        h, w = len(rows) // 4, len(columns) // 4
        size = h * w * self.width
        narrow = self.extraction[0].ir.scan.needs(h, w)
        wide = [need for k, level in enumerate(self.levels) for need in level.needs(h >> k, w >> k)]
        values, selected, tasks = np.max([narrow, *wide], 0)
        # One piece of memory. In the extraction: what is shared, both features, values. In the exchanges:
        # what was exchanged, values of two modalities, the result.
        memory = _empty(max(4 * size + narrow[0], 3 * size + values))
        shared, features = memory[: 4 * size].reshape(2, 2, h * w, self.width)
        for stem, picture, feature in zip(self.stems, (ir, vis), features, strict=True):
            stem.run(picture, rows, columns, feature)
        ir, vis = features
        room = _Room(memory[4 * size :], *np.split(_empty(selected + tasks), [selected]))
        for stage in self.extraction:
            stage.run(ir, vis, shared, h, w, room)
        both = shared.reshape(-1, self.width)
        self.channels.run(ir, vis, both, h, w)
        room.values, result = np.split(memory[2 * size :], [-size])
        # The lower levels fit into that, but for a result that the highest takes while it makes its own.
        count = [(h >> k) * (w >> k) * self.width for k in range(3)]
        middle, low, low_result, _ = np.split(result, np.cumsum([2 * count[1], 2 * count[2], count[2]]))
        levels = [both, middle.reshape(-1, self.width), low.reshape(-1, self.width)]
        for k in (1, 2):
            _halve(levels[k - 1], h >> k, w >> k, levels[k])
        below: list[np.ndarray] = []
        for k, place in ((2, low_result), (1, None), (0, result)):
            out = (_empty(count[k]) if place is None else place).reshape(-1, self.width)
            self.levels[k].run(levels[k], below, h >> k, w >> k, room, out)
        return below.pop()


def _halve(both: np.ndarray, h: int, w: int, out: np.ndarray) -> None:
    """Means of 2x2 tokens, for `h` rows and `w` columns of the result."""
    c = 2 * both.shape[1]
    _rows(lambda *rows: blocks.halve(both.reshape(-1, c), 2 * w, *rows, out.reshape(-1, c)), h, 1)


def _add_doubled(x: np.ndarray, h: int, w: int, out: np.ndarray) -> None:
    """Adds to the `h` rows and `w` columns of `out`."""
    _rows(lambda *rows: blocks.add_doubled(x, h // 2, w // 2, *rows, out), h, 1)
