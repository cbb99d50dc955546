"""The network as an ONNX graph, written node by node in the form that runtimes are fast with.

Computes what `network.DiffMF` computes. A map is tokens `(h * w, C)`, for linear layers and norms without a
transpose; convolutions see it as `(1, C, h, w)`. Gains and layers that follow each other without anything
between them are folded into one, as in `diffmf_cli.model.cpu.inference`.

Only operations of ONNX itself, so that it runs everywhere. The selective scan is a loop over whole lines
(`Scan`): first for what each line ends with, from zero; then down the lines, for what really enters each of
them; then along the lines again, from that. Nothing is divided, so nothing overflows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from diffmf_cli.model.network import (
    MARGIN,
    MULTIPLE,
    SS2D,
    ChannelExchange,
    Decoder,
    DifferenceGuidedExtraction,
    DiffMF,
    SpatialExchange,
    Stem,
    VSSBlock,
)

_OPSET, _IR_VERSION = 20, 9
_VECTOR = 16  # channels that runtimes compute at once
_SLOPE = 0.1  # of every LeakyReLU
# log(1 + u) = s p(s * s) with s = u / (u + 2) and u in [0, 1], within a share of 4e-9: least squares.
_LOG1P = (0.28161454, 0.27964345, 0.4002465, 0.66666323, 2.0)


def build(network: DiffMF, metadata: dict[str, str]) -> bytes:
    """An ONNX file with inputs `ir` and `vis` and output `fused`, `(1, 1, height, width)` each."""
    g = _Graph()
    _network(g, network)
    picture: list[str | int | None] = [1, 1, "height", "width"]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, picture) for n in ("ir", "vis", "fused")]
    graph = helper.make_graph(g.nodes, "DIFF-MF", ends[:2], ends[2:], g.constants)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="diffmf",
    )
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


class _Graph:
    """Nodes and constants; a value is its name."""

    def __init__(self, prefix: str = "") -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self._prefix = prefix
        self._known: dict[Any, str] = {}

    def __call__(self, op: str, *inputs: "str | float | np.ndarray", **attributes: Any) -> str:
        """Adds a node; numbers and arrays are constants. Its output."""
        return self.several(1, op, *inputs, **attributes)[0]

    def several(
        self, count: int, op: str, *inputs: "str | float | np.ndarray", **attributes: Any
    ) -> list[str]:
        """Adds a node with so many outputs."""
        names = [x if isinstance(x, str) else self._constant(np.asarray(x)) for x in inputs]
        outputs = [f"{self._prefix}{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, names, outputs, **attributes))
        return outputs

    def _constant(self, array: np.ndarray) -> str:
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._known:
            self._known[key] = f"{self._prefix}c{len(self._known)}"
            self.constants.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]


def _whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


@dataclass(frozen=True)
class _Map:
    """Tokens `(h * w, c)`, whose sides are values of shape `(1,)`."""

    tokens: str
    h: str
    w: str
    c: int


def _shaped(g: _Graph, tokens: str, *shape: "str | int") -> str:
    """Reshapes; of the shape, numbers are fixed and names are sides."""
    parts = [side if isinstance(side, str) else _whole(side) for side in shape]
    return g("Reshape", tokens, g("Concat", *parts, axis=0))


def _flat(g: _Graph, x: str, c: int) -> str:
    return g("Reshape", x, _whole(-1, c))


def _double(t: Tensor | None) -> np.ndarray:
    assert t is not None
    result: np.ndarray = t.detach().to("cpu").double().numpy()
    return result


def _linear(linear: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Weight `(inputs, outputs)` and bias."""
    assert isinstance(linear, nn.Linear)
    return _double(linear.weight).T, _double(linear.bias)


def _normed(g: _Graph, x: str, norm: nn.Module) -> str:
    assert isinstance(norm, nn.LayerNorm)
    weight, bias = _double(norm.weight), _double(norm.bias)
    return g("LayerNormalization", x, weight, bias, axis=-1, epsilon=norm.eps)


def _silu(g: _Graph, x: str) -> str:
    return g("Mul", x, g("Sigmoid", x))


def _softplus(g: _Graph, x: str) -> str:
    """Keeps the digits of small results; of operations that are vectorised in runtimes, which Log is not."""
    small = g("Exp", g("Neg", g("Abs", x)))
    s = g("Div", small, g("Add", small, 2.0))
    square = g("Mul", s, s)
    p = g("Add", g("Mul", square, _LOG1P[0]), _LOG1P[1])
    for c in _LOG1P[2:]:
        p = g("Add", g("Mul", p, square), c)
    return g("Add", g("Relu", x), g("Mul", p, s))


