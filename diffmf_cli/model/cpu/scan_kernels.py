"""The selective scan inside the network: in place, and delta exists for a few tokens at a time.

Large pictures wait for memory, so there are two passes for four orders. The first goes along the rows, with
the order that does so, and gathers what every row, walked back, and every column, walked down, makes of a
state. From that follows what enters each of them; the second pass, through columns from the last to the
first, runs the other three orders at once.

Importing this compiles what is not yet in numba's cache. A task works on `LANES` channels of one picture, as
vectors in registers. The scan for everybody is `diffmf_cli.scan`.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import float32, float64, int64, njit, types, void
from numba.extending import intrinsic

from diffmf_cli.model.cpu.lanes import Lanes, loop
from diffmf_cli.model.cpu.product_kernels import CHUNK, add_product
from diffmf_cli.scan.numba_kernels import JIT, LANES, fetch, put

_F = np.float32
_LOG2E = _F(1.4426950408889634)
_LEAST = 1e-30  # of a line's decay: smaller numbers would be denormal, and slow
_AHEAD = 6  # tokens that are asked for early, each in a row of its own: so long an outer cache takes


@intrinsic
def _enter(
    typing_context: Any,
    steps: Any,
    count: Any,
    row: Any,
    column: Any,
    w: Any,
    x: Any,
    values: Any,
    factor: Any,
    rate: Any,
    B: Any,
    C: Any,
    state: Any,
    rows: Any,
    columns: Any,
    tokens: Any,
) -> Any:
    """Decay and input of `count` tokens of a row from `column` on, and the first order, along the row.

    `tokens` `(length, 2, LANES)` gets decay and input; `values`, times `factor`, get the order's result.
    `rows` `(h, 2, LANES)` gathers the decay of a whole row and what it ends with, walked back from zero, and
    `columns` `(w, 2, LANES)` the same of columns walked down.
    """

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(build)
        steps, x, values, factor, rate, B, C, state, rows, columns, tokens = (
            context.make_array(signature.args[i])(context, build, args[i]) for i in (0, *range(5, 15))
        )

        def constant(value: int) -> Any:
            return ir.Constant(args[1].type, value)

        factors, rates = (lanes.load(array.data, constant(0)) for array in (factor, rate))
        least = lanes.constant(_LEAST)
        token = build.add(build.mul(args[2], args[4]), args[3])

        def step(i: Any, entered: list[Any]) -> list[Any]:
            t = build.add(token, i)
            own, at = build.mul(t, constant(LANES)), build.mul(t, constant(2 * LANES))
            down = build.mul(build.add(args[3], i), constant(2 * LANES))
            given, kept = lanes.load(x.data, own), lanes.load(values.data, own)
            dt = lanes.softplus(lanes.load(steps.data, build.mul(i, constant(LANES))))
            decay = lanes.exp2(lanes.mul(dt, rates))
            added = lanes.mul(dt, lanes.mul(lanes.everywhere(B.data, t), given))
            after = lanes.fma(decay, entered[0], added)
            result = lanes.fma(after, lanes.everywhere(C.data, t), lanes.mul(kept, factors))
            lanes.store(result, values.data, own)
            for first, vector in ((at, decay), (build.add(at, constant(LANES)), added)):
                lanes.store(vector, tokens.data, first)
            end = build.add(down, constant(LANES))
            lanes.store(lanes.fma(decay, lanes.load(columns.data, end), added), columns.data, end)
            left = lanes.mul(decay, lanes.load(columns.data, down))
            lanes.store(lanes.larger(left, least), columns.data, down)
            back = lanes.fma(entered[1], added, entered[2])
            return [after, lanes.larger(lanes.mul(entered[1], decay), least), back]

        back = build.mul(args[2], constant(2 * LANES))
        places = [(state, constant(0)), (rows, back), (rows, build.add(back, constant(LANES)))]
        entered = [lanes.load(array.data, place) for array, place in places]
        for last, (array, place) in zip(loop(build, args[1], entered, step), places, strict=True):
            lanes.store(last, array.data, place)
        return context.get_dummy_value()

    integer = types.intp
    kinds = (steps, *[integer] * 4, x, values, factor, rate, B, C, state, rows, columns, tokens)
    return types.void(*kinds), generate


@intrinsic
def _chain(typing_context: Any, lines: Any, state: Any, first: Any, step: Any, count: Any) -> Any:
    """Of lines `(n, 2, LANES)` from `first` by `step`, the decay becomes what enters them; first, `state`."""

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(build)
        lines, state = (context.make_array(signature.args[i])(context, build, args[i]) for i in range(2))

        def constant(value: int) -> Any:
            return ir.Constant(args[2].type, value)

        def move(i: Any, entered: list[Any]) -> list[Any]:
            line = build.mul(build.add(args[2], build.mul(i, args[3])), constant(2 * LANES))
            decay = lanes.load(lines.data, line)
            end = lanes.load(lines.data, build.add(line, constant(LANES)))
            lanes.store(entered[0], lines.data, line)
            return [lanes.fma(decay, entered[0], end)]

        loop(build, args[4], [lanes.load(state.data, constant(0))], move)
        return context.get_dummy_value()

    return types.void(lines, state, *[types.intp] * 3), generate


@intrinsic
def _sweep(
    typing_context: Any,
    tokens: Any,
    values: Any,
    C: Any,
    state: Any,
    rows: Any,
    columns: Any,
    column: Any,
    w: Any,
    h: Any,
) -> Any:
    """The other three orders through one column: up it, from `state`, down it, and back along each row.

    `rows` `(h, 2, LANES)` starts with the states of the rows, `columns` `(w, 2, LANES)` with what enters the
    way down. The dependent steps of both ways fill each other's waits. They meet in one token only where they
    are in it at the same step, and then the second adds to what the first has stored.
    """

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(build)
        tokens, values, C, state, rows, columns = (
            context.make_array(signature.args[i])(context, build, args[i]) for i in range(6)
        )

        def constant(value: int) -> Any:
            return ir.Constant(args[6].type, value)

        ahead = build.mul(args[7], constant(_AHEAD))
        bottom = build.sub(args[8], constant(1))

        def move(i: Any, entered: list[Any]) -> list[Any]:
            after = []
            for before, up in zip(entered, (True, False), strict=True):
                row = build.sub(bottom, i) if up else i
                token = build.add(args[6], build.mul(row, args[7]))
                further = (build.sub if up else build.add)(token, ahead)
                # Addresses outside of the arrays are harmless.
                line = build.gep(tokens.data, [build.mul(further, constant(2 * LANES))])
                fetch(build, line)
                fetch(build, build.gep(line, [constant(LANES)]))
                fetch(build, build.gep(values.data, [build.mul(further, constant(LANES))]))
                at = build.mul(token, constant(2 * LANES))
                own = build.mul(token, constant(LANES))
                decay = lanes.load(tokens.data, at)
                added = lanes.load(tokens.data, build.add(at, constant(LANES)))
                after.append(lanes.fma(decay, before, added))
                total = after[-1]
                if up:
                    place = build.mul(row, constant(2 * LANES))
                    back = lanes.fma(decay, lanes.load(rows.data, place), added)
                    lanes.store(back, rows.data, place)
                    total = build.fadd(total, back)
                total = lanes.fma(total, lanes.everywhere(C.data, token), lanes.load(values.data, own))
                lanes.store(total, values.data, own)
            return after

        down = lanes.load(columns.data, build.mul(args[6], constant(2 * LANES)))
        last, _ = loop(build, args[8], [lanes.load(state.data, constant(0)), down], move)
        lanes.store(last, state.data, constant(0))
        return context.get_dummy_value()

    integer = types.intp
    return types.void(tokens, values, C, state, rows, columns, *[integer] * 3), generate


@njit(float64(float64, float64, float64, float64), **JIT)
def _start(value, step, rate, weight):
    """What an endless run of one token leaves; see `diffmf_cli.scan.recurrence.start_states`."""
    dt = max(step, 0.0) + math.log1p(math.exp(-abs(step)))
    decay = max(-dt * rate, 1e-12)
    return value * weight / -rate * (decay / -math.expm1(-decay))


_tokens, _vector = float32[:, ::1], float32[::1]


_three = float32[:, :, ::1]


@njit(void(_three, _tokens, _three, _tokens, _vector, _vector, int64, int64, int64, _three), **JIT)
def scan_in_place(all_values, selected, delta_weight, A, D, delta_bias, h, w, block, tokens):
    """The selective scan of channels `LANES * block` on, whose values become the result.

    Values are `(d / LANES, h * w, LANES)`: a block's lie side by side, or each would use up a line of the
    cache for a part. `selected` `(h * w, ...)` starts with the rank of delta, B and C; `delta_weight` is
    `(d / LANES, rank, LANES)`, `A` `(d, n)`. `tokens` `(h * w, 2, LANES)` is room for decay and input.
    """
    length, rank, kept, states = h * w, delta_weight.shape[1], selected.shape[1], A.shape[1]
    first, weight, values = block * LANES, delta_weight[block], all_values[block]
    B, C, steps = np.empty(length, _F), np.empty(length, _F), np.empty((CHUNK, LANES), _F)
    flat_selected, flat_steps = selected.reshape(-1), steps.reshape(-1)
    factor = D[first : first + LANES].copy()
    rate, start = np.empty(LANES, np.float32), np.empty((2, LANES), np.float32)
    state = np.empty(LANES, np.float32)
    rows, columns = np.empty((h, 2, LANES), np.float32), np.empty((w, 2, LANES), np.float32)
    x = values
    if states > 1:  # they read x again, after the result of the first has taken its place
        x = values.copy()
    for n in range(states):
        for p in range(length):
            B[p], C[p] = selected[p, rank + n], selected[p, rank + states + n]
        for end in range(2):
            p = end * (length - 1)
            add_product(flat_selected, p * kept, kept, weight, delta_bias, first, 0, flat_steps, 0, LANES, 1)
            for j in range(LANES):
                start[end, j] = _start(x[p, j], steps[0, j], A[first + j, n], B[p])
        for j in range(LANES):
            rate[j] = A[first + j, n] * _LOG2E
        for lines in (rows, columns):
            lines[:, 0], lines[:, 1] = _F(1), _F(0)
        put(start[0], state)
        for r in range(h):
            for c in range(0, w, CHUNK):
                count, at = min(CHUNK, w - c), (r * w + c) * kept
                add_product(
                    flat_selected, at, kept, weight, delta_bias, first, 0, flat_steps, 0, LANES, count
                )
                _enter(steps, count, r, c, w, x, values, factor, rate, B, C, state, rows, columns, tokens)
        _chain(columns, start[0], 0, 1, w)
        _chain(rows, start[1], h - 1, -1, h)
        put(start[1], state)
        for c in range(w - 1, -1, -1):
            _sweep(tokens, values, C, state, rows, columns, c, w, h)
        factor[:] = _F(1)
