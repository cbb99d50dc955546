"""The scan's inner loops, compiled by numba from prebuilt wheels (no compiler needed); see `numba_scan`.

Importing this compiles what is not yet in numba's cache. Every task works on `LANES` channels of one picture:
one cache line, one AVX-512 or two AVX2 registers.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import float32, int32, njit, types, void
from numba.extending import intrinsic

LANES = 16

# Only what cannot change a rounding. A loop exists as vector and as scalar code, and which one runs depends
# on where the arrays lie: with `contract` or `arcp` the two would differ in their last bits, call by call.
# (`reassoc` would fold the rounding trick of `_exp2` away.)
_FASTMATH = {"nnan", "ninf", "nsz"}
_LOG2E = np.float32(1.4426950408889634)
_F = np.float32
_ROUND = _F(12582912.0)  # 1.5 * 2**23: adding it rounds to an integer, which then sits in the low bits
_SHIFT = np.int32(23)


@intrinsic
def _bits(typing_context: Any, x: Any) -> Any:
    return types.int32(types.float32), lambda _c, build, _s, args: build.bitcast(args[0], ir.IntType(32))


@intrinsic
def _from_bits(typing_context: Any, x: Any) -> Any:
    return types.float32(types.int32), lambda _c, build, _s, args: build.bitcast(args[0], ir.FloatType())


@intrinsic
def _fma(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
    """`x * y + z`, rounded once."""
    return types.float32(*[types.float32] * 3), lambda _c, build, _s, args: build.fma(*args)


@intrinsic
def _advance(typing_context: Any, a: Any, b: Any, state: Any, total: Any, p: Any) -> Any:
    """`state = a[p] * state + b[p]; total[p] += state`, as vectors.

    Of a loop over the lanes LLVM would make one lane after the other: it unrolls it before it looks for
    vectors, and then cannot know that the arrays are apart.
    """

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        lanes = ir.VectorType(ir.FloatType(), LANES)
        rows = build.mul(args[4], ir.Constant(args[4].type, LANES)), ir.Constant(args[4].type, 0)

        def pointer(array: int, row: Any) -> Any:
            data = context.make_array(signature.args[array])(context, build, args[array]).data
            return build.bitcast(build.gep(data, [row]), lanes.as_pointer())

        places = pointer(0, rows[0]), pointer(1, rows[0]), pointer(2, rows[1]), pointer(3, rows[0])
        decay, entered, before, so_far = (build.load(place, align=4) for place in places)
        product = build.fmul(decay, before, flags=["contract"])
        after = build.fadd(product, entered, flags=["contract"])
        build.store(after, places[2], align=4)
        build.store(build.fadd(so_far, after), places[3], align=4)
        return context.get_dummy_value()

    return types.void(a, b, state, total, types.intp), generate


@njit(inline="always", fastmath=_FASTMATH)
def _exp2(x):
    """2**x for x <= 0, relative error 2e-7: the wheels' math library would not vectorise."""
    x = max(x, _F(-126.0))
    z = x + _ROUND
    f = x - (z - _ROUND)
    # Taylor of 2**f on [-1/2, 1/2].
    p = _F(1.5403530e-4)
    p = _fma(p, f, _F(1.3333558e-3))
    p = _fma(p, f, _F(9.6181291e-3))
    p = _fma(p, f, _F(5.5504109e-2))
    p = _fma(p, f, _F(2.4022651e-1))
    p = _fma(p, f, _F(6.9314718e-1))
    p = _fma(p, f, _F(1.0))
    return _from_bits(_bits(p) + (_bits(z) << _SHIFT))


@njit(inline="always", fastmath=_FASTMATH)
def _softplus(x):
    """max(x, 0) + log1p(exp(-|x|)), the logarithm as 2 atanh(z / (2 + z))."""
    z = _exp2(-abs(x) * _LOG2E)
    s = z / (_F(2.0) + z)
    q = s * s
    p = _F(2 / 13)
    p = _fma(p, q, _F(2 / 11))
    p = _fma(p, q, _F(2 / 9))
    p = _fma(p, q, _F(2 / 7))
    p = _fma(p, q, _F(2 / 5))
    p = _fma(p, q, _F(2 / 3))
    p = _fma(p, q, _F(2.0))
    return _fma(p, s, max(x, _F(0.0)))


@njit(inline="always", fastmath=_FASTMATH)
def _four_orders(a, b, start, total, h, w):
    """Adds the states of all four orders to `total`; all `(h * w, LANES)`, `start` `(2, LANES)`."""
    state = np.empty(LANES, np.float32)
    for order in range(4):
        state[:] = start[order % 2]
        lines, length, step_line, step = (h, w, w, 1) if order < 2 else (w, h, 1, w)
        corner = 0
        if order % 2:
            corner, step_line, step = h * w - 1, -step_line, -step
        for line in range(lines):
            p = corner + line * step_line
            for _ in range(length):
                _advance(a, b, state, total, p)
                p += step


_flat = float32[:, ::1]
_vector = float32[::1]
_JIT = {"nogil": True, "cache": True, "fastmath": _FASTMATH, "boundscheck": False, "error_model": "numpy"}


