"""The selective scan inside the network: values become the result in place, delta exists for some tokens only.

Importing this compiles what is not yet in numba's cache. A task works on `LANES` channels of one picture, as
vectors in registers: see `diffmf_cli.scan.numba_kernels`, whose arithmetic this is.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import float32, float64, int64, njit, types, void
from numba.extending import intrinsic

from diffmf_cli.model.product_kernels import CHUNK, add_product
from diffmf_cli.scan.numba_kernels import JIT, LANES, fetch

_F = np.float32
_LOG2E = _F(1.4426950408889634)
_AHEAD = 6  # tokens that are asked for early, each in a row of its own: so long an outer cache takes
_FAR = 12  # the same where tokens follow each other
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)


class _Lanes:
    """Arithmetic on vectors of `LANES` numbers, as instructions of one builder."""

    def __init__(self, build: Any) -> None:
        self.build = build

    def constant(self, value: float) -> Any:
        return ir.Constant(_VECTOR, [float(np.float32(value))] * LANES)

    def integer(self, value: int) -> Any:
        return ir.Constant(_INTEGERS, [value] * LANES)

    def all_lanes(self, one: Any) -> Any:
        """A number in every lane."""
        nothing, zero = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        first = self.build.insert_element(nothing, one, zero)
        return self.build.shuffle_vector(first, nothing, self.integer(0))

    def add(self, x: Any, y: Any) -> Any:
        return self.build.fadd(x, y, flags=["contract"])

    def mul(self, x: Any, y: Any) -> Any:
        return self.build.fmul(x, y, flags=["contract"])

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        return self.add(self.mul(x, y), z)

    def larger(self, x: Any, y: Any) -> Any:
        return self.build.select(self.build.fcmp_ordered(">", x, y), x, y)

    def _polynomial(self, x: Any, *coefficients: float) -> Any:
        p = self.constant(coefficients[0])
        for c in coefficients[1:]:
            p = self.fma(p, x, self.constant(c))
        return p

    def exp2(self, x: Any) -> Any:
        """See `diffmf_cli.scan.numba_kernels.exp2`."""
        build, shift = self.build, self.constant(12582912.0)
        x = self.larger(x, self.constant(-126))
        z = build.fadd(x, shift)
        f = build.fsub(x, build.fsub(z, shift))
        p = self._polynomial(
            f, 1.5403530e-4, 1.3333558e-3, 9.6181291e-3, 5.5504109e-2, 2.4022651e-1, 6.9314718e-1, 1.0
        )
        power = build.shl(build.bitcast(z, _INTEGERS), self.integer(23))
        return build.bitcast(build.add(build.bitcast(p, _INTEGERS), power), _VECTOR)

    def softplus(self, x: Any) -> Any:
        """See `diffmf_cli.scan.numba_kernels`."""
        build = self.build
        negative = build.or_(build.bitcast(x, _INTEGERS), self.integer(-(2**31)))
        z = self.exp2(self.mul(build.bitcast(negative, _VECTOR), self.constant(_LOG2E)))
        s = build.fdiv(z, self.add(z, self.constant(2)))
        p = self._polynomial(self.mul(s, s), 2 / 13, 2 / 11, 2 / 9, 2 / 7, 2 / 5, 2 / 3, 2.0)
        return self.fma(p, s, self.larger(x, self.constant(0)))


def _arrays(context: Any, build: Any, signature: Any, args: Any) -> Callable[[int], Any]:
    return lambda i: context.make_array(signature.args[i])(context, build, args[i])


def _line(build: Any, data: Any, index: Any) -> Any:
    """Pointer to the vector that starts at number `index`."""
    return build.bitcast(build.gep(data, [index]), _VECTOR.as_pointer())


@intrinsic
def _enter(
    typing_context: Any,
    steps: Any,
    count: Any,
    token: Any,
    x: Any,
    x_column: Any,
    values: Any,
    column: Any,
    factor: Any,
    rate: Any,
    B: Any,
    C: Any,
    states: Any,
    tokens: Any,
) -> Any:
    """Decay and input of `count` tokens from `token` on, and the first order, which walks as they come.

    `tokens` `(length, 2, LANES)` gets decay and input; `values`, times `factor`, get the order's result.
    """

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        array, lanes, word = _arrays(context, build, signature, args), _Lanes(build), args[1].type
        steps, x, values, factor, rate, B, C, states, tokens = (
            array(i) for i in (0, 3, 5, 7, 8, 9, 10, 11, 12)
        )
        x_width, width = build.extract_value(x.shape, 1), build.extract_value(values.shape, 1)

        def constant(value: int) -> Any:
            return ir.Constant(word, value)

        place = _line(build, states.data, constant(0))
        factors, rates = (build.load(_line(build, a.data, constant(0)), align=4) for a in (factor, rate))
        before, entered = build.block, build.load(place, align=4)
        loop, done = build.append_basic_block("enter"), build.append_basic_block("entered")
        build.branch(loop)
        build.position_at_end(loop)
        i, state = build.phi(word), build.phi(_VECTOR)
        t = build.add(args[2], i)
        own = _line(build, values.data, build.add(build.mul(t, width), args[6]))
        far = build.add(t, constant(_FAR))
        fetch(build, build.gep(values.data, [build.add(build.mul(far, width), args[6])]))
        given = build.load(
            _line(build, x.data, build.add(build.mul(t, x_width), args[4])), align=4
        )
        kept = build.load(own, align=4)
        dt = lanes.softplus(
            build.load(_line(build, steps.data, build.mul(i, constant(LANES))), align=4)
        )
        decay = lanes.exp2(lanes.mul(dt, rates))
        written, read = (lanes.all_lanes(build.load(build.gep(a.data, [t]), align=4)) for a in (B, C))
        added = lanes.mul(dt, lanes.mul(written, given))
        after = lanes.fma(decay, state, added)
        build.store(lanes.fma(after, read, lanes.mul(kept, factors)), own, align=4)
        at = build.mul(t, constant(2 * LANES))
        build.store(decay, _line(build, tokens.data, at), align=4)
        build.store(added, _line(build, tokens.data, build.add(at, constant(LANES))), align=4)
        following = build.add(i, constant(1))
        i.add_incoming(constant(0), before)
        i.add_incoming(following, loop)
        state.add_incoming(entered, before)
        state.add_incoming(after, loop)
        build.cbranch(build.icmp_signed("<", following, args[1]), loop, done)
        build.position_at_end(done)
        build.store(after, place, align=4)
        return context.get_dummy_value()

    integers = types.intp
    return (
        types.void(
            steps, integers, integers, x, integers, values, integers, factor, rate, B, C, states, tokens
        ),
        generate,
    )


def _walk(orders: int) -> Any:
    @intrinsic
    def walk(
        typing_context: Any,
        tokens: Any,
        values: Any,
        column: Any,
        C: Any,
        states: Any,
        first: Any,
        step: Any,
        count: Any,
    ) -> Any:
        """The last `orders` of two at once: one from token `first` by `step`, one as far from the end, back.

        The two chains of dependent steps fill each other's waits. Both meet in one token only where they are
        in it at the same step, and then the second adds to what the first has stored.
        """

        def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
            array, lanes, word = _arrays(context, build, signature, args), _Lanes(build), args[2].type
            tokens, values, C, states = (array(i) for i in (0, 1, 3, 4))
            width = build.extract_value(values.shape, 1)
            last = build.sub(build.extract_value(values.shape, 0), ir.Constant(word, 1))
            wanted = range(2 - orders, 2)

            def constant(value: int) -> Any:
                return ir.Constant(word, value)

            places = [_line(build, states.data, constant(k * LANES)) for k in wanted]
            entered, before = [build.load(place, align=4) for place in places], build.block
            ahead = build.mul(args[6], constant(_AHEAD))
            loop, done = build.append_basic_block("walk"), build.append_basic_block("walked")
            build.branch(loop)
            build.position_at_end(loop)
            i, p = build.phi(word), build.phi(word)
            now, after = [build.phi(_VECTOR) for _ in wanted], []
            for state, k in zip(now, wanted, strict=True):
                token = p if k == 0 else build.sub(last, p)
                further = build.add(token, ahead) if k == 0 else build.sub(token, ahead)
                for half in range(2):  # addresses outside of the arrays are harmless
                    line = build.add(build.mul(further, constant(2 * LANES)), constant(half * LANES))
                    fetch(build, build.gep(tokens.data, [line]))
                fetch(build, build.gep(values.data, [build.add(build.mul(further, width), args[2])]))
                at = build.mul(token, constant(2 * LANES))
                decay = build.load(_line(build, tokens.data, at), align=4)
                added = build.load(_line(build, tokens.data, build.add(at, constant(LANES))), align=4)
                read = lanes.all_lanes(build.load(build.gep(C.data, [token]), align=4))
                own = _line(build, values.data, build.add(build.mul(token, width), args[2]))
                after.append(lanes.fma(decay, state, added))
                build.store(lanes.fma(after[-1], read, build.load(own, align=4)), own, align=4)
            i_next, p_next = build.add(i, constant(1)), build.add(p, args[6])
            for phi, old, new in ((i, constant(0), i_next), (p, args[5], p_next)):
                phi.add_incoming(old, before)
                phi.add_incoming(new, loop)
            for state, old, new in zip(now, entered, after, strict=True):
                state.add_incoming(old, before)
                state.add_incoming(new, loop)
            build.cbranch(build.icmp_signed("<", i_next, args[7]), loop, done)
            build.position_at_end(done)
            for place, state in zip(places, after, strict=True):
                build.store(state, place, align=4)
            return context.get_dummy_value()

        return types.void(tokens, values, types.intp, C, states, *[types.intp] * 3), generate

    return walk


_walk_back, _walk_both = _walk(1), _walk(2)


@njit(float64(float64, float64, float64, float64), **JIT)
def _start(value, step, rate, weight):
    """What an endless run of one token leaves; see `diffmf_cli.scan.recurrence.start_states`."""
    dt = max(step, 0.0) + math.log1p(math.exp(-abs(step)))
    decay = max(-dt * rate, 1e-12)
    return value * weight / -rate * (decay / -math.expm1(-decay))


_tokens, _vector = float32[:, ::1], float32[::1]


@njit(void(_tokens, _tokens, float32[:, :, ::1], _tokens, _vector, _vector, int64, int64, int64), **JIT)
def scan_in_place(values, selected, delta_weight, A, D, delta_bias, h, w, block):
    """The selective scan of channels `LANES * block` on, whose `values` `(h * w, d)` become the result.

    `selected` `(h * w, ...)` starts with the rank of delta, B and C; `delta_weight` is `(d / LANES, rank,
    LANES)`, `A` `(d, n)`.
    """
    length, rank, kept, states = h * w, delta_weight.shape[1], selected.shape[1], A.shape[1]
    first, weight = block * LANES, delta_weight[block]
    tokens, steps = np.empty((length, 2, LANES), np.float32), np.empty((CHUNK, LANES), np.float32)
    B, C = np.empty(length, np.float32), np.empty(length, np.float32)
    flat_selected, flat_steps = selected.reshape(-1), steps.reshape(-1)
    offset, factor = delta_bias[first : first + LANES], D[first : first + LANES].copy()
    rate, start = np.empty(LANES, np.float32), np.empty((2, LANES), np.float32)
    now = np.empty((2, LANES), np.float32)
    x, x_column = values, first
    if states > 1:  # they read x again, after the result of the first has taken its place
        x, x_column = values[:, first : first + LANES].copy(), 0
    for n in range(states):
        for p in range(length):
            B[p], C[p] = selected[p, rank + n], selected[p, rank + states + n]
        for end in range(2):
            p = end * (length - 1)
            steps[0] = offset
            add_product(flat_selected, p * kept, kept, weight, flat_steps, 0, LANES, 1)
            for j in range(LANES):
                start[end, j] = _start(x[p, x_column + j], steps[0, j], A[first + j, n], B[p])
        for j in range(LANES):
            rate[j] = A[first + j, n] * _LOG2E
        now[:] = start
        for p in range(0, length, CHUNK):
            count = min(CHUNK, length - p)
            for i in range(count):
                steps[i] = offset
            add_product(flat_selected, p * kept, kept, weight, flat_steps, 0, LANES, count)
            _enter(steps, count, p, x, x_column, values, first, factor, rate, B, C, now, tokens)
        _walk_back(tokens, values, first, C, now, 0, 1, length)
        now[:] = start
        for column in range(w):
            _walk_both(tokens, values, first, C, now, column, w, h)
        factor[:] = _F(1)
