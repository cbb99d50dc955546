"""The selective scan inside the network: in place, and delta exists for a few tokens at a time.

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
from diffmf_cli.scan.numba_kernels import JIT, LANES, fetch

_F = np.float32
_LOG2E = _F(1.4426950408889634)
_AHEAD = 6  # tokens that are asked for early, each in a row of its own: so long an outer cache takes


@intrinsic
def _enter(
    typing_context: Any,
    steps: Any,
    count: Any,
    token: Any,
    x: Any,
    values: Any,
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
        lanes = Lanes(build)
        steps, x, values, factor, rate, B, C, states, tokens = (
            context.make_array(signature.args[i])(context, build, args[i]) for i in (0, *range(3, 11))
        )

        def constant(value: int) -> Any:
            return ir.Constant(args[1].type, value)

        factors, rates = (lanes.load(array.data, constant(0)) for array in (factor, rate))

        def step(i: Any, state: list[Any]) -> list[Any]:
            t = build.add(args[2], i)
            own, at = build.mul(t, constant(LANES)), build.mul(t, constant(2 * LANES))
            given, kept = lanes.load(x.data, own), lanes.load(values.data, own)
            dt = lanes.softplus(lanes.load(steps.data, build.mul(i, constant(LANES))))
            decay = lanes.exp2(lanes.mul(dt, rates))
            added = lanes.mul(dt, lanes.mul(lanes.everywhere(B.data, t), given))
            after = lanes.fma(decay, state[0], added)
            result = lanes.fma(after, lanes.everywhere(C.data, t), lanes.mul(kept, factors))
            lanes.store(result, values.data, own)
            lanes.store(decay, tokens.data, at)
            lanes.store(added, tokens.data, build.add(at, constant(LANES)))
            return [after]

        (last,) = loop(build, args[1], [lanes.load(states.data, constant(0))], step)
        lanes.store(last, states.data, constant(0))
        return context.get_dummy_value()

    integer = types.intp
    kinds = (steps, integer, integer, x, values, factor, rate, B, C, states, tokens)
    return types.void(*kinds), generate


def _walk(orders: int) -> Any:
    @intrinsic
    def walk(
        typing_context: Any,
        tokens: Any,
        values: Any,
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
            lanes = Lanes(build)
            tokens, values, C, states = (
                context.make_array(signature.args[i])(context, build, args[i]) for i in range(4)
            )

            def constant(value: int) -> Any:
                return ir.Constant(args[4].type, value)

            last = build.sub(build.extract_value(values.shape, 0), constant(1))
            ahead = build.mul(args[5], constant(_AHEAD))
            ways = range(2 - orders, 2)  # there, and back

            def move(i: Any, states: list[Any]) -> list[Any]:
                after = []
                p = build.add(args[4], build.mul(i, args[5]))
                for way, state in zip(ways, states, strict=True):
                    token = build.sub(last, p) if way else p
                    further = (build.sub if way else build.add)(token, ahead)
                    # Addresses outside of the arrays are harmless.
                    line = build.gep(tokens.data, [build.mul(further, constant(2 * LANES))])
                    fetch(build, line)
                    fetch(build, build.gep(line, [constant(LANES)]))
                    fetch(build, build.gep(values.data, [build.mul(further, constant(LANES))]))
                    at = build.mul(token, constant(2 * LANES))
                    own = build.mul(token, constant(LANES))
                    decay = lanes.load(tokens.data, at)
                    added = lanes.load(tokens.data, build.add(at, constant(LANES)))
                    after.append(lanes.fma(decay, state, added))
                    total = lanes.fma(
                        after[-1], lanes.everywhere(C.data, token), lanes.load(values.data, own)
                    )
                    lanes.store(total, values.data, own)
                return after

            places = [constant(way * LANES) for way in ways]
            entered = [lanes.load(states.data, place) for place in places]
            for state, place in zip(loop(build, args[6], entered, move), places, strict=True):
                lanes.store(state, states.data, place)
            return context.get_dummy_value()

        integer = types.intp
        return types.void(tokens, values, C, states, *[integer] * 3), generate

    return walk


_walk_back, _walk_both = _walk(1), _walk(2)


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
    now = np.empty((2, LANES), np.float32)
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
        now[:] = start
        for p in range(0, length, CHUNK):
            count = min(CHUNK, length - p)
            add_product(
                flat_selected, p * kept, kept, weight, delta_bias, first, 0, flat_steps, 0, LANES, count
            )
            _enter(steps, count, p, x, values, factor, rate, B, C, now, tokens)
        _walk_back(tokens, values, C, now, 0, 1, length)
        now[:] = start
        for column in range(w):
            _walk_both(tokens, values, C, now, column, w, h)
        factor[:] = _F(1)
