"""What lies between the matrix products of the state space part, one pass each, compiled by numba.

Importing this compiles what is not yet in numba's cache. Tokens are rows, `(T, C)`, float32.
"""

import numpy as np
from numba import float32, int32, njit, void

from diffmf_cli.scan.numba_kernels import JIT, exp2, fma

_F = np.float32
_LOG2E = _F(1.4426950408889634)
_EPSILON = _F(1e-5)  # of nn.LayerNorm
# Sums only: nothing inlined here holds the rounding trick of `exp2`, and no store can alias.
_SUM = {"fastmath": {"nnan", "ninf", "nsz", "reassoc", "contract"}, "error_model": "numpy"}
_tokens, _vector, _map = float32[:, ::1], float32[::1], float32[:, :, ::1]


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


@njit(void(_tokens, _vector, _vector, _vector, _tokens), **JIT)
def norm_and_add(x, scale, shift, later, out):
    """`out = LayerNorm(x)`, then `x += later`: a bias of what will be added to `x`."""
    for p in range(x.shape[0]):
        token, result = x[p], out[p]
        mean = _mean(token)
        inverse = _inverse_deviation(token, mean)
        for j in range(token.size):
            value = token[j]
            result[j] = fma((value - mean) * inverse, scale[j], shift[j])
            token[j] = value + later[j]


@njit(void(_tokens, _tokens, _vector, _vector, _vector, _tokens, _vector), **JIT)
def gate(y, z, bias, scale, shift, x, later):
    """`y = LayerNorm(y) * SiLU(z + bias)`, and `x += later`."""
    for p in range(y.shape[0]):
        token, gates, residual = y[p], z[p], x[p]
        mean = _mean(token)
        inverse = _inverse_deviation(token, mean)
        for j in range(token.size):
            g = gates[j] + bias[j]
            token[j] = fma((token[j] - mean) * inverse, scale[j], shift[j]) * (g * _sigmoid(g))
        for j in range(residual.size):
            residual[j] += later[j]


@njit(void(_tokens, _vector), **JIT)
def gelu(x, bias):
    """`x = GELU(x + bias)`, erf by Abramowitz & Stegun 7.1.26 to 2e-7."""
    for p in range(x.shape[0]):
        token = x[p]
        for j in range(token.size):
            value = token[j] + bias[j]
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


@njit(void(_map, _tokens, _vector, int32, int32, _map), **JIT)
def depthwise_silu(x, weight, bias, above, below, out):
    """SiLU of a depthwise 3x3 convolution that repeats the border; `x` `(h, w, d)`, `weight` `(9, d)`.

    The first `above` and the last `below` rows of `x` are border only.
    """
    h, w, d = x.shape
    w0, w1, w2, w3, w4 = weight[0], weight[1], weight[2], weight[3], weight[4]
    w5, w6, w7, w8 = weight[5], weight[6], weight[7], weight[8]
    for r in range(above, h - below):
        upper, middle, lower = x[max(r - 1, 0)], x[r], x[min(r + 1, h - 1)]
        for c in range(w):
            left, right = max(c - 1, 0), min(c + 1, w - 1)
            x0, x1, x2 = upper[left], upper[c], upper[right]
            x3, x4, x5 = middle[left], middle[c], middle[right]
            x6, x7, x8 = lower[left], lower[c], lower[right]
            result = out[r - above, c]
            for j in range(d):
                s = fma(x0[j], w0[j], bias[j])
                s = fma(x1[j], w1[j], s)
                s = fma(x2[j], w2[j], s)
                t = x3[j] * w3[j]
                t = fma(x4[j], w4[j], t)
                t = fma(x5[j], w5[j], t)
                s = fma(x6[j], w6[j], s)
                s = fma(x7[j], w7[j], s)
                s = fma(x8[j], w8[j], s) + t
                result[j] = s * _sigmoid(s)
