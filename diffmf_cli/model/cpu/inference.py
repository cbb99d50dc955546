"""The whole network on a CPU, by kernels: what `network` says block by block, for float32 inference.

The kernels work on some rows each, on threads of their own. Where memory allows, what need not wait for each
other goes side by side: the modalities in the extraction, the levels of the spatial exchange. Every pixel is
computed by the same operations in the same order wherever the strips lie; only the sums of the channel
exchange run over strips, of a size that does not depend on the machine. Weights are folded once: gains and
layers that follow each other without anything between them become one.
"""

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffmf_cli.model.cpu import block_kernels as blocks
from diffmf_cli.model.cpu import picture_kernels as pictures
from diffmf_cli.model.cpu.product_kernels import CHUNK
from diffmf_cli.model.cpu.scan_kernels import scan_in_place, scan_room
from diffmf_cli.model.cpu.winograd_kernels import winograd_weights
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
from diffmf_cli.threads import Phase, in_lanes, on_threads

_ROWS = 8  # of a strip at least: lower ones would compute their neighbours' rows too often
_SUMMED_TOKENS = 2**12  # in a strip of sums
_KEPT_TOKENS = 2**16  # of a map whose decays stay in a cache: fewer than that are not computed twice
_TOGETHER = 2**16  # of a picture that takes memory for speed: what need not wait goes side by side;
_NARROW = 32  # and width of a network that does so always: there it takes 62 bytes a pixel instead of 48


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