# Convolutions of maps of pixels, `(1, h, w, C)`.


def _convolve(
    g: _Graph, x: str, weight: np.ndarray, bias: np.ndarray, stride: int = 1, leaky: bool = False
) -> str:
    """A 3x3 convolution that repeats the border, and LeakyReLU: `(1, h, w, C)` -> `(1, h', w', C')`.

    Runtimes compute with vectors of 16 channels. Where there are fewer, some pixels of a row lie side by side
    as channels of one, of the input as of the output, and the kernel is as wide as these need it.
    """
    outputs, inputs = weight.shape[:2]
    many = _VECTOR // math.gcd(_VECTOR, outputs)
    group = min(_VECTOR // math.gcd(_VECTOR, inputs), many * stride)
    right = (many - 1) * stride + 1  # of the first of `many` pixels, from the middle of its window
    width = 1 + right // group + 1  # in groups, of which one is to the left
    spread = np.zeros((many, outputs, inputs, 3, width * group))
    for i in range(many):
        spread[i, ..., group - 1 + i * stride : group + 2 + i * stride] = weight
    kernel = spread.reshape(many * outputs, inputs, 3, width, group).transpose(0, 4, 1, 2, 3)
    kernel = kernel.reshape(many * outputs, group * inputs, 3, width)
    beyond = max(0, width - 1 - many * stride // group) * group
    padded = g("Pad", x, _whole(0, 1, group, 0, 0, 1, beyond, 0), mode="edge")
    padded = g("Reshape", padded, _whole(1, 0, -1, group * inputs))
    padded = g("Transpose", padded, perm=[0, 3, 1, 2])
    strides = [stride, many * stride // group]
    y = g("Conv", padded, kernel, np.tile(bias, many), strides=strides, kernel_shape=[3, width])
    if leaky:
        y = g("LeakyRelu", y, alpha=_SLOPE)
    return g("Reshape", g("Transpose", y, perm=[0, 2, 3, 1]), _whole(1, 0, -1, outputs))


def _depthwise(g: _Graph, x: _Map, weight: np.ndarray, bias: np.ndarray) -> str:
    """Tokens of a 3x3 convolution of each channel."""
    padded = g("Pad", _shaped(g, x.tokens, 1, x.h, x.w, x.c), _whole(0, 1, 1, 0, 0, 1, 1, 0), mode="edge")
    padded = g("Transpose", padded, perm=[0, 3, 1, 2])
    y = g("Conv", padded, weight, bias, group=x.c, kernel_shape=[3, 3])
    return _flat(g, g("Transpose", y, perm=[0, 2, 3, 1]), x.c)


def _conv(conv: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    assert isinstance(conv, nn.Conv2d)
    return _double(conv.weight), _double(conv.bias)


def _side_by_side(first: nn.Module, second: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Two convolutions as one of the channels of both."""
    (one, one_bias), (other, other_bias) = _conv(first), _conv(second)
    nothing = np.zeros_like(one)
    weight = np.vstack([np.hstack([one, nothing]), np.hstack([nothing, other])])
    return weight, np.concatenate([one_bias, other_bias])


# The selective scan.


def _scan(
    g: _Graph,
    step: Callable[[_Graph, list[str], list[str]], list[str]],
    states: list[str],
    inputs: list[str],
    outputs: int,
) -> list[str]:
    """An ONNX `Scan` there and back at once: the second half of states, inputs and outputs goes back."""
    body = _Graph(f"{g.nodes[-1].output[0]}_")
    names = [f"{body._prefix}s{i}" for i in range(len(states) + len(inputs))]
    results = step(body, names[: len(states)], names[len(states) :])
    given, made = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in side]
        for side in (names, results)
    )
    return g.several(
        len(states) + outputs,
        "Scan",
        *states,
        *inputs,
        body=helper.make_graph(body.nodes, "step", given, made, body.constants),
        num_scan_inputs=len(inputs),
        scan_input_directions=[2 * i // len(inputs) for i in range(len(inputs))],
        **({"scan_output_directions": [2 * i // outputs for i in range(outputs)]} if outputs else {}),
    )[-(outputs or len(states)) :]


def _step(g: _Graph, states: list[str], inputs: list[str]) -> list[str]:
    """States after a token, and what was left of the ones before."""
    left = [g("Mul", a, state) for a, state in zip(inputs[::2], states, strict=True)]
    return [g("Add", t, b) for t, b in zip(left, inputs[1::2], strict=True)] + left


def _last_states(g: _Graph, states: list[str], inputs: list[str]) -> list[str]:
    return _step(g, states, inputs)[: len(states)]


def _entered(g: _Graph, states: list[str], inputs: list[str]) -> list[str]:
    # A value that is both handed on and an output is copied in any case.
    return _last_states(g, states, inputs) + [g("Identity", state) for state in states]


def _both_ways(g: _Graph, a: str, b: str, decay: str, starts: list[str]) -> str:
    """What is left of the state before each token, summed over both directions: `(L, R, m)`.

    Args:
        g: gets the nodes.
        a: `(L, R, m)`: tokens of a line, lines.
        b: likewise.
        decay: `(R, m)`, of whole lines.
        starts: states before the first and after the last token, `(m,)` each.
    """
    nothing = g("Mul", g("Gather", b, np.array(0), axis=0), 0.0)
    end, back_end = _scan(g, _last_states, [nothing, nothing], [a, b, a, b], 0)
    entered = _scan(g, _entered, starts, [decay, end, decay, back_end], 2)
    left, back_left = _scan(g, _step, entered, [a, b, a, b], 2)
    return g("Add", left, back_left)


def _start(g: _Graph, x: str, dt: str, B: str, A: np.ndarray, end: int) -> str:
    """Of the first or the last token, `(m,)`: see `diffmf_cli.scan.recurrence.start_states`."""
    x, dt, B = (g("Gather", t, _whole(end), axis=0) for t in (x, dt, B))
    decay = g("Max", g("Mul", dt, -A), 1e-12)
    half = g("Tanh", g("Mul", decay, 0.5))  # 1 - exp(-decay) = 2 half / (1 + half)
    ratio = g("Div", g("Mul", decay, g("Add", half, 1.0)), g("Mul", half, 2.0))
    return g("Squeeze", g("Mul", g("Mul", g("Mul", x, B), -1 / A), ratio), _whole(0))


def _selective_scan(g: _Graph, x: _Map, ss2d: SS2D) -> str:
    """`selective_scan_2d` of values, with what they select: tokens."""
    m, n, rank = x.c, ss2d.d_state, ss2d.rank
    selected = g("MatMul", x.tokens, _double(ss2d.select.weight).T)
    delta, *columns = g.several(1 + 2 * n, "Split", selected, _whole(rank, *[1] * 2 * n), axis=1)
    dt = _softplus(g, g("Gemm", delta, _double(ss2d.delta.weight).T, _double(ss2d.delta_bias)))
    lines = x.h, x.w, m
    total = g("Mul", x.tokens, _double(ss2d.D))
    for i in range(n):
        A = -np.exp(_double(ss2d.A_log)[:, i])
        B, C = columns[i], columns[n + i]
        rate, b = g("Mul", dt, A), g("Mul", dt, g("Mul", x.tokens, B))
        starts = [_start(g, x.tokens, dt, B, A, end) for end in (0, -1)]
        rate, b3 = (_shaped(g, t, *lines) for t in (rate, b))
        a = g("Exp", rate)
        decays = [g("Exp", g("ReduceSum", rate, _whole(axis), keepdims=0)) for axis in range(2)]
        down = _both_ways(g, a, b3, decays[0], starts)
        turned = [g("Transpose", t, perm=[1, 0, 2]) for t in (a, b3)]
        along = g("Transpose", _both_ways(g, turned[0], turned[1], decays[1], starts), perm=[1, 0, 2])
        states = g("Add", g("Add", down, along), g("Mul", b3, 4.0))
        total = g("Add", total, g("Mul", _flat(g, states, m), C))
    return total


# Blocks, as `network` has them.


def _scanned(g: _Graph, x: _Map, block: VSSBlock) -> tuple[str, np.ndarray, np.ndarray]:
    """A `VSSBlock` up to its last projection, and that with its gain."""
    ss2d, inner = block.scan, block.scan.inner
    weight, bias = _linear(ss2d.in_proj)
    normed = _normed(g, x.tokens, block.norm_scan)
    values = replace(x, tokens=g("Gemm", normed, weight[:, :inner], bias[:inner]), c=inner)
    values = replace(values, tokens=_silu(g, _depthwise(g, values, *_conv(ss2d.conv))))
    y = _normed(g, _selective_scan(g, values, ss2d), ss2d.norm)
    y = g("Mul", y, _silu(g, g("Gemm", normed, weight[:, inner:], bias[inner:])))
    weight, bias = _linear(ss2d.out_proj)
    gain = _double(block.gain_scan)
    return y, weight * gain, bias * gain


def _block(g: _Graph, x: _Map, block: VSSBlock) -> _Map:
    tokens = g("Add", x.tokens, g("Gemm", *_scanned(g, x, block)))
    assert block.ffn is not None
    norm, widen, _, narrow = block.ffn
    hidden = g("Gelu", g("Gemm", _normed(g, tokens, norm), *_linear(widen)))
    gain = _double(block.gain_ffn)
    weight, bias = _linear(narrow)
    return replace(x, tokens=g("Add", tokens, g("Gemm", hidden, weight * gain, bias * gain)))


def _extraction(g: _Graph, ir: _Map, vis: _Map, stage: DifferenceGuidedExtraction) -> list[_Map]:
    c = ir.c
    shared = []
    for x in (ir, vis):
        pixels = _shaped(g, x.tokens, 1, x.h, x.w, c)
        convolved = _flat(g, _convolve(g, pixels, *_conv(stage.shared_conv)), c)
        shared.append(_block(g, replace(x, tokens=convolved), stage.shared))
    difference = replace(ir, tokens=g("Sub", shared[0].tokens, shared[1].tokens))
    spread = _depthwise(g, difference, *_conv(stage.spread))
    guided = []
    for x, block, sign in ((ir, stage.ir, 1), (vis, stage.vis, -1)):
        own = _block(g, x, block)
        weight, bias = _linear(stage.guide["ir" if sign > 0 else "vis"])
        gate, rest = (g("Gemm", spread, sign * weight[:, k : k + c], bias[k : k + c]) for k in (0, c))
        # S (1 + gate) + gate R
        added = g("Mul", g("Sigmoid", gate), g("Add", own.tokens, rest))
        guided.append(replace(own, tokens=g("Add", own.tokens, added)))
    return guided


def _channel_exchange(g: _Graph, ir: _Map, vis: _Map, exchange: ChannelExchange) -> list[_Map]:
    c, heads = exchange.sizes[0], exchange.sizes[-1]
    starts = np.cumsum([0, *exchange.sizes])
    features, names = {"ir": ir, "vis": vis}, ("ir", "vis")
    normed = {m: _normed(g, x.tokens, exchange.norm[m]) for m, x in features.items()}
    gates, delta = {}, {}
    values: dict[str, str] = {}
    writes: dict[str, str] = {}
    reads: dict[str, str] = {}
    for m in names:
        weight, bias = _linear(exchange.in_proj[m])
        kernel, kernel_bias = _conv(exchange.conv[m])
        z, *mixed, step = (slice(*starts[i : i + 2]) for i in range(5))
        for part, found in zip(mixed, (values, writes, reads), strict=True):
            projected = g("Gemm", normed[m], weight[:, part], bias[part])
            convolved = slice(part.start - c, part.stop - c)
            x = replace(ir, tokens=projected, c=part.stop - part.start)
            found[m] = _silu(g, _depthwise(g, x, kernel[convolved], kernel_bias[convolved]))
        gates[m] = _silu(g, g("Gemm", normed[m], weight[:, z], bias[z]))
        delta[m] = _softplus(g, g("Gemm", normed[m], weight[:, step], bias[step]))
    pooled = [g(op, normed[m], _whole(0)) for op in ("ReduceMean", "ReduceMax") for m in names]
    first, second = exchange.omega[0], exchange.omega[2]
    hidden = g("Gelu", g("Gemm", g("Concat", *pooled, axis=1), *_linear(first)))
    omega = g("Mul", g("Sigmoid", g("Gemm", hidden, *_linear(second))), 2.0)
    omegas = dict(zip(names, g.several(2, "Split", omega, axis=1, num_outputs=2), strict=True))
    results = []
    for m, other in (names, names[::-1]):
        # The rate of a head weighs all tokens alike, so the mean is without it.
        spread = np.repeat(np.eye(heads), exchange.HEAD, 1)
        weighted = g("Mul", values[m], g("MatMul", delta[m], spread))
        total = g("MatMul", g("ReduceSum", delta[m], _whole(0)), spread)
        kv = g("Div", g("Gemm", writes[other], weighted, transA=1), total)
        y = g("Mul", values[m], np.repeat(_double(exchange.D[m]), exchange.HEAD))
        y = g("Add", y, g("MatMul", reads[other], kv))
        y = g("Mul", _normed(g, y, exchange.norm_out[m]), gates[m])
        y = g("Mul", g("Gemm", y, *_linear(exchange.out_proj[m])), omegas[m])
        results.append(replace(ir, tokens=g("Add", features[m].tokens, y)))
    return results


def _spatial_exchange(
    g: _Graph, ir: _Map, vis: _Map, exchange: SpatialExchange, share: np.ndarray, bias: np.ndarray
) -> _Map:
    """A level and its `share` of the decoder's first convolution."""
    c = ir.c
    weight, linear_bias = _linear(exchange.linear)
    weight = weight @ share
    bias = linear_bias @ share + bias
    both = g("Concat", ir.tokens, vis.tokens, axis=1)  # that is the interleaved layout, too
    wide = g("Mul", ir.w, _whole(2))
    stacked = replace(ir, tokens=both, c=2 * c)
    columns = _Map(_flat(g, both, c), ir.h, wide, c)
    sides = [_shaped(g, x.tokens, x.h, x.w, c) for x in (ir, vis)]
    rows = replace(columns, tokens=_flat(g, g("Concat", *sides, axis=1), c))

    # A block without FFN is x + W y, and linear layers follow.
    y, out, out_bias = _scanned(g, stacked, exchange.stack)
    stack = weight[: 2 * c]
    parts = [(stacked.tokens, stack), (y, out @ stack)]
    bias = bias + out_bias @ stack
    y, out, out_bias = _scanned(g, columns, exchange.column)
    inner = exchange.column.scan.inner
    pair = weight[2 * c : 4 * c]
    apart = np.vstack([out @ pair[:c], out @ pair[c:]])  # IR and VIS lie side by side
    parts += [(both, pair), (_flat(g, y, 2 * inner), apart)]
    bias = bias + out_bias @ (pair[:c] + pair[c:])
    y, out, out_bias = _scanned(g, rows, exchange.row)
    pair = weight[4 * c :]
    parts.append((both, pair))
    bias = bias + out_bias @ (pair[:c] + pair[c:])
    halves = g.several(2, "Split", _shaped(g, y, ir.h, wide, inner), axis=1, num_outputs=2)
    parts += [
        (_flat(g, half, inner), out @ part) for half, part in zip(halves, (pair[:c], pair[c:]), strict=True)
    ]
    own = sum(w for x, w in parts if x == both)
    result = g("Gemm", both, own, bias)
    for x, w in parts:
        if x != both:
            result = g("Gemm", x, w, result)
    return replace(ir, tokens=result, c=share.shape[1])


def _halved(g: _Graph, x: _Map) -> _Map:
    """Means of 2x2 tokens."""
    h, w = (g("Div", side, _whole(2)) for side in (x.h, x.w))
    line = g("Mul", x.w, _whole(x.c))
    rows = g("ReduceMean", _shaped(g, x.tokens, h, 2, line), _whole(1), keepdims=0)
    means = g("ReduceMean", g("Reshape", rows, _whole(-1, 2, x.c)), _whole(1), keepdims=0)
    return _Map(means, h, w, x.c)


def _doubled(g: _Graph, x: _Map) -> _Map:
    pixels = g("Transpose", _shaped(g, x.tokens, 1, x.h, x.w, x.c), perm=[0, 3, 1, 2])
    scales = np.array([1, 1, 2, 2], np.float32)
    larger = g("Resize", pixels, "", scales, mode="linear")
    h, w = (g("Mul", side, _whole(2)) for side in (x.h, x.w))
    return _Map(_flat(g, g("Transpose", larger, perm=[0, 2, 3, 1]), x.c), h, w, x.c)


def _shuffled(g: _Graph, x: str, conv: nn.Module, h: str, w: str) -> str:
    """A convolution, a pixel shuffle by 2 and LeakyReLU: `(1, h, w, C)` -> `(1, 2 h, 2 w, C')`."""
    weight, bias = _conv(conv)
    c = len(bias) // 4
    order = np.arange(4 * c).reshape(c, 4).T.ravel()  # pixel by pixel, so that the shuffle moves whole ones
    y = _shaped(g, _convolve(g, x, weight[order], bias[order], leaky=True), h, w, 2, 2 * c)
    y = g("Transpose", y, perm=[0, 2, 1, 3])
    return _shaped(g, y, 1, g("Mul", h, _whole(2)), g("Mul", w, _whole(2)), c)


def _stems(g: _Graph, pictures: str, ir: Stem, vis: Stem) -> tuple[str, list[str]]:
    """`(1, 4 h, 4 w, 2)` -> details of both `(1, 4 h, 4 w, C / 2)`, and features `(1, h, w, C)` of each."""
    details = _convolve(g, pictures, *_side_by_side(ir.full, vis.full), leaky=True)
    halves = _convolve(g, details, *_side_by_side(ir.to_half, vis.to_half), stride=2, leaky=True)
    parts = g.several(2, "Split", halves, axis=3, num_outputs=2)
    return details, [
        _convolve(g, half, *_conv(stem.to_quarter), stride=2)
        for half, stem in zip(parts, (ir, vis), strict=True)
    ]


def _decoder(g: _Graph, x: _Map, details: str, decoder: Decoder) -> str:
    """After its first convolution: `(1, 4 h, 4 w, 1)`."""
    pixels = _shaped(g, x.tokens, 1, x.h, x.w, x.c)
    between = _convolve(g, pixels, *_conv(decoder.residual[0]), leaky=True)
    pixels = g("Add", pixels, _convolve(g, between, *_conv(decoder.residual[2])))
    half = _shuffled(g, pixels, decoder.to_half, x.h, x.w)
    full = _shuffled(g, half, decoder.to_full, *(g("Mul", side, _whole(2)) for side in (x.h, x.w)))
    weight, bias = _conv(decoder.merge)
    own, rest = weight[:, : len(bias)], weight[:, len(bias) :]
    merged = g("Add", _convolve(g, full, own, bias), _convolve(g, details, rest, np.zeros_like(bias)))
    merged = g("LeakyRelu", merged, alpha=_SLOPE)
    return g("Sigmoid", _convolve(g, merged, *_conv(decoder.out)))


def _reflected(g: _Graph, n: str) -> str:
    """Indices `(padded,)` for a side `n` `(1,)`: see `network.reflected`."""
    count = g("Div", g("Add", n, _whole(2 * MARGIN + MULTIPLE - 1)), _whole(MULTIPLE))
    padded = g("Mul", count, _whole(MULTIPLE))
    period = g("Max", g("Mul", g("Sub", n, _whole(1)), _whole(2)), _whole(1))
    steps = g("Range", np.array(-MARGIN), g("Squeeze", g("Sub", padded, _whole(MARGIN))), np.array(1))
    index = g("Mod", steps, period)
    return g("Min", index, g("Sub", period, index))


def _network(g: _Graph, network: DiffMF) -> None:
    shape = g("Shape", "vis")
    height, width = (g("Slice", shape, _whole(i), _whole(i + 1), _whole(0)) for i in (2, 3))
    rows, columns = _reflected(g, height), _reflected(g, width)
    h, w = (g("Div", g("Shape", index), _whole(4)) for index in (rows, columns))
    c = network.config.width
    pictures = g("Concat", "ir", "vis", axis=1)
    pictures = g("Gather", g("Gather", pictures, rows, axis=2), columns, axis=3)
    pictures = g("Transpose", pictures, perm=[0, 2, 3, 1])
    details, features = _stems(g, pictures, network.stem_ir, network.stem_vis)
    ir, vis = (_Map(_flat(g, feature, c), h, w, c) for feature in features)
    for stage in network.extraction:
        assert isinstance(stage, DifferenceGuidedExtraction)
        ir, vis = _extraction(g, ir, vis, stage)
    ir, vis = _channel_exchange(g, ir, vis, network.channel_exchange)
    # The decoder's first convolution is of single pixels: it may go before the doubling.
    shares = np.split(_double(network.decoder.reduce.weight)[:, :, 0, 0].T, 3)
    biases = _double(network.decoder.reduce.bias), np.zeros(c), np.zeros(c)
    levels: list[_Map] = []
    for level, share, bias in zip(("high", "middle", "low"), shares, biases, strict=True):
        if levels:
            ir, vis = _halved(g, ir), _halved(g, vis)
        exchange = network.spatial_exchange[level]
        assert isinstance(exchange, SpatialExchange)
        levels.append(_spatial_exchange(g, ir, vis, exchange, share, bias))
    result = levels.pop()
    while levels:
        larger = levels.pop()
        result = replace(larger, tokens=g("Add", larger.tokens, _doubled(g, result).tokens))
    fused = _decoder(g, result, details, network.decoder)
    begin = _whole(MARGIN, MARGIN)
    end = g("Add", g("Concat", height, width, axis=0), begin)
    fused = g("Slice", fused, begin, end, _whole(1, 2))
    g("Transpose", fused, perm=[0, 3, 1, 2])
    g.nodes[-1].output[0] = "fused"
