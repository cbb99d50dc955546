"""`DiffMF` on a CUDA device: about a hundred launches of our Triton kernels, replayed as one CUDA graph.

Computes what `network.DiffMF` computes, in another order where that is the same: LayerNorm's affine parts,
the blocks' gains and the decoder's first layer are folded into the weights beside them; maps that go through
blocks of one shape at once go through one launch. Side by side run, in a graph, a stage's shared blocks and
the modalities' own ones, the channel exchange and what weighs it, levels of the spatial exchange.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import gcd
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from triton.runtime.errors import OutOfResources

from diffmf_cli.model.cuda import kernels
from diffmf_cli.model.network import MARGIN, MULTIPLE, ChannelExchange, Config, Conv3x3, DiffMF, VSSBlock
from diffmf_cli.scan.resident_scan import Memory
from diffmf_cli.scan.triton_scan import launch, scan_tiles

_MOST_PIXELS = 2**25  # of a picture: more go through the network strip by strip
_GRAPHS = 8  # of sizes that are kept
_GRAPH_SHARE = 0.25  # of the device's memory that they may hold
_RUN = 8  # pixels of a row that a depthwise convolution slides over
_CHANNELS = 16  # of a program of it
_TOGETHER = 2**16  # tokens of a map up to which a stage's maps go together; larger ones fill the device
_WIDEST = 64  # width whose tiles fit into registers


# Kernel -> pixels and warps of a program, and columns that its products make at a time: fastest on an H200.
TILES = {
    "detail": {"TOKENS": 128, "num_warps": 4},
    "convolve": {"TOKENS": 128, "num_warps": 4},
    "picture": {"TOKENS": 128, "num_warps": 4},
    "norm_and_project": {"TOKENS": 64, "num_warps": 4, "BN": 32},
    "depthwise": {"TOKENS": 256, "num_warps": 4},
    "select": {"TOKENS": 64, "num_warps": 4, "BN": 64},
    "finish": {"TOKENS": 64, "num_warps": 4, "BD": 16},
    "guide": {"TOKENS": 64, "num_warps": 4},
    "exchange_read": {"TOKENS": 64, "num_warps": 4},
    "halve": {"TOKENS": 64, "num_warps": 4},
    "merge": {"TOKENS": 64, "num_warps": 4},
}
FLOAT32_TILES = TILES | {
    "select": {"TOKENS": 64, "num_warps": 4, "BN": 32},
    "finish": {"TOKENS": 32, "num_warps": 4, "BD": 32},  # twice the bytes of 64 do not fit into shared memory
}


def supports(config: Config) -> bool:
    """Whether a network of this configuration is one that the kernels' tiles are made for."""
    return config.width <= _WIDEST and config.expand <= 2 and config.d_state <= 16


def _double(t: Tensor | None) -> Tensor:
    assert t is not None
    return t.detach().double()


def _power(n: int) -> int:
    """The power of two that holds `n`."""
    return 1 << (n - 1).bit_length()


def _tile(n: int) -> int:
    """The power of two that holds `n`, as matrix products need it."""
    return max(16, _power(n))


