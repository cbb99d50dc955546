"""What lies between the matrix products, one pass each, compiled by numba.

Importing this compiles what is not yet in numba's cache. Tokens are rows, `(T, C)`, float32.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import float32, int64, njit, types, void
from numba.extending import intrinsic

from diffmf_cli.model.cpu.lanes import Lanes, loop
from diffmf_cli.scan.numba_kernels import JIT, LANES, exp2, fma

_F = np.float32
_LOG2E = _F(1.4426950408889634)
_EPSILON = _F(1e-5)  # of nn.LayerNorm
# Sums only: nothing inlined here holds the rounding trick of `exp2`, and no store can alias.
_SUM = {"fastmath": {"nnan", "ninf", "nsz", "reassoc", "contract"}, "error_model": "numpy"}
_tokens, _vector = float32[:, ::1], float32[::1]


@njit(**_SUM)
def _mean(x):
    total = _F(0)
    for j in range(x.size):
        total += x[j]
    return total / _F(x.size)


@njit(**_SUM)
def _inverse_deviation(x, mean):
    total = _F(0)
    for j in range(x.size):
        total += (x[j] - mean) * (x[j] - mean)
    return _F(1) / np.sqrt(total / _F(x.size) + _EPSILON)


@njit(inline="always")
def _sigmoid(x):
    e = exp2(-abs(x) * _LOG2E)
    return (_F(1) if x >= _F(0) else e) / (_F(1) + e)


@njit(void(_tokens, _vector, _vector, _tokens), **JIT)
def norm(x, scale, shift, out):
    """`out = LayerNorm(x)`."""
    for p in range(x.shape[0]):
        token, result = x[p], out[p]
        mean = _mean(token)
        inverse = _inverse_deviation(token, mean)
        for j in range(token.size):
            result[j] = fma((token[j] - mean) * inverse, scale[j], shift[j])


@njit(void(_tokens, _tokens, _vector, _vector), **JIT)
def gate(y, z, scale, shift):
    """`y = LayerNorm(y) * SiLU(z)`; of as many channels as `scale` has, those after it stay."""
    channels = scale.size
    for p in range(y.shape[0]):
        token, gates = y[p, :channels], z[p, :channels]
        mean = _mean(token)
        inverse = _inverse_deviation(token, mean)
        for j in range(channels):
            g = gates[j]
            token[j] = fma((token[j] - mean) * inverse, scale[j], shift[j]) * (g * _sigmoid(g))


@njit(void(_tokens), **JIT)
def gelu(x):
    """`x = GELU(x)`, erf by Abramowitz & Stegun 7.1.26 to 2e-7."""
    for p in range(x.shape[0]):
        token = x[p]
        for j in range(token.size):
            value = token[j]
            half = abs(value) * _F(0.7071067811865476)
            t = _F(1) / fma(half, _F(0.3275911), _F(1))
            q = _F(1.061405429)
            q = fma(q, t, _F(-1.453152027))
            q = fma(q, t, _F(1.421413741))
            q = fma(q, t, _F(-0.284496736))
            q = fma(q, t, _F(0.254829592))
            tail = _F(0.5) * q * t * exp2(-half * half * _LOG2E)
            token[j] = value * (_F(1) - tail if value >= _F(0) else tail)


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