@njit(
    void(_flat, _flat, _flat, _flat, _flat, _vector, _vector, float32[:, :, ::1], int32, int32, int32, _flat),
    **_JIT,
)
def scan_task(x, delta, A, B, C, D, bias, starts, h, w, first, y):
    """Channels `first` to `first + LANES` of one picture.

    `x`, `delta`, `y` are `(h * w, d)`, `A` `(d, n)`, `B`, `C` `(h * w, n)`, `starts` `(2, d, n)`.
    """
    length, d = x.shape
    lanes = min(LANES, d - first)
    a = np.zeros((length, LANES), np.float32)
    b = np.zeros((length, LANES), np.float32)
    total = np.empty((length, LANES), np.float32)
    rate = np.zeros(LANES, np.float32)
    start = np.zeros((2, LANES), np.float32)
    last = first + lanes
    # Slices: an index that might be negative, as `first + j`, would turn a vector load into single ones.
    skip, offset = D[first:last], bias[first:last]
    for n in range(A.shape[1]):
        for j in range(lanes):
            rate[j] = A[first + j, n] * _LOG2E
            start[0, j], start[1, j] = starts[0, first + j, n], starts[1, first + j, n]
        for p in range(length):
            weight, decay, entered = B[p, n], a[p], b[p]
            value, step = x[p, first:last], delta[p, first:last]
            for j in range(lanes):
                dt = _softplus(step[j] + offset[j])
                decay[j] = _exp2(dt * rate[j])
                entered[j] = dt * weight * value[j]
        total[:] = 0
        _four_orders(a, b, start, total, h, w)
        for p in range(length):
            weight, states = C[p, n], total[p]
            value, result = x[p, first:last], y[p, first:last]
            if n == 0:
                for j in range(lanes):
                    result[j] = states[j] * weight + skip[j] * value[j]
            else:
                for j in range(lanes):
                    result[j] += states[j] * weight


@njit(void(_flat, _flat, _flat, int32, int32, int32, _flat), **_JIT)
def recurrence_task(all_a, all_b, starts, h, w, first, total_out):
    """Sum of the states for some channels; all `(h * w, m)`, `starts` `(2, m)`."""
    length, m = all_a.shape
    lanes = min(LANES, m - first)
    a = np.zeros((length, LANES), np.float32)
    b = np.zeros((length, LANES), np.float32)
    total = np.zeros((length, LANES), np.float32)
    start = np.zeros((2, LANES), np.float32)
    for j in range(lanes):
        start[0, j], start[1, j] = starts[0, first + j], starts[1, first + j]
    for p in range(length):
        for j in range(lanes):
            a[p, j], b[p, j] = all_a[p, first + j], all_b[p, first + j]
    _four_orders(a, b, start, total, h, w)
    for p in range(length):
        for j in range(lanes):
            total_out[p, first + j] = total[p, j]


@njit(void(_flat, _flat, _flat, _flat, int32, int32, int32, _flat, _flat, _flat), **_JIT)
def recurrence_backward_task(
    all_a,
    all_b,
    starts,
    all_grad,
    h,
    w,
    first,
    grad_a_out,
    grad_b_out,
    grad_starts_out,
):
    """Gradients for some channels; all `(h * w, m)`, starts `(2, m)`.

    The states are computed again, order by order.
    """
    length, m = all_a.shape
    lanes = min(LANES, m - first)
    a = np.zeros((length, LANES), np.float32)
    b = np.zeros((length, LANES), np.float32)
    grad = np.zeros((length, LANES), np.float32)
    grad_a = np.zeros((length, LANES), np.float32)
    grad_b = np.zeros((length, LANES), np.float32)
    before = np.empty((length, LANES), np.float32)  # the state that enters each token
    state = np.empty(LANES, np.float32)
    for p in range(length):
        for j in range(lanes):
            a[p, j], b[p, j], grad[p, j] = (
                all_a[p, first + j],
                all_b[p, first + j],
                all_grad[p, first + j],
            )
    for order in range(4):
        lines, line_length, step_line, step = (h, w, w, 1) if order < 2 else (w, h, 1, w)
        corner = 0
        if order % 2:
            corner, step_line, step = length - 1, -step_line, -step
        state[:] = 0
        for j in range(lanes):
            state[j] = starts[order % 2, first + j]
        for line in range(lines):
            p = corner + line * step_line
            for _ in range(line_length):
                for j in range(LANES):
                    before[p, j] = state[j]
                    state[j] = a[p, j] * state[j] + b[p, j]
                p += step
        state[:] = 0  # the adjoint: gradient of the state that leaves a token, from the tokens after it
        for line in range(lines - 1, -1, -1):
            p = corner + line * step_line + (line_length - 1) * step
            for _ in range(line_length):
                for j in range(LANES):
                    g = grad[p, j] + state[j]
                    grad_b[p, j] += g
                    grad_a[p, j] += g * before[p, j]
                    state[j] = a[p, j] * g
                p -= step
        for j in range(lanes):
            grad_starts_out[order % 2, first + j] += state[j]
    for p in range(length):
        for j in range(lanes):
            grad_a_out[p, first + j], grad_b_out[p, first + j] = grad_a[p, j], grad_b[p, j]
