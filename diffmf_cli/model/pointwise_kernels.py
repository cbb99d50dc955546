"""What lies between the matrix products, one pass each, compiled by numba.

Importing this compiles what is not yet in numba's cache. Tokens are rows, `(T, C)`, float32.
"""

import numpy as np
from numba import float32, int64, njit, void

from diffmf_cli.scan.numba_kernels import JIT, exp2, fma

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
    """`x = LeakyReLU(x)` of slope 0.1."""
    for i in range(x.size):
        x[i] = max(x[i], x[i] * _F(0.1))


@njit(void(_vector), **JIT)
def sigmoid(x):
    """`x = sigmoid(x)`."""
    for i in range(x.size):
        x[i] = _sigmoid(x[i])


@njit(void(_tokens), **JIT)
def silu(x):
    """`x = SiLU(x)`."""
    for p in range(x.shape[0]):
        token = x[p]
        for j in range(token.size):
            token[j] *= _sigmoid(token[j])


@njit(void(_tokens, _tokens, _tokens, int64, _tokens, _vector, _tokens), **JIT)
def depthwise(upper, middle, lower, first, weight, bias, out):
    """A depthwise 3x3 convolution of three rows from token `first - 1` on: `out` `(T, d)`, `weight` `(9, d)`.

    Rows may have more channels than `d`.
    """
    w0, w1, w2, w3, w4 = weight[0], weight[1], weight[2], weight[3], weight[4]
    w5, w6, w7, w8 = weight[5], weight[6], weight[7], weight[8]
    for i in range(out.shape[0]):
        c = first + i
        x0, x1, x2 = upper[c - 1], upper[c], upper[c + 1]
        x3, x4, x5 = middle[c - 1], middle[c], middle[c + 1]
        x6, x7, x8 = lower[c - 1], lower[c], lower[c + 1]
        result = out[i]
        for j in range(result.size):
            s = fma(x0[j], w0[j], bias[j])
            s = fma(x1[j], w1[j], s)
            s = fma(x2[j], w2[j], s)
            t = x3[j] * w3[j]
            t = fma(x4[j], w4[j], t)
            t = fma(x5[j], w5[j], t)
            s = fma(x6[j], w6[j], s)
            s = fma(x7[j], w7[j], s)
            result[j] = fma(x8[j], w8[j], s) + t
