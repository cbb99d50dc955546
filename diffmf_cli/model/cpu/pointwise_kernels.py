"""What lies between the matrix products, one pass each, compiled by numba.

Importing this compiles what is not yet in numba's cache. Tokens are rows, `(T, C)`, float32.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import float32, int64, njit, types, void
from numba.core import cgutils
from numba.extending import intrinsic

from diffmf_cli.model.cpu.lanes import Lanes, loop
from diffmf_cli.scan.numba_kernels import JIT, LANES, exp2, fma

_F = np.float32
_LOG2E = _F(1.4426950408889634)
_EPSILON = _F(1e-5)  # of nn.LayerNorm
_tokens, _vector = float32[:, ::1], float32[::1]


@njit(inline="always")
def _sigmoid(x):
    e = exp2(-abs(x) * _LOG2E)
    return (_F(1) if x >= _F(0) else e) / (_F(1) + e)


def _norm(tokens: int, gated: bool) -> Any:
    @intrinsic
    def normed(
        typing_context: Any, x: Any, gates: Any, token: Any, scale: Any, shift: Any, channels: Any, out: Any
    ) -> Any:
        """`norm`, or `gate`, of `tokens` tokens, one or four, from `token` on."""

        def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
            lanes = Lanes(build)
            x, gates, scale, shift, out = (
                context.make_array(signature.args[i])(context, build, args[i]) for i in (0, 1, 3, 4, 6)
            )
            token, width = args[2], build.extract_value(x.shape, 1)
            numbers, word = ir.VectorType(ir.FloatType(), tokens), ir.IntType(32)

            def constant(value: int) -> Any:
                return ir.Constant(token.type, value)

            def several(value: float) -> Any:
                return ir.Constant(numbers, [float(np.float32(value))] * tokens)

            def repeated(one: Any) -> Any:
                one = build.sitofp(one, ir.FloatType())
                first = build.insert_element(several(0), one, ir.Constant(word, 0))
                zeros = ir.Constant(ir.VectorType(word, tokens), [0] * tokens)
                return build.shuffle_vector(first, first, zeros)

            vectors = build.sdiv(width, constant(LANES))
            firsts = [build.mul(build.add(token, constant(t)), width) for t in range(tokens)]
            share = build.fdiv(several(1), repeated(args[5]))
            empty = repeated(build.sub(width, args[5]))

            def places(vector: Any) -> list[Any]:
                at = build.mul(vector, constant(LANES))
                return [build.add(first, at) for first in firsts]

            def add(vector: Any, sums: list[Any]) -> list[Any]:
                values = [lanes.load(x.data, place) for place in places(vector)]
                return [lanes.add(total, value) for total, value in zip(sums, values, strict=True)]

            nothing = [lanes.constant(0)] * tokens
            mean = build.fmul(lanes.totals(loop(build, vectors, nothing, add)), share)
            means = [lanes.lane(mean, t) for t in range(tokens)]

            def add_square(vector: Any, sums: list[Any]) -> list[Any]:
                values = [lanes.load(x.data, place) for place in places(vector)]
                away = [lanes.sub(value, mean) for value, mean in zip(values, means, strict=True)]
                return [lanes.fma(d, d, total) for total, d in zip(sums, away, strict=True)]

            squares = lanes.totals(loop(build, vectors, nothing, add_square))
            squares = build.fsub(squares, build.fmul(empty, build.fmul(mean, mean)))
            variance = build.fadd(build.fmul(squares, share), several(_EPSILON))
            kind = ir.FunctionType(numbers, [numbers])
            root = cgutils.get_or_insert_function(build.module, kind, f"llvm.sqrt.v{tokens}f32")
            inverse = build.fdiv(several(1), build.call(root, [variance]))
            inverses = [lanes.lane(inverse, t) for t in range(tokens)]

            def write(vector: Any, entered: list[Any]) -> list[Any]:
                at = build.mul(vector, constant(LANES))
                factor, offset = lanes.load(scale.data, at), lanes.load(shift.data, at)
                for place, mean, inverse in zip(places(vector), means, inverses, strict=True):
                    value = lanes.mul(lanes.sub(lanes.load(x.data, place), mean), inverse)
                    value = lanes.fma(value, factor, offset)
                    if gated:
                        value = lanes.mul(value, lanes.silu(lanes.load(gates.data, place)))
                    lanes.store(value, out.data, place)
                return entered

            loop(build, vectors, [], write)
            return context.get_dummy_value()

        i = types.intp
        return types.void(x, gates, i, scale, shift, i, out), generate

    return normed


_one_normed, _four_normed = (_norm(tokens, False) for tokens in (1, 4))
_one_gated, _four_gated = (_norm(tokens, True) for tokens in (1, 4))


@njit(void(_tokens, _vector, _vector, _tokens), **JIT)
def norm(x, scale, shift, out):
    """`out = LayerNorm(x)`, of channels that fill whole `LANES`."""
    count, channels = x.shape
    for p in range(0, count - 3, 4):
        _four_normed(x, x, p, scale, shift, channels, out)
    for p in range(count // 4 * 4, count):
        _one_normed(x, x, p, scale, shift, channels, out)


@njit(void(_tokens, _tokens, _vector, _vector), **JIT)
def gate(y, z, scale, shift):
    """`y = LayerNorm(y) * SiLU(z)`, of as many channels as `scale` has.

    Up to whole `LANES`, zeros follow in `y` and, after their ends, in `scale` and `shift`.
    """
    for p in range(0, y.shape[0] - 3, 4):
        _four_gated(y, z, p, scale, shift, scale.size, y)
    for p in range(y.shape[0] // 4 * 4, y.shape[0]):
        _one_gated(y, z, p, scale, shift, scale.size, y)


@intrinsic
def _gelu(typing_context: Any, x: Any) -> Any:
    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(build)
        x = context.make_array(signature.args[0])(context, build, args[0])

        def step(i: Any, entered: list[Any]) -> list[Any]:
            at = build.mul(i, ir.Constant(i.type, LANES))
            lanes.store(lanes.gelu(lanes.load(x.data, at)), x.data, at)
            return entered

        size = build.mul(*(build.extract_value(x.shape, k) for k in range(2)))
        loop(build, build.sdiv(size, ir.Constant(size.type, LANES)), [], step)
        return context.get_dummy_value()

    return types.void(x), generate


@njit(void(_tokens), **JIT)
def gelu(x):
    """`x = GELU(x)`, of channels that fill whole `LANES`."""
    _gelu(x)


@njit(void(_tokens, _tokens), **JIT)
def guide(own, guidance):
    """`own = own * (1 + s) + s * R` with `s = sigmoid(G)` and `guidance` = `(G, R)`, `(T, 2 C)`."""
    channels = own.shape[1]
    for p in range(own.shape[0]):
        token, gates, rests = own[p], guidance[p, :channels], guidance[p, channels:]
        for j in range(channels):
            token[j] = fma(_sigmoid(gates[j]), token[j] + rests[j], token[j])


@njit(void(_vector), **JIT)
def leaky_relu(x):
    """LeakyReLU of slope 0.1 of all of `x`, in place."""
    for i in range(x.size):
        x[i] = max(x[i], x[i] * _F(0.1))


@njit(void(_vector), **JIT)
def sigmoid(x):
    """The logistic function of all of `x`, in place."""
    for i in range(x.size):
        x[i] = _sigmoid(x[i])


def _depthwise(smooth: bool) -> Any:
    @intrinsic
    def convolved(
        typing_context: Any,
        upper: Any,
        middle: Any,
        lower: Any,
        first: Any,
        column: Any,
        weight: Any,
        bias: Any,
        out: Any,
        out_column: Any,
    ) -> Any:
        """`depthwise` of the channels from `column` on; what two windows share stays in registers."""

        def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
            lanes = Lanes(build)
            *rows, weight, bias, out = (
                context.make_array(signature.args[i])(context, build, args[i]) for i in (0, 1, 2, 5, 6, 7)
            )

            def place(array: Any, token: Any, column: Any = None) -> Any:
                first = build.mul(token, build.extract_value(array.shape, 1))
                return build.add(first, args[4] if column is None else column)

            def constant(value: int) -> Any:
                return ir.Constant(args[3].type, value)

            weights = [lanes.load(weight.data, place(weight, constant(k))) for k in range(9)]
            offset = lanes.load(bias.data, args[4])

            def step(i: Any, known: list[Any]) -> list[Any]:
                right = build.add(build.add(args[3], i), constant(1))
                new = [lanes.load(row.data, place(row, right)) for row in rows]
                total = offset
                for k in range(3):
                    for x, w in zip((known[k], known[3 + k], new[k]), weights[3 * k :], strict=False):
                        total = lanes.fma(x, w, total)
                lanes.store(lanes.silu(total) if smooth else total, out.data, place(out, i, args[8]))
                return [*known[3:], *new]

            tokens = (build.sub(args[3], constant(1)), args[3])
            entered = [lanes.load(row.data, place(row, token)) for token in tokens for row in rows]
            loop(build, build.extract_value(out.shape, 0), entered, step)
            return context.get_dummy_value()

        kinds = (upper, middle, lower, types.intp, types.intp, weight, bias, out, types.intp)
        return types.void(*kinds), generate

    return convolved


_plain, depthwise_silu_lanes = _depthwise(False), _depthwise(True)


@njit(void(_tokens, _tokens, _tokens, int64, _tokens, _vector, _tokens), **JIT)
def depthwise(upper, middle, lower, first, weight, bias, out):
    """A depthwise 3x3 convolution of three rows, around their tokens `first` and on.

    `out` is `(T, d)`, `weight` `(9, d)`, d a multiple of `LANES`; rows may have more channels.
    """
    for column in range(0, out.shape[1], LANES):
        _plain(upper, middle, lower, first, column, weight, bias, out, column)


@njit(void(_tokens, _tokens, _tokens, int64, _tokens, _vector, _tokens), **JIT)
def depthwise_silu(upper, middle, lower, first, weight, bias, out):
    """SiLU of `depthwise`."""
    for column in range(0, out.shape[1], LANES):
        depthwise_silu_lanes(upper, middle, lower, first, column, weight, bias, out, column)