def _parameters(conv: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Weight `(outputs, inputs, 3, 3)` and bias."""
    assert isinstance(conv, nn.Conv2d)
    return _double(conv.weight), _double(conv.bias)


def _convolution(conv: nn.Conv2d) -> tuple[np.ndarray, np.ndarray]:
    """As `convolve` takes it."""
    return _windows(*_parameters(conv), conv.stride[0])


def _tiled(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A 3x3 convolution `(outputs, inputs, 3, 3)` as `convolve_tiles` takes it, and its bias."""
    return _float(winograd_weights(weight)), _float(bias)


def _shuffled(conv: nn.Conv2d, added: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A convolution before a pixel shuffle by 2, as two: of the upper and the lower row.

    Each of its inputs shall be larger by what is to be `added`: the border is repeated, so that is a bias.
    """
    weight, bias = _parameters(conv)
    weight, bias = weight.reshape(-1, 2, 2, *weight.shape[1:]), bias.reshape(-1, 2, 2)
    if added is not None:
        bias = bias + weight.sum((-2, -1)) @ added
    parts = [
        _tiled(weight[:, k].swapaxes(0, 1).reshape(-1, *weight.shape[3:]), bias[:, k].T.ravel())
        for k in range(2)
    ]
    return _float(np.stack([part[0] for part in parts])), _float(np.stack([part[1] for part in parts]))


def _depthwise(conv: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Weight `(9, channels)` and bias."""
    assert isinstance(conv, nn.Conv2d)
    return _double(conv.weight).reshape(-1, 9).T, _double(conv.bias)


def _norm(norm: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift, after whose ends zeros fill whole `LANES`: kernels read these, too."""
    assert isinstance(norm, nn.LayerNorm)
    scale, shift = (_padded(_double(t), 0)[: t.numel()] for t in (norm.weight, norm.bias))
    return scale, shift


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
        tasks: for each thread, what a block of channels at work needs for itself; of all rooms together.
    """

    values: np.ndarray
    selected: np.ndarray
    tasks: list[np.ndarray]


def _rows(work: Callable[[int, int], Any], h: int, lowest: int = _ROWS) -> Phase:
    """`work(top, bottom)` for strips of rows."""
    count = max(1, min(2 * torch.get_num_threads(), h // lowest))
    edges = [h * i // count for i in range(count + 1)]
    return lambda i: work(edges[i], edges[i + 1]), range(count)


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

    @staticmethod
    def _kept(h: int, w: int) -> int:
        """Columns whose decays a block of channels keeps."""
        return w if h * w <= _KEPT_TOKENS else min(w, CHUNK)

    def needs(self, h: int, w: int) -> tuple[int, int, int]:
        """Sizes of a `_Room` for this; of one thread's task."""
        task = scan_room(h, w, self._kept(h, w))
        return self.delta_bias.size * h * w, self.selected * h * w, task

    def run(
        self, tokens: np.ndarray, h: int, w: int, layout: tuple[int, int, int, int], room: _Room
    ) -> Generator[Phase, None, np.ndarray]:
        """The scan's result `(d / LANES, h * w, LANES)`, until the next; for `layout` see `prepare`."""
        values = room.values[: self.delta_bias.size * h * w].reshape(len(self.delta), h * w, LANES)
        selected = room.selected[: self.selected * h * w].reshape(h * w, self.selected)
        yield _rows(
            lambda top, bottom: blocks.prepare(
                tokens, h, w, *layout, top, bottom, *self.prepare, values, selected
            ),
            h,
        )

        def scan(block: int) -> None:
            parameters = self.delta, self.A, self.D, self.delta_bias
            own = room.tasks.pop()
            scan_in_place(values, selected, *parameters, h, w, block, self._kept(h, w), own)
            room.tasks.append(own)

        yield scan, range(len(self.delta))
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

    def run(self, tokens: np.ndarray, h: int, w: int, room: _Room) -> Iterator[Phase]:
        """In place."""
        y = yield from self.scan.run(tokens, h, w, (w, w, 0, 1), room)
        yield _rows(lambda top, bottom: blocks.finish(tokens, y, top * w, bottom * w, *self.finish), h, 1)


class _Stem:
    def __init__(self, stem: Stem) -> None:
        self.detail = _convolution(stem.full)
        self.weights = (*self.detail, *_convolution(stem.to_half), *_convolution(stem.to_quarter))

    def run(self, picture: np.ndarray, rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> Phase:
        return _rows(
            lambda top, bottom: pictures.stem(picture, rows, columns, top, bottom, *self.weights, out),
            len(rows) // 4,
        )


class _Extraction:
    """`DifferenceGuidedExtraction`, in place."""

    def __init__(self, stage: nn.Module) -> None:
        assert isinstance(stage, DifferenceGuidedExtraction)
        self.ir, self.vis, self.shared = _Block(stage.ir), _Block(stage.vis), _Block(stage.shared)
        self.conv = _tiled(*_parameters(stage.shared_conv))
        self.spread = tuple(_float(t) for t in _depthwise(stage.spread))
        (ir, ir_bias), (vis, vis_bias) = (_linear(stage.guide[m]) for m in ("ir", "vis"))
        self.guide = _float(np.stack([ir, -vis])), _float(np.stack([ir_bias, vis_bias]))

    def run(
        self, ir: np.ndarray, vis: np.ndarray, shared: np.ndarray, h: int, w: int, rooms: list[_Room]
    ) -> None:
        """`shared` `(2, h * w, C)` is overwritten."""

        def lane(own: _Block, feature: np.ndarray, shared: np.ndarray, room: _Room) -> Iterator[Phase]:
            yield _rows(lambda *rows: blocks.conv(feature, h, w, *rows, *self.conv, shared), h)
            yield from self.shared.run(shared, h, w, room)
            yield from own.run(feature, h, w, room)

        sides = zip((self.ir, self.vis), (ir, vis), shared, (rooms[0], rooms[-1]), strict=True)
        lanes = [lane(*side) for side in sides]
        in_lanes(*(lanes if len(rooms) == 2 else [chain(*lanes)]))
        guide = _rows(
            lambda *rows: blocks.guide_both(*shared, h, w, *rows, *self.spread, *self.guide, ir, vis), h
        )
        in_lanes([guide])


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
        read = _rows(
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
        in_lanes([read])


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
    ) -> Iterator[Phase]:
        """`both` `(h * w * 2, C)` -> `out` `(h * w, C)`, to which the result `below` is added, if any.

        There `out` takes its place, since the last two scans need most memory.
        """
        c = both.shape[1]
        stacked = both.reshape(h * w, 2 * c)

        def finish(
            k: int, tokens: np.ndarray, x: tuple[int, int], y: np.ndarray, layout: tuple[int, ...]
        ) -> Phase:
            return _rows(
                lambda *rows: blocks.finish_into(
                    tokens, *x, y, *layout, w, *rows, *self.finish[k], self.bias, k == 0, out
                ),
                h,
                1,
            )

        y = yield from self.scans[0].run(stacked, h, w, (w, w, 0, 1), room)
        yield finish(0, stacked, (0, 1), y, (0, w, 1))
        if below:
            yield _add_doubled(below.pop(), h, w, out)
        below.append(out)
        y = yield from self.scans[1].run(both, h, 2 * w, (2 * w, 2 * w, 0, 1), room)
        for m in range(2):
            yield finish(1 + m, both, (m, 2), y, (m, 2 * w, 2))
        y = yield from self.scans[2].run(both, h, 2 * w, (2 * w, w, 1 - 2 * w, 2), room)
        for m in range(2):
            yield finish(3 + m, both, (m, 2), y, (m * w, 2 * w, 1))


class CpuInference:
    """`DiffMF.forward` of float32 pictures, with the weights that a network had when this was made."""

    def __init__(self, network: DiffMF) -> None:
        decoder: Decoder = network.decoder
        first, _, second = decoder.residual
        second_weight, second_bias = _parameters(second)
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
        self.decoder = (
            *self.stems[0].detail,
            *self.stems[1].detail,
            *_tiled(*_parameters(first)),
            _float(winograd_weights(second_weight)),
            *_shuffled(decoder.to_half, second_bias),
            *_shuffled(decoder.to_full),
            *_tiled(*_parameters(decoder.merge)),
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
        decode = _rows(
            lambda *strip: pictures.decode(
                features, ir, vis, rows, columns, MARGIN, *strip, *self.decoder, out
            ),
            len(rows) // 4,
        )
        in_lanes([decode])

    def _features(self, ir: np.ndarray, vis: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Stems, the state space part, and the decoder's first convolution: `(h * w, C)`."""
        h, w, width = len(rows) // 4, len(columns) // 4, self.width
        size, middle_size, low_size = ((h >> k) * (w >> k) * width for k in range(3))
        together = h * w <= _TOGETHER or width <= _NARROW
        narrow = self.extraction[0].ir.scan.needs(h, w)
        wide = [np.max(level.needs(h >> k, w >> k), 0) for k, level in enumerate(self.levels)]
        high = wide[0][0]  # numbers of values
        _, selected, task = np.max([narrow, *wide], 0)
        # One piece of memory. In the extraction: what is shared, both features, values. In the exchanges:
        # what was exchanged, values of two modalities, the result. What the lower levels need lies behind
        # that or, where they run before the highest, in the place of its result.
        places = np.cumsum([2 * middle_size, 2 * low_size, low_size, middle_size, wide[1][0]])
        exchange = 3 * size + high + places[-1] * together
        memory = _empty(max(4 * size + narrow[0] * (1 + together), exchange))
        shared, features = memory[: 4 * size].reshape(2, 2, h * w, width)
        at_work = min(torch.get_num_threads(), len(self.levels[0].scans[0].delta) * (1 + together))
        tasks = [_empty(task) for _ in range(at_work)]
        rooms = [
            _Room(memory[4 * size + i * narrow[0] :], _empty(selected), tasks) for i in range(1 + together)
        ]
        pairs = zip(self.stems, (ir, vis), features, strict=True)
        in_lanes(*([stem.run(picture, rows, columns, feature)] for stem, picture, feature in pairs))
        ir, vis = features
        for stage in self.extraction:
            stage.run(ir, vis, shared, h, w, rooms)
        both = shared.reshape(-1, width)
        self.channels.run(ir, vis, both, h, w)
        rooms[0].values, result, behind = np.split(memory[2 * size :], [high, high + size])
        *parts, lower_values, _ = np.split(behind if together else result, places)
        middle, low, low_result, middle_result = (part.reshape(-1, width) for part in parts)
        below: list[np.ndarray] = []

        def lower(room: _Room) -> Iterator[Phase]:
            yield _halve(both, h // 2, w // 2, middle)
            yield _halve(middle, h // 4, w // 4, low)
            yield from self.levels[2].run(low, below, h // 4, w // 4, room, low_result)
            # That of the middle stays while the highest makes its own.
            own = middle_result if together else _empty(middle_size).reshape(-1, width)
            yield from self.levels[1].run(middle, below, h // 2, w // 2, room, own)

        result = result.reshape(-1, width)
        if together:
            rooms[1].values = lower_values
            in_lanes(self.levels[0].run(both, [], h, w, rooms[0], result), lower(rooms[1]))
            in_lanes([_add_doubled(below.pop(), h, w, result)])
        else:
            in_lanes(chain(lower(rooms[0]), self.levels[0].run(both, below, h, w, rooms[0], result)))
        return result


def _halve(both: np.ndarray, h: int, w: int, out: np.ndarray) -> Phase:
    """Means of 2x2 tokens, for `h` rows and `w` columns of the result."""
    c = 2 * both.shape[1]
    return _rows(lambda *rows: blocks.halve(both.reshape(-1, c), 2 * w, *rows, out.reshape(-1, c)), h, 1)


def _add_doubled(x: np.ndarray, h: int, w: int, out: np.ndarray) -> Phase:
    """Adds to the `h` rows and `w` columns of `out`."""
    return _rows(lambda *rows: blocks.add_doubled(x, h // 2, w // 2, *rows, out), h, 1)