def _after_norm(norm: nn.Module, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """A linear layer's weight and bias with the affine part of the LayerNorm before it."""
    assert isinstance(norm, nn.LayerNorm)
    weight = _double(linear.weight)
    return weight * _double(norm.weight), _double(linear.bias) + weight @ _double(norm.bias)


def _taps(conv: Conv3x3) -> Tensor:
    """Weights of a 3x3 convolution as `(9, inputs, outputs)`; of a depthwise one as `(9, channels)`."""
    weight = _double(conv.weight).permute(2, 3, 1, 0).flatten(0, 1)
    return weight[:, 0] if conv.groups > 1 else weight


def _launch(kernel: Any, pixels: int, pictures: int, *arguments: Any, blocks: int = 1, **names: Any) -> None:
    """Launches a kernel over the pixels of all pictures, and over blocks of channels."""
    name = kernel.fn.__name__
    tile = (FLOAT32_TILES if arguments[0].dtype == torch.float32 else TILES)[name]
    grid = -(-pixels // tile["TOKENS"]), pictures, blocks
    launch(kernel, grid, *arguments, **names, **tile)


def _spans(tokens: int, most: int) -> tuple[int, int]:
    """Pixels that each program sums up where at most so many do it, and how many do."""
    span = -(-tokens // (most * 64)) * 64
    return span, -(-tokens // span)


class _Weights:
    """Makes weights of several sets into tensors for the kernels."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype

    def operand(self, sets: Sequence[Tensor]) -> Tensor:
        """Of matrix products."""
        return torch.stack(list(sets)).to(self._device, self._dtype).contiguous()

    def exact(self, sets: Sequence[Tensor]) -> Tensor:
        """All else."""
        return torch.stack([_double(t) for t in sets]).to(self._device, torch.float32).contiguous()


class _Convolution:
    """3x3 convolutions of one shape, one for each set of pictures."""

    def __init__(self, weights: _Weights, convs: Sequence[Conv3x3], shuffle: bool = False) -> None:
        taps, biases = [_taps(conv) for conv in convs], [_double(conv.bias) for conv in convs]
        if shuffle:  # the four pixels of a channel, from neighbours to quarters
            taps = [t.unflatten(2, (-1, 4)).transpose(2, 3).flatten(2) for t in taps]
            biases = [t.unflatten(0, (-1, 4)).t().flatten() for t in biases]
        self.weight, self.bias = weights.operand(taps), weights.exact(biases)
        self.stride, self.shuffle = convs[0].stride[0], shuffle

    def __call__(self, x: Tensor, out: Tensor, leaky: bool = False, residual: Tensor | None = None) -> Tensor:
        """`x` `(sets, B, h, w, inputs)` into `out` `(sets, B, h', w', outputs)`, which both may be parts."""
        sets, _, inputs, outputs = self.weight.shape
        batch, h, w = x.shape[1:4]
        block = min(64, _tile(outputs))
        half = self.weight.dtype != torch.float32  # twice the bytes leave no room for loading ahead
        x_unit, out_unit = (gcd(16, *t.stride()[:2]) for t in (x, out))
        _launch(
            kernels.convolve,
            (h // self.stride) * (w // self.stride),
            len(x) * batch,
            x,
            self.weight,
            self.bias,
            out if residual is None else residual,
            out,
            h,
            w,
            batch,
            x.stride(0) // x_unit,
            x.stride(1) // x_unit,
            out.stride(0) // out_unit,
            out.stride(1) // out_unit,
            INPUTS=inputs,
            OUTPUTS=outputs,
            X_PIXEL=x.stride(3),
            OUT_PIXEL=out.stride(3),
            X_UNIT=x_unit,
            OUT_UNIT=out_unit,
            STRIDE=self.stride,
            SETS=sets,
            LEAKY=leaky,
            RESIDUAL=residual is not None,
            SHUFFLE=self.shuffle,
            BK=_tile(inputs),
            BN=block,
            blocks=-(-outputs // block),
            AHEAD=half and outputs <= 16,
            num_stages=3 if half and outputs > 16 else 1,
        )
        return out


class _Depthwise:
    """Depthwise 3x3 convolutions of one shape, one for each set of pictures."""

    def __init__(self, weights: _Weights, convs: Sequence[Conv3x3], silu: bool) -> None:
        self.weight = weights.exact([_taps(conv) for conv in convs])
        self.bias = weights.exact([_double(conv.bias) for conv in convs])
        self.silu = silu

    def __call__(self, x: Tensor, batch: int, minus: Tensor | None = None) -> Tensor:
        """`(P, h, w, C)` of the first C channels of `x`, perhaps a part of a tensor, or of `x - minus`."""
        sets, _, c = self.weight.shape
        pictures, h, w, _ = x.shape
        out = x.new_empty(pictures, h, w, c)
        _launch(
            kernels.depthwise,
            h * -(-w // _RUN) * _RUN,
            pictures,
            x,
            self.weight,
            self.bias,
            out,
            h,
            w,
            batch,
            0 if minus is None else (minus.data_ptr() - x.data_ptr()) // x.element_size(),
            C=c,
            PIXEL=x.stride(2),
            SETS=sets,
            DIFFERENCE=minus is not None,
            SILU=self.silu,
            RUN=_RUN,
            BC=_CHANNELS,
            blocks=-(-c // _CHANNELS),
        )
        return out


class _Blocks:
    """`VSSBlock`s of one shape, one for each set of pictures."""

    def __init__(self, weights: _Weights, blocks: Sequence[VSSBlock], part: int, wide: bool = False) -> None:
        ssm = blocks[0].scan
        self.d, self.rank, self.states = ssm.inner, ssm.rank, ssm.d_state
        self.channels, self.part, self.wide = ssm.in_proj.in_features, part, wide
        self.ffn = blocks[0].ffn is not None
        self.memory = Memory(rounds=2)
        entry = [_after_norm(b.norm_scan, b.scan.in_proj) for b in blocks]
        inner = slice(0, self.d), slice(self.d, None)
        self.project, self.gate = (weights.operand([w[part].t() for w, _ in entry]) for part in inner)
        self.project_bias, self.gate_bias = (weights.exact([b[part] for _, b in entry]) for part in inner)
        convs = [b.scan.conv for b in blocks]
        self.conv = _Depthwise(weights, convs, silu=True)
        select, biases = [], []
        unused = -(self.d + 2 * self.states) % 16
        for block in blocks:
            # Step sizes at once, without what has the rank in between.
            rank, both = _double(block.scan.select.weight).split([self.rank, 2 * self.states])
            weight = torch.cat([_double(block.scan.delta.weight) @ rank, both])
            select.append(nn.functional.pad(weight, (0, 0, 0, unused)).t())
            bias = _double(block.scan.delta_bias)
            biases.append(nn.functional.pad(bias, (0, 2 * self.states + unused)))
        self.select, self.select_bias = weights.operand(select), weights.exact(biases)
        self.A = weights.exact([-torch.exp(_double(b.scan.A_log)) for b in blocks])
        self.D = weights.exact([_double(b.scan.D) * kernels.SCAN_UNIT.value for b in blocks])
        self.norm = weights.exact([b.scan.norm.weight for b in blocks])
        self.norm_bias = weights.exact([b.scan.norm.bias for b in blocks])
        gains = [_double(b.gain_scan) for b in blocks]
        outs = [b.scan.out_proj for b in blocks]
        self.out = weights.operand([_double(o.weight).t() * g for o, g in zip(outs, gains, strict=True)])
        self.out_bias = weights.exact([_double(o.bias) * g for o, g in zip(outs, gains, strict=True)])
        widen, narrow = [], []
        for block in blocks:
            if block.ffn is None:  # the kernel does not look at these
                continue
            norm, first, _, second = block.ffn
            assert isinstance(first, nn.Linear)
            assert isinstance(second, nn.Linear)
            widen.append(_after_norm(norm, first))
            gain = _double(block.gain_ffn)
            narrow.append((_double(second.weight).t() * gain, _double(second.bias) * gain))
        none = [(self.out_bias.double(),) * 2]
        self.widen = weights.operand([w.t() for w, _ in widen or none])
        self.widen_bias = weights.exact([b for _, b in widen or none])
        self.narrow = weights.operand([w for w, _ in narrow or none])
        self.narrow_bias = weights.exact([b for _, b in narrow or none])

    def __call__(self, x: Tensor, batch: int, out: Tensor) -> Tensor:
        """`out` `(P, h, w, channels)` of `x` `(planes, h', w', part)`; may be `x` where the shapes agree."""
        pictures, h, w, _ = out.shape
        d, states = self.d, self.states
        sets, sizes = len(self.A), (h, w, batch)
        source = {"C": self.channels, "PART": self.part, "SETS": sets, "WIDE": self.wide}
        source["BC"] = _tile(self.channels)

        projected = out.new_empty(pictures, h, w, d)
        _launch(
            kernels.norm_and_project,
            h * w,
            pictures,
            x,
            self.project,
            self.project_bias,
            projected,
            *sizes,
            **source,
            OUTPUTS=d,
        )
        values = self.conv(projected, batch)
        # Ten bits of a step size suffice where features have no more; bfloat16's seven would not.
        exact = torch.float16 if out.dtype == torch.float16 else torch.float32
        steps = torch.empty_like(projected, dtype=exact)
        B, C = (out.new_empty(pictures, h, w, states, dtype=torch.float32) for _ in range(2))
        _launch(
            kernels.select,
            h * w,
            pictures,
            values,
            self.select,
            self.select_bias,
            steps,
            B,
            C,
            *sizes,
            d=d,
            N=states,
            SELECTED=self.select.shape[2],
            SETS=sets,
            BD=_tile(d),
        )
        del projected
        y = torch.empty_like(values)
        scan_tiles(values, steps, self.A, B, C, self.D, None, y, batch, self.memory)
        _launch(
            kernels.finish,
            h * w,
            pictures,
            x,
            y,
            self.gate,
            self.gate_bias,
            self.norm,
            self.norm_bias,
            self.out,
            self.out_bias,
            self.widen,
            self.widen_bias,
            self.narrow,
            self.narrow_bias,
            out,
            *sizes,
            **source,
            d=d,
            FFN=self.ffn,
            BH=min(32, _tile(2 * self.channels)),
        )
        return out


class _Guide:
    """The guidance of a `DifferenceGuidedExtraction`."""

    def __init__(self, weights: _Weights, spread: Conv3x3, guide: Any) -> None:
        self.spread = _Depthwise(weights, [spread], silu=False)
        halves = [[_double(guide[m].weight).chunk(2), _double(guide[m].bias).chunk(2)] for m in ("ir", "vis")]
        self.gate, self.rest = (weights.operand([w[i].t() for w, _ in halves]) for i in range(2))
        self.gate_bias, self.rest_bias = (weights.exact([b[i] for _, b in halves]) for i in range(2))

    def difference(self, shared: Tensor, batch: int) -> Tensor:
        """What guides, of the shared features of both modalities: `(2 B, h, w, C)` -> `(B, h, w, C)`."""
        return self.spread(shared[:batch], batch, minus=shared[batch:])

    def __call__(self, x: Tensor, difference: Tensor, batch: int) -> None:
        """`x` `(2 B, h, w, C)`, in place."""
        pictures, h, w, c = x.shape
        _launch(
            kernels.guide,
            h * w,
            pictures,
            x,
            difference,
            self.gate,
            self.gate_bias,
            self.rest,
            self.rest_bias,
            h,
            w,
            batch,
            C=c,
            BC=_tile(c),
        )


class _ChannelExchange:
    """A `ChannelExchange`."""

    def __init__(self, weights: _Weights, exchange: ChannelExchange) -> None:
        modalities = ("ir", "vis")

        def of(part: nn.Module) -> list[Any]:
            assert isinstance(part, nn.ModuleDict | nn.ParameterDict)
            return [part[m] for m in modalities]

        entry = [_after_norm(*both) for both in zip(of(exchange.norm), of(exchange.in_proj), strict=True)]
        unused = -len(entry[0][1]) % 16  # whole sectors for each pixel
        self.project = weights.operand([nn.functional.pad(w, (0, 0, 0, unused)).t() for w, _ in entry])
        self.project_bias = weights.exact([nn.functional.pad(b, (0, unused)) for _, b in entry])
        self.conv = _Depthwise(weights, of(exchange.conv), silu=True)
        self.rate = weights.exact([torch.exp(_double(t)) for t in of(exchange.rate_log)])
        self.D = weights.exact([t.flatten() for t in of(exchange.D)])
        self.norm = weights.exact([n.weight for n in of(exchange.norm)])
        self.norm_bias = weights.exact([n.bias for n in of(exchange.norm)])
        self.norm_out = weights.exact([n.weight for n in of(exchange.norm_out)])
        self.norm_out_bias = weights.exact([n.bias for n in of(exchange.norm_out)])
        self.out = weights.operand([_double(p.weight).t() for p in of(exchange.out_proj)])
        self.out_bias = weights.exact([p.bias for p in of(exchange.out_proj)])
        widen, _, narrow = exchange.omega
        assert isinstance(widen, nn.Linear)
        assert isinstance(narrow, nn.Linear)
        self.widen, self.narrow = (weights.exact([layer.weight.t()]) for layer in (widen, narrow))
        self.widen_bias, self.narrow_bias = (weights.exact([layer.bias]) for layer in (widen, narrow))

    def weights(self, x: Tensor, batch: int) -> Tensor:
        """Twice omega: `(2 B, h, w, C)` -> `(2 B, C)`."""
        pictures, h, w, c = x.shape
        most = 64
        span, parts = _spans(h * w, most)
        pool = x.new_empty(pictures, parts, 2 * c, dtype=torch.float32)
        launch(
            kernels.exchange_pool,
            (parts, pictures),
            x,
            self.norm,
            self.norm_bias,
            pool,
            h * w,
            batch,
            span,
            C=c,
            BC=_tile(c),
            TOKENS=64,
            num_warps=4,
        )
        omega = x.new_empty(pictures, c, dtype=torch.float32)
        launch(
            kernels.exchange_weights,
            (batch,),
            pool,
            self.widen,
            self.widen_bias,
            self.narrow,
            self.narrow_bias,
            omega,
            h * w,
            batch,
            parts,
            C=c,
            BC=_tile(c),
            PARTS=most,
            num_warps=8,
        )
        return omega

    def sums(self, x: Tensor, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """What `read` takes: projected and convolved features of `x` `(2 B, h, w, C)`, and their sums."""
        pictures, h, w, c = x.shape
        tokens, width = h * w, self.project.shape[2]
        projected = x.new_empty(pictures, h, w, width)
        _launch(
            kernels.norm_and_project,
            tokens,
            pictures,
            x,
            self.project,
            self.project_bias,
            projected,
            h,
            w,
            batch,
            C=c,
            PART=c,
            OUTPUTS=width,
            SETS=2,
            WIDE=False,
            BC=_tile(c),
        )
        mixed = self.conv(projected[..., c:], batch)
        span, parts = _spans(tokens, 512)
        size = c * ChannelExchange.STATE + c
        sums = x.new_empty(pictures, parts, size, dtype=torch.float32)
        launch(
            kernels.exchange_sums,
            (parts, pictures),
            projected,
            mixed,
            self.rate,
            sums,
            tokens,
            batch,
            span,
            **self._names(c),
            TOKENS=32,
            num_warps=4,
        )
        totals = x.new_empty(pictures, size, dtype=torch.float32)
        launch(
            kernels.exchange_totals,
            (-(-size // 16), pictures),
            sums,
            totals,
            parts,
            SIZE=size,
            BLOCK=16,
            num_warps=4,
        )
        return projected, mixed, totals

    def read(
        self, x: Tensor, batch: int, omega: Tensor, projected: Tensor, mixed: Tensor, totals: Tensor
    ) -> None:
        """Adds to `x` `(2 B, h, w, C)`, in place, what comes from the other modality."""
        pictures, h, w, c = x.shape
        _launch(
            kernels.exchange_read,
            h * w,
            pictures,
            x,
            projected,
            mixed,
            totals,
            omega,
            self.D,
            self.norm_out,
            self.norm_out_bias,
            self.out,
            self.out_bias,
            h * w,
            batch,
            **self._names(c),
        )

    def _names(self, c: int) -> dict[str, int]:
        state, head = ChannelExchange.STATE, ChannelExchange.HEAD
        return {"C": c, "STATE": state, "HEAD": head, "PROJECTED": self.project.shape[2], "BC": _tile(c)}


def _halved(x: Tensor) -> Tensor:
    """`(P, h, w, C)` -> `(P, h / 2, w / 2, C)`."""
    pictures, h, w, c = x.shape
    out = x.new_empty(pictures, h // 2, w // 2, c)
    _launch(kernels.halve, (h // 2) * (w // 2), pictures, x, out, h // 2, w // 2, C=c, BC=_tile(c))
    return out


@dataclass
class _Stage:
    """A stage of the extraction; its blocks are there twice, all in one and the shared ones apart."""

    convolution: _Convolution
    blocks: _Blocks
    own: _Blocks
    shared: _Blocks
    guide: _Guide

    def run(self, features: Tensor, batch: int) -> None:
        """`(4 B, h, w, C)`, in place: what both modalities have, and room for what they share."""
        own, shared = features.chunk(2)
        self.convolution(own[None], shared[None])
        self.blocks(features, batch, features)
        self.guide(own, self.guide.difference(shared, batch), batch)

    def difference(self, own: Tensor, shared: Tensor, batch: int) -> Tensor:
        """What guides, `(B, h, w, C)`; fills `shared` with the shared features of `own`: `(2 B, h, w, C)`."""
        self.convolution(own[None], shared[None])
        self.shared(shared, batch, shared)
        return self.guide.difference(shared, batch)


@dataclass
class _Level:
    """A level of the spatial exchange, with the part of the decoder's first layer that reads it."""

    stack: _Blocks
    wide: _Blocks
    weight: Tensor
    bias: Tensor

    def merge(self, stacked: Tensor, wide: Tensor, coarser: Tensor | None) -> Tensor:
        """The level's maps and the coarser level's result: `(B, h, w, C)`."""
        batch, h, w, both = stacked.shape
        c = both // 2
        out = stacked.new_empty(batch, h, w, c)
        _launch(
            kernels.merge,
            h * w,
            batch,
            stacked,
            wide,
            self.weight,
            self.bias,
            out if coarser is None else coarser,
            out,
            h,
            w,
            batch,
            C=c,
            COARSE=coarser is not None,
            BC=_tile(c),
        )
        return out


@dataclass
class _Graph:
    """A captured pass for one size, and the memory that it works in."""

    graph: Any
    pictures: Tensor
    fused: Tensor
    bytes: int
    memory: list[Any]  # of its scans


class CudaInference:
    """Runs a `DiffMF` in evaluation on its CUDA device.

    The first pair of a size runs launch by launch; the second one is captured as a CUDA graph, which later
    ones replay. Graphs of the sizes used last are kept. Calls from several threads take turns. A device whose
    shared memory is too small for the kernels' tiles runs the network itself.

    Attributes:
        dtype: of features and of the operands of convolutions and matrix products. Sums, LayerNorm, step
            sizes and the scan's state are float32.
    """

    def __init__(self, network: DiffMF, dtype: torch.dtype) -> None:
        self._network, self._unfit = network, False
        parts: Any = network  # whose own parts are modules of known kinds
        c = self._width = network.config.width
        device = next(network.parameters()).device
        weights = _Weights(device, dtype)
        self.dtype = dtype
        stems = network.stem_ir, network.stem_vis
        self._full = weights.exact([_taps(stem.full)[:, 0] for stem in stems])
        self._full_bias = weights.exact([_double(stem.full.bias) for stem in stems])
        self._stem_half = _Convolution(weights, [stem.to_half for stem in stems])
        self._stem_quarter = _Convolution(weights, [stem.to_quarter for stem in stems])
        self._stages = [
            _Stage(
                _Convolution(weights, [stage.shared_conv]),
                _Blocks(weights, [stage.ir, stage.vis, stage.shared], c),
                _Blocks(weights, [stage.ir, stage.vis], c),
                _Blocks(weights, [stage.shared], c),
                _Guide(weights, stage.spread, stage.guide),
            )
            for stage in parts.extraction
        ]
        self._channel_exchange = _ChannelExchange(weights, network.channel_exchange)
        decoder = parts.decoder
        reduce = _double(decoder.reduce.weight)[:, :, 0, 0].chunk(3, 1)
        self._levels = []
        for part, name in zip(reduce, ("high", "middle", "low"), strict=True):
            exchange = parts.spatial_exchange[name]
            linear = exchange.linear
            bias = part @ _double(linear.bias)
            if name == "high":
                bias = bias + _double(decoder.reduce.bias)
            self._levels.append(
                _Level(
                    _Blocks(weights, [exchange.stack], c),
                    _Blocks(weights, [exchange.column, exchange.row], c, wide=True),
                    weights.operand([(part @ _double(linear.weight)).t()]),
                    weights.exact([bias]),
                )
            )
        first, _, second = decoder.residual
        self._residual = [_Convolution(weights, [conv]) for conv in (first, second)]
        self._to_half = _Convolution(weights, [decoder.to_half], shuffle=True)
        self._to_full = _Convolution(weights, [decoder.to_full], shuffle=True)
        self._merge = _Convolution(weights, [decoder.merge])
        self._out = weights.exact([_taps(decoder.out)[:, :, 0]])
        self._out_bias = weights.exact([_double(decoder.out.bias)])

        self._graphs: OrderedDict[tuple[int, ...], _Graph | None] = OrderedDict()
        self._streams = [torch.cuda.Stream(device) for _ in range(5)] if device.type == "cuda" else []
        # Launches that all later ones wait for go first; numbers out of a device's range are its highest.
        self._first = torch.cuda.Stream(device, priority=-5) if device.type == "cuda" else None
        self._capturing = False
        self._stream: Any = None  # of the call before
        self._lock = Lock()

    def __call__(self, ir: Tensor, vis: Tensor) -> Tensor:
        """`network.DiffMF.forward` of two `(B, 1, H, W)`: `(B, 1, H, W)` in [0, 1], float32."""
        size = (ir.shape[0], *ir.shape[2:])
        with self._lock, torch.inference_mode():
            if self._unfit:
                return self._network(ir, vis)
            self._follow(ir.device)
            graph = self._graph(size, ir)
            if graph is None:
                try:
                    return self.launch_all(torch.stack([ir[:, 0], vis[:, 0]]))[:, None]
                except OutOfResources:
                    self._unfit = True
                    return self._network(ir, vis)
                except torch.cuda.OutOfMemoryError:
                    self._graphs.clear()  # what comes instead needs their memory
                    raise
            torch.stack([ir[:, 0], vis[:, 0]], out=graph.pictures)
            graph.graph.replay()
            return graph.fused[:, None].clone()

    def fits(self, pixels: int) -> bool:
        """Whether a picture of so many pixels may come."""
        return pixels <= _MOST_PIXELS

    def _follow(self, device: torch.device) -> None:
        """Lets a call wait for the one before on another stream: their scans share memory."""
        stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        if stream is not None and self._stream not in (None, stream):
            stream.wait_stream(self._stream)
        self._stream = stream

    def _graph(self, size: tuple[int, ...], like: Tensor) -> _Graph | None:
        """The graph of a size; None where one does not pay yet, or not at all."""
        if size not in self._graphs:
            self._graphs[size] = None
        elif self._graphs[size] is None:
            self._graphs[size] = self._captured(size, like)
        self._graphs.move_to_end(size)
        room = _GRAPH_SHARE * torch.cuda.get_device_properties(like.device).total_memory
        while len(self._graphs) > 1 and (
            len(self._graphs) > _GRAPHS or sum(g.bytes for g in self._graphs.values() if g) > room
        ):
            self._graphs.popitem(last=False)
        return self._graphs[size]

    def _captured(self, size: tuple[int, ...], like: Tensor) -> _Graph | None:
        """A graph, or None where memory does not suffice for one."""
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        try:
            pictures = like.new_zeros(2, *size)
            graph = torch.cuda.CUDAGraph()
            self._capturing = True
            # Other threads may go on with CUDA meanwhile.
            with torch.cuda.graph(graph, stream=self._first, capture_error_mode="thread_local"):
                fused = self.launch_all(pictures)
        except RuntimeError as error:
            # Where memory ran out beside another stream, leaving the capture fails in its own way.
            causes = error, error.__context__
            if not any(isinstance(cause, torch.cuda.OutOfMemoryError) for cause in causes):
                raise
            return None  # and another try with the next pair of this size
        finally:
            self._capturing = False
        memory = [list(blocks.memory.values()) for blocks in self._blocks()]
        return _Graph(graph, pictures, fused, torch.cuda.memory_reserved() - before, memory)

    def _blocks(self) -> Iterator[_Blocks]:
        for stage in self._stages:
            yield from (stage.blocks, stage.own, stage.shared)
        for level in self._levels:
            yield from (level.stack, level.wide)

    def _fork(self, number: int, work: Callable[[], Any]) -> Any:
        """In a graph `work` runs beside what follows, until `_join`."""
        if not self._capturing:
            return work()
        stream = self._streams[number]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            return work()

    def _join(self, number: int) -> None:
        if self._capturing:
            torch.cuda.current_stream().wait_stream(self._streams[number])

    def launch_all(self, pictures: Tensor) -> Tensor:
        """Two `(B, H, W)` as `(2, B, H, W)` -> `(B, H, W)` in [0, 1], launch by launch."""
        _, batch, h, w = pictures.shape
        height, width = (-(-(n + 2 * MARGIN) // MULTIPLE) * MULTIPLE for n in (h, w))
        c, quarter = self._width, self._width // 4

        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, device=pictures.device, dtype=self.dtype)

        # What the decoder makes and both stems' details, side by side for its last but one convolution.
        full = empty(batch, height, width, 3 * quarter)
        parts = full.unflatten(3, (3, quarter)).permute(3, 0, 1, 2, 4)
        _launch(
            kernels.detail,
            height * width,
            2 * batch,
            pictures,
            self._full,
            self._full_bias,
            parts[1],
            h,
            w,
            height,
            width,
            batch,
            C=quarter,
            PIXEL=3 * quarter,
            MARGIN=MARGIN,
            BC=_power(quarter),
        )
        half = self._stem_half(parts[1:], empty(2, batch, height // 2, width // 2, c // 2), leaky=True)
        features = empty(4 * batch, height // 4, width // 4, c)
        own = features[: 2 * batch].unflatten(0, (2, batch))
        self._stem_quarter(half, own)
        del half, own
        features = self._extract(features, batch)
        self._exchange_channels(features, batch)
        x = self._exchange_space(features, batch)[None]
        del features
        y = self._residual[0](x, torch.empty_like(x), leaky=True)
        x = self._residual[1](y, torch.empty_like(x), residual=x)
        x = self._to_half(x, empty(1, batch, height // 2, width // 2, c // 2), leaky=True)
        self._to_full(x, parts[:1], leaky=True)
        x = self._merge(full[None], empty(1, batch, height, width, quarter), leaky=True)
        out = torch.empty(batch, h, w, device=pictures.device)
        _launch(
            kernels.picture,
            h * w,
            batch,
            x,
            self._out,
            self._out_bias,
            out,
            h,
            w,
            height,
            width,
            C=quarter,
            MARGIN=MARGIN,
            BC=_power(quarter),
        )
        return out

    def _extract(self, features: Tensor, batch: int) -> Tensor:
        """All stages of `(4 B, h, w, C)`, infrared pictures, visible ones, and room: `(2 B, h, w, C)`."""
        own, shared = features.chunk(2)
        _, h, w, _ = own.shape
        for stage in self._stages:
            if h * w <= _TOGETHER:
                stage.run(features, batch)
                continue
            difference = self._fork(0, partial(stage.difference, own, shared, batch))
            extracted = stage.own(own, batch, torch.empty_like(own))  # the shared part reads `own` meanwhile
            self._join(0)
            own = extracted
            stage.guide(own, difference, batch)
        return own

    def _exchange_channels(self, x: Tensor, batch: int) -> None:
        """`(2 B, h, w, C)`, in place."""
        exchange = self._channel_exchange
        omega = self._fork(0, lambda: exchange.weights(x, batch))
        sums = exchange.sums(x, batch)
        self._join(0)
        exchange.read(x, batch, omega, *sums)

    def _exchange_space(self, x: Tensor, batch: int) -> Tensor:
        """All levels through the decoder's first layer: `(2 B, h, w, C)` -> `(B, h, w, C)`."""
        high, middle, low = self._levels

        def blocks(level: _Level, x: Tensor, stream: int) -> tuple[Tensor, Tensor]:
            _, h, w, c = x.shape
            stacked = self._fork(stream, lambda: level.stack(x, batch, x.new_empty(batch, h, w, 2 * c)))
            wide = level.wide(x, batch, x.new_empty(2 * batch, h, 2 * w, c))
            self._join(stream)
            return stacked, wide

        def coarse() -> Tensor:
            halved = _halved(x)
            lowest = self._fork(1, lambda: low.merge(*blocks(low, _halved(halved), 2), None))
            maps = blocks(middle, halved, 3)
            self._join(1)
            return middle.merge(*maps, lowest)

        coarser = self._fork(0, coarse)
        maps = blocks(high, x, 4)
        self._join(0)
        return high.merge(*maps, coarser)
