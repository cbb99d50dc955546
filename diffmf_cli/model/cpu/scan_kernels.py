"""The selective scan inside the network: in place, and with little beside it however large the picture.

Four orders, each of which enters a line with a state that depends on all lines before. So a first pass finds
what every row and column makes of a state, from which follows what enters each of them. The second pass takes
strips of columns, from the last to the first: down each, row by row, for three orders, and up again for the
fourth. Columns lie side by side in a row, so that all arrays are read as they lie.

Both passes need decays and inputs. Small maps keep those of the first. For large maps that would be the most
of all memory, and waiting for it: there each strip computes them again, which takes 6 ns a token, and the
scan 22 instead of 30.

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
_AHEAD = 32  # tokens along a row that are asked for early: so long memory takes


@intrinsic
def _soften(typing_context: Any, steps: Any, count: Any) -> Any:
    """Softplus of `count` vectors, in place; in a loop of its own, whose constants find room in registers."""

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(build)
        steps = context.make_array(signature.args[0])(context, build, args[0])

        def soften(i: Any, entered: list[Any]) -> list[Any]:
            place = build.mul(i, ir.Constant(args[1].type, LANES))
            lanes.store(lanes.softplus(lanes.load(steps.data, place)), steps.data, place)
            return entered

        loop(build, args[1], [], soften)
        return context.get_dummy_value()

    return types.void(steps, types.intp), generate


def _enter(gathers: bool, keeps: bool) -> Any:
    @intrinsic
    def enter(
        typing_context: Any,
        steps: Any,
        values: Any,
        token: Any,
        count: Any,
        rate: Any,
        selected: Any,
        width: Any,
        B: Any,
        state: Any,
        rows: Any,
        row: Any,
        columns: Any,
        column: Any,
        tokens: Any,
        place: Any,
    ) -> Any:
        """Decay and input of `count` tokens of a row, of which number `token` is the first.

        What `keeps` stores them in `tokens` `(n, 2, LANES)` from `place` on. What `gathers` walks along the
        row, from `state`, and gathers the decay of the `row` and what it ends with, walked back from zero, in
        `rows` `(h, 2, LANES)`; in `columns` `(w, 3, LANES)`, from `column` on, the decay of columns and what
        they end with, walked down and up. B is a number of a token of `selected`, which has `width`.
        """

        def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
            lanes = Lanes(build)
            steps, values, rate, selected, state, rows, columns, tokens = (
                context.make_array(signature.args[i])(context, build, args[i])
                for i in (0, 1, 4, 5, 8, 9, 11, 13)
            )
            first, count, width, B, row, column, place = (args[i] for i in (2, 3, 6, 7, 10, 12, 14))

            def constant(value: int) -> Any:
                return ir.Constant(count.type, value)

            rates, least = lanes.load(rate.data, constant(0)), lanes.constant(_LEAST)
            ahead = constant(_AHEAD) if gathers else build.extract_value(columns.shape, 0)

            def step(i: Any, entered: list[Any]) -> list[Any]:
                token = build.add(first, i)
                further = build.add(token, ahead)  # an address outside of the arrays is harmless
                fetch(build, build.gep(values.data, [build.mul(further, constant(LANES))]))
                fetch(build, build.gep(selected.data, [build.mul(further, width)]))
                dt = lanes.load(steps.data, build.mul(i, constant(LANES)))
                decay = lanes.exp2(lanes.mul(dt, rates))
                weight = lanes.everywhere(selected.data, build.add(build.mul(token, width), B))
                value = lanes.load(values.data, build.mul(token, constant(LANES)))
                added = lanes.mul(dt, lanes.mul(weight, value))
                if keeps:
                    at = build.mul(build.add(place, i), constant(2 * LANES))
                    lanes.store(decay, tokens.data, at)
                    lanes.store(added, tokens.data, build.add(at, constant(LANES)))
                if not gathers:
                    return entered
                line = build.mul(build.add(column, i), constant(3 * LANES))
                lines = [build.add(line, constant(k * LANES)) for k in range(3)]
                whole, down, up = (lanes.load(columns.data, line) for line in lines)
                lanes.store(lanes.larger(lanes.mul(whole, decay), least), columns.data, lines[0])
                lanes.store(lanes.fma(decay, down, added), columns.data, lines[1])
                lanes.store(lanes.fma(whole, added, up), columns.data, lines[2])
                along, whole, back = entered
                return [
                    lanes.fma(decay, along, added),
                    lanes.larger(lanes.mul(whole, decay), least),
                    lanes.fma(whole, added, back),
                ]

            line = build.mul(row, constant(2 * LANES))
            places = [(state, constant(0)), (rows, line), (rows, build.add(line, constant(LANES)))]
            places = places if gathers else []
            entered = [lanes.load(array.data, place) for array, place in places]
            for last, (array, place) in zip(loop(build, count, entered, step), places, strict=True):
                lanes.store(last, array.data, place)
            return context.get_dummy_value()

        i = types.intp
        kinds = (steps, values, i, i, rate, selected, i, i, state, rows, i, columns, i, tokens, i)
        return types.void(*kinds), generate

    return enter


_gather, _keep, _gather_and_keep = _enter(True, False), _enter(False, True), _enter(True, True)


@intrinsic
def _chain(
    typing_context: Any, lines: Any, number: Any, state: Any, first: Any, step: Any, count: Any
) -> Any:
    """Of `lines` `(n, k, LANES)` from `first` by `step`: what they end with becomes what enters them.

    That is number `number` of a line, and 0 its decay. The first is entered by `state`.
    """

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(build)
        lines, state = (context.make_array(signature.args[i])(context, build, args[i]) for i in (0, 2))
        number, first, step, count = (args[i] for i in (1, 3, 4, 5))
        wide = build.mul(build.extract_value(lines.shape, 1), ir.Constant(count.type, LANES))
        offset = build.mul(number, ir.Constant(count.type, LANES))

        def move(i: Any, entered: list[Any]) -> list[Any]:
            line = build.mul(build.add(first, build.mul(i, step)), wide)
            place = build.add(line, offset)
            after = lanes.fma(lanes.load(lines.data, line), entered[0], lanes.load(lines.data, place))
            lanes.store(entered[0], lines.data, place)
            return [after]

        loop(build, count, [lanes.load(state.data, ir.Constant(count.type, 0))], move)
        return context.get_dummy_value()

    i = types.intp
    return types.void(lines, i, state, i, i, i), generate


def _walk(way: int, number: int) -> Any:
    @intrinsic
    def walk(
        typing_context: Any,
        tokens: Any,
        place: Any,
        values: Any,
        token: Any,
        count: Any,
        factor: Any,
        selected: Any,
        width: Any,
        C: Any,
        lines: Any,
        line: Any,
        columns: Any,
        column: Any,
    ) -> Any:
        """Adds to `values` what orders give in `count` tokens of a row, after which their states are further.

        The state of the order along the row, `way` 1, or back, -1, is vector number `line` of `lines`; the
        former multiplies values by `factor` before. That of an order along columns is `number` in `columns`
        `(w, 3, LANES)`. Each may be 0, none. For the rest see `_enter`.
        """

        def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
            lanes = Lanes(build)
            tokens, values, factor, selected, lines, columns = (
                context.make_array(signature.args[i])(context, build, args[i]) for i in (0, 2, 5, 6, 9, 11)
            )
            place, first, count, width, C, line, column = (args[i] for i in (1, 3, 4, 7, 8, 10, 12))

            def constant(value: int) -> Any:
                return ir.Constant(count.type, value)

            factors, end = lanes.load(factor.data, constant(0)), build.sub(count, constant(1))

            def move(i: Any, entered: list[Any]) -> list[Any]:
                i = build.sub(end, i) if way < 0 else i
                token, at = build.add(first, i), build.mul(build.add(place, i), constant(2 * LANES))
                own = build.mul(token, constant(LANES))
                decay = lanes.load(tokens.data, at)
                added = lanes.load(tokens.data, build.add(at, constant(LANES)))
                states = [lanes.fma(decay, state, added) for state in entered]
                total = states[-1] if states else None
                if number:
                    line = build.mul(build.add(column, i), constant(3 * LANES))
                    line = build.add(line, constant(number * LANES))
                    state = lanes.fma(decay, lanes.load(columns.data, line), added)
                    lanes.store(state, columns.data, line)
                    total = state if total is None else build.fadd(total, state)
                before = lanes.load(values.data, own)
                before = lanes.mul(before, factors) if way > 0 else before
                weight = lanes.everywhere(selected.data, build.add(build.mul(token, width), C))
                lanes.store(lanes.fma(total, weight, before), values.data, own)
                return states

            line = build.mul(line, constant(LANES))
            entered = [lanes.load(lines.data, line)] if way else []
            for last in loop(build, count, entered, move):
                lanes.store(last, lines.data, line)
            return context.get_dummy_value()

        i = types.intp
        kinds = (tokens, i, values, i, i, factor, selected, i, i, lines, i, columns, i)
        return types.void(*kinds), generate

    return walk


_along_and_down, _back, _up = _walk(1, 1), _walk(-1, 0), _walk(0, 2)


@njit(float64(float64, float64, float64, float64), **JIT)
def _start(value, step, rate, weight):
    """What an endless run of one token leaves; see `diffmf_cli.scan.recurrence.start_states`."""
    dt = max(step, 0.0) + math.log1p(math.exp(-abs(step)))
    decay = max(-dt * rate, 1e-12)
    return value * weight / -rate * (decay / -math.expm1(-decay))


_flat, _tokens, _vector = float32[::1], float32[:, ::1], float32[::1]
_three = float32[:, :, ::1]


@njit(int64(int64, int64, int64), **JIT)
def scan_room(h, w, kept):
    """Numbers of room that a task of `scan_in_place` takes."""
    strips = (w - 1) // CHUNK + 1
    return LANES * (CHUNK + 2 * h * kept + 2 * h + 3 * w + h * strips)


@njit(void(_three, _tokens, _three, _tokens, _vector, _vector, int64, int64, int64, int64, _flat), **JIT)
def scan_in_place(all_values, selected, delta_weight, A, D, delta_bias, h, w, block, kept, room):
    """The selective scan of channels `LANES * block` on, whose values become the result.

    Values are `(d / LANES, h * w, LANES)`: a block's lie side by side, or each would use up a line of the
    cache for a part. `selected` `(h * w, ...)` starts with the rank of delta, B and C; `delta_weight` is
    `(d / LANES, rank, LANES)`, `A` `(d, n)`. Decays are kept for `kept` columns: all, or else one `CHUNK`.
    """
    length, rank, width, states = h * w, delta_weight.shape[1], selected.shape[1], A.shape[1]
    first, weight, values = block * LANES, delta_weight[block], all_values[block]
    strips = (w - 1) // CHUNK + 1
    # Side by side in one room: new memory would cost as much as filling it, and it is aligned.
    vectors = room.reshape(-1, LANES)
    steps, vectors = vectors[:CHUNK], vectors[CHUNK:]
    tokens, vectors = vectors[: 2 * h * kept], vectors[2 * h * kept :]
    rows, vectors = vectors[: 2 * h].reshape(h, 2, LANES), vectors[2 * h :]
    columns, vectors = vectors[: 3 * w].reshape(w, 3, LANES), vectors[3 * w :]
    entering = vectors[: h * strips]  # each row's parts, in the order along rows
    flat_selected, flat_steps = selected.reshape(-1), steps.reshape(-1)
    factor = D[first : first + LANES].copy()
    rate, start = np.empty(LANES, np.float32), np.empty((2, LANES), np.float32)
    state = np.empty(LANES, np.float32)
    x = values
    if states > 1:  # they read x again, after the result of the first has taken its place
        x = values.copy()
    for n in range(states):
        B, C = rank + n, rank + states + n
        for end in range(2):
            p = end * (length - 1)
            add_product(
                flat_selected, p * width, width, weight, delta_bias, first, 0, flat_steps, 0, LANES, 1
            )
            for j in range(LANES):
                start[end, j] = _start(x[p, j], steps[0, j], A[first + j, n], selected[p, B])
        for j in range(LANES):
            rate[j] = A[first + j, n] * _LOG2E
        rows[:, 0], rows[:, 1] = _F(1), _F(0)
        columns[:, 0], columns[:, 1:] = _F(1), _F(0)
        put(start[0], state)
        for r in range(h):
            for k in range(strips):
                c = k * CHUNK
                p, count = r * w + c, min(CHUNK, w - c)
                put(state, entering[r * strips + k])
                add_product(
                    flat_selected, p * width, width, weight, delta_bias, first, 0, flat_steps, 0, LANES, count
                )
                _soften(steps, count)
                if kept == w:
                    _gather_and_keep(
                        steps, x, p, count, rate, selected, width, B, state, rows, r, columns, c, tokens, p
                    )
                else:
                    _gather(
                        steps, x, p, count, rate, selected, width, B, state, rows, r, columns, c, tokens, 0
                    )
        _chain(rows, 1, start[1], h - 1, -1, h)
        _chain(columns, 1, start[0], 0, 1, w)
        _chain(columns, 2, start[1], w - 1, -1, w)
        for k in range(strips - 1, -1, -1):
            c = k * CHUNK
            count, column = min(CHUNK, w - c), c if kept == w else 0
            for r in range(h):
                p, place = r * w + c, r * kept + column
                if kept < w:
                    add_product(
                        flat_selected,
                        p * width,
                        width,
                        weight,
                        delta_bias,
                        first,
                        0,
                        flat_steps,
                        0,
                        LANES,
                        count,
                    )
                    _soften(steps, count)
                    _keep(
                        steps,
                        x,
                        p,
                        count,
                        rate,
                        selected,
                        width,
                        B,
                        state,
                        rows,
                        r,
                        columns,
                        c,
                        tokens,
                        place,
                    )
                _along_and_down(
                    tokens,
                    place,
                    values,
                    p,
                    count,
                    factor,
                    selected,
                    width,
                    C,
                    entering,
                    r * strips + k,
                    columns,
                    c,
                )
                _back(
                    tokens, place, values, p, count, factor, selected, width, C, rows, 2 * r + 1, columns, c
                )
            for r in range(h - 1, -1, -1):
                p, place = r * w + c, r * kept + column
                _up(tokens, place, values, p, count, factor, selected, width, C, rows, 0, columns, c)
        factor[:] = _F(1)
