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
# (`reassoc` would fold the rounding trick of `exp2` away.)
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
def fma(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
    """`x * y + z`, rounded once."""
    return types.float32(*[types.float32] * 3), lambda _c, build, _s, args: build.fma(*args)


def fetch(build: Any, pointer: Any) -> None:
    """Asks for a cache line early; the hardware does not foresee strides of a picture's row."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    prefetch = build.module.declare_intrinsic("llvm.prefetch", (byte,), kind)
    hints = [ir.Constant(word, value) for value in (1, 3, 1)]  # to be written, kept, data
    build.call(prefetch, [build.bitcast(pointer, byte), *hints])


@intrinsic
def _prefetch(typing_context: Any, array: Any, row: Any, column: Any) -> Any:
    """The cache line of `array[row, column]`, which need not exist."""

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(signature.args[0])(context, build, args[0])
        width = build.extract_value(view.shape, 1)
        fetch(build, build.gep(view.data, [build.add(build.mul(args[1], width), args[2])]))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


_AHEAD = 6  # tokens, each in a row of its own: so long an outer cache takes
_FAR = 12  # the same where tokens follow each other


@intrinsic
def _walk(typing_context: Any, tokens: Any, states: Any, first: Any, step: Any, count: Any) -> Any:
    """Two orders at once: one from token `first` by `step`, one likewise from the end backwards.

    `tokens` is `(length, 3, LANES)`: decay a, input b and the sum of states, to which both orders add their
    `state = a state + b`; `states` is `(2, LANES)`, before and after. As vectors in registers: of a loop over
    the lanes LLVM would make one lane after the other, since it unrolls it before it looks for vectors. The
    two chains of dependent steps fill each other's waits. Both never meet in one token within a step unless
    they are the same token, and then the second adds to what the first has stored.
    """

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        lanes = ir.VectorType(ir.FloatType(), LANES)
        word = args[3].type

        def constant(value: int) -> Any:
            return ir.Constant(word, value)

        def data(array: int) -> Any:
            return context.make_array(signature.args[array])(context, build, args[array]).data

        def vector(base: Any, row: Any) -> Any:
            return build.bitcast(build.gep(base, [build.mul(row, constant(LANES))]), lanes.as_pointer())

        base, state_base = data(0), data(1)
        length = build.extract_value(context.make_array(signature.args[0])(context, build, args[0]).shape, 0)
        places = [vector(state_base, constant(k)) for k in range(2)]
        before = build.block
        entered = [build.load(place, align=4) for place in places]
        last = build.sub(length, constant(1))
        ahead = build.mul(args[3], constant(_AHEAD))
        loop, done = build.append_basic_block("walk"), build.append_basic_block("walked")
        build.branch(loop)
        build.position_at_end(loop)
        i, p = build.phi(word), build.phi(word)
        states_now = [build.phi(lanes) for _ in range(2)]
        after = []
        q = build.sub(last, p)
        for k, (token, further) in enumerate(((p, build.add(p, ahead)), (q, build.sub(q, ahead)))):
            for row in range(3):  # addresses outside of the array are harmless
                line = vector(base, build.add(build.mul(further, constant(3)), constant(row)))
                fetch(build, line)
            first = build.mul(token, constant(3))
            a, b, total = (vector(base, build.add(first, constant(row))) for row in range(3))
            product = build.fmul(build.load(a, align=4), states_now[k], flags=["contract"])
            state = build.fadd(product, build.load(b, align=4), flags=["contract"])
            build.store(build.fadd(build.load(total, align=4), state), total, align=4)
            after.append(state)
        i_next, p_next = build.add(i, constant(1)), build.add(p, args[3])
        i.add_incoming(constant(0), before)
        i.add_incoming(i_next, loop)
        p.add_incoming(args[2], before)
        p.add_incoming(p_next, loop)
        for k in range(2):
            states_now[k].add_incoming(entered[k], before)
            states_now[k].add_incoming(after[k], loop)
        build.cbranch(build.icmp_signed("<", i_next, args[4]), loop, done)
        build.position_at_end(done)
        for place, state in zip(places, after, strict=True):
            build.store(state, place, align=4)
        return context.get_dummy_value()

    return types.void(tokens, states, *[types.intp] * 3), generate


@njit(inline="always", fastmath=_FASTMATH)
def exp2(x):
    """2**x for x <= 0, relative error 2e-7: the wheels' math library would not vectorise."""
    x = max(x, _F(-126.0))
    z = x + _ROUND
    f = x - (z - _ROUND)
    # Of 2**f on [-1/2, 1/2], with the least largest error, 9e-8.
    p = _F(1.3264700e-3)
    p = fma(p, f, _F(9.6715100e-3))
    p = fma(p, f, _F(5.5507340e-2))
    p = fma(p, f, _F(2.4022242e-1))
    p = fma(p, f, _F(6.9314698e-1))
    p = fma(p, f, _F(1.0))
    return _from_bits(_bits(p) + (_bits(z) << _SHIFT))


@njit(inline="always", fastmath=_FASTMATH)
def softplus(x):
    """max(x, 0) + log1p(exp(-|x|)), the logarithm as 2 atanh(z / (2 + z))."""
    z = exp2(-abs(x) * _LOG2E)
    s = z / (_F(2.0) + z)
    q = s * s
    p = _F(2 / 13)
    p = fma(p, q, _F(2 / 11))
    p = fma(p, q, _F(2 / 9))
    p = fma(p, q, _F(2 / 7))
    p = fma(p, q, _F(2 / 5))
    p = fma(p, q, _F(2 / 3))
    p = fma(p, q, _F(2.0))
    return fma(p, s, max(x, _F(0.0)))


@njit(fastmath=_FASTMATH)
def put(values, out):
    """`out[:] = values`; for that numba compiles, in two seconds, what formats an error message."""
    for j in range(out.size):
        out[j] = values[j]


@njit(fastmath=_FASTMATH)
def _four_orders(tokens, start, h, w):
    """Adds the states of all four orders, from `start` `(2, LANES)`; see `_walk`."""
    states = start.copy()
    _walk(tokens, states, 0, 1, h * w)
    for end in range(2):
        put(start[end], states[end])
    for column in range(w):
        _walk(tokens, states, column, w, h)


_flat = float32[:, ::1]
_vector = float32[::1]
JIT = {"nogil": True, "cache": True, "fastmath": _FASTMATH, "boundscheck": False, "error_model": "numpy"}


@njit(
    void(_flat, _flat, _flat, _flat, _flat, _vector, _vector, float32[:, :, ::1], int32, int32, int32, _flat),
    **JIT,
)
def scan_task(x, delta, A, B, C, D, bias, starts, h, w, first, y):
    """Channels `first` to `first + LANES` of one picture.

    `x`, `delta`, `y` are `(h * w, d)`, `A` `(d, n)`, `B`, `C` `(h * w, n)`, `starts` `(2, d, n)`.
    """
    length, d = x.shape
    lanes = min(LANES, d - first)
    tokens = np.zeros((length, 3, LANES), np.float32)
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
            _prefetch(x, p + _FAR, first)
            _prefetch(delta, p + _FAR, first)
            weight, decay, entered = B[p, n], tokens[p, 0], tokens[p, 1]
            value, step = x[p, first:last], delta[p, first:last]
            for j in range(lanes):
                dt = softplus(step[j] + offset[j])
                decay[j] = exp2(dt * rate[j])
                entered[j] = dt * weight * value[j]
            tokens[p, 2] = 0
        _four_orders(tokens, start, h, w)
        for p in range(length):
            _prefetch(x, p + _FAR, first)
            _prefetch(y, p + _FAR, first)
            weight, states = C[p, n], tokens[p, 2]
            value, result = x[p, first:last], y[p, first:last]
            if n == 0:
                for j in range(lanes):
                    result[j] = states[j] * weight + skip[j] * value[j]
            else:
                for j in range(lanes):
                    result[j] += states[j] * weight


@njit(void(_flat, _flat, _flat, int32, int32, int32, _flat), **JIT)
def recurrence_task(all_a, all_b, starts, h, w, first, total_out):
    """Sum of the states for some channels; all `(h * w, m)`, `starts` `(2, m)`."""
    length, m = all_a.shape
    lanes = min(LANES, m - first)
    tokens = np.zeros((length, 3, LANES), np.float32)
    start = np.zeros((2, LANES), np.float32)
    for j in range(lanes):
        start[0, j], start[1, j] = starts[0, first + j], starts[1, first + j]
    for p in range(length):
        for j in range(lanes):
            tokens[p, 0, j], tokens[p, 1, j] = all_a[p, first + j], all_b[p, first + j]
    _four_orders(tokens, start, h, w)
    for p in range(length):
        for j in range(lanes):
            total_out[p, first + j] = tokens[p, 2, j]


@njit(void(_flat, _flat, _flat, _flat, int32, int32, int32, _flat, _flat, _flat), **JIT)
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
