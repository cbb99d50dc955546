"""Matrix products and 3x3 convolutions of a few rows that lie in a core's cache, compiled by numba.

Libraries want large matrices: ours are 32 to 192 wide, and what lies between two of them should not leave the
cache. Also, the one that torch calls runs at half of an AMD core's speed. Importing this compiles what is not
yet in numba's cache.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import float32, int64, njit, types, void
from numba.extending import intrinsic

from diffmf_cli.scan.numba_kernels import JIT, LANES

CHUNK = 24  # tokens that go through several operations together: they fit into the innermost cache


def _registers() -> tuple[int, int]:
    """Rows and vectors of `LANES` whose sums a core holds in registers."""
    from numba import config
    from llvmlite import binding

    features = config.CPU_FEATURES or ("" if config.CPU_NAME else binding.get_host_cpu_features().flatten())
    return (8, 3) if "+avx512f" in features else (6, 1)


_ROWS, _VECTORS = _registers()


def _tile(rows: int, vectors: int) -> Any:
    @intrinsic
    def tile(
        typing_context: Any,
        x: Any,
        x_first: Any,
        x_step: Any,
        depth: Any,
        weight: Any,
        column: Any,
        out: Any,
        out_first: Any,
        out_step: Any,
    ) -> Any:
        def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
            lanes, word = ir.VectorType(ir.FloatType(), LANES), args[1].type
            x_data, weights, out_data = (
                context.make_array(signature.args[i])(context, build, args[i]) for i in (0, 4, 6)
            )

            def constant(value: int) -> Any:
                return ir.Constant(word, value)

            def row(data: Any, first: Any, step: Any, r: int) -> Any:
                return build.gep(data.data, [build.add(first, build.mul(step, constant(r)))])

            def vector(line: Any, v: int) -> Any:
                place = build.gep(line, [build.add(args[5], constant(v * LANES))])
                return build.bitcast(place, lanes.as_pointer())

            outs = [row(out_data, args[7], args[8], r) for r in range(rows)]
            places = [vector(line, v) for line in outs for v in range(vectors)]
            xs = [row(x_data, args[1], args[2], r) for r in range(rows)]
            width = build.extract_value(weights.shape, 1)
            entered = [build.load(place, align=4) for place in places]
            before = build.block
            loop, done = build.append_basic_block("product"), build.append_basic_block("produced")
            build.branch(loop)
            build.position_at_end(loop)
            k = build.phi(word)
            sums = [build.phi(lanes) for _ in places]
            line = build.gep(weights.data, [build.mul(k, width)])
            columns = [build.load(vector(line, v), align=4) for v in range(vectors)]
            nothing = ir.Constant(lanes, ir.Undefined)
            first = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            after = []
            for r in range(rows):
                one = build.load(build.gep(xs[r], [k]), align=4)
                one = build.insert_element(nothing, one, ir.Constant(ir.IntType(32), 0))
                all_lanes = build.shuffle_vector(one, nothing, first)
                for v in range(vectors):
                    product = build.fmul(all_lanes, columns[v], flags=["contract"])
                    after.append(build.fadd(product, sums[r * vectors + v], flags=["contract"]))
            k_next = build.add(k, constant(1))
            k.add_incoming(constant(0), before)
            k.add_incoming(k_next, loop)
            for total, old, new in zip(sums, entered, after, strict=True):
                total.add_incoming(old, before)
                total.add_incoming(new, loop)
            build.cbranch(build.icmp_signed("<", k_next, args[3]), loop, done)
            build.position_at_end(done)
            for place, total in zip(places, after, strict=True):
                build.store(total, place, align=4)
            return context.get_dummy_value()

        return types.void(x, *[types.intp] * 3, weight, types.intp, out, *[types.intp] * 2), generate

    return tile


_rows_1, _rows_2, _rows_3 = (_tile(_ROWS, v) for v in (1, 2, 3))
_row_1, _row_2, _row_3 = (_tile(1, v) for v in (1, 2, 3))
_flat, _tokens, _vector = float32[::1], float32[:, ::1], float32[::1]


@njit(void(_flat, int64, int64, _tokens, _flat, int64, int64, int64), **JIT)
def add_product(x, x_first, x_step, weight, out, out_first, out_step, count):
    """`out += x @ weight` for `count` rows, which start every `x_step` and `out_step` numbers.

    Rows of `x` may overlap, as windows of a convolution do. `weight` is `(depth, width)`, width a multiple of
    `LANES`. Every sum runs in one order, whatever `count` is.
    """
    depth, width = weight.shape
    column = 0
    while column < width:
        left = (width - column) // LANES
        vectors = min(2 if left == 4 else left, _VECTORS)
        i = 0
        while i < count:
            rows = _ROWS if i + _ROWS <= count else 1
            a, b = x_first + i * x_step, out_first + i * out_step
            if rows == 1:
                if vectors == 3:
                    _row_3(x, a, x_step, depth, weight, column, out, b, out_step)
                elif vectors == 2:
                    _row_2(x, a, x_step, depth, weight, column, out, b, out_step)
                else:
                    _row_1(x, a, x_step, depth, weight, column, out, b, out_step)
            elif vectors == 3:
                _rows_3(x, a, x_step, depth, weight, column, out, b, out_step)
            elif vectors == 2:
                _rows_2(x, a, x_step, depth, weight, column, out, b, out_step)
            else:
                _rows_1(x, a, x_step, depth, weight, column, out, b, out_step)
            i += rows
        column += vectors * LANES


@njit(void(_flat, _flat, _flat, int64, int64, float32[:, :, ::1], _flat, int64, int64), **JIT)
def convolve(upper, middle, lower, first, step, weight, out, out_first, count):
    """Adds a 3x3 convolution of three rows to `count` groups of pixels of `out`, side by side.

    A group is as many pixels as fill whole `LANES`. Its window starts at number `first` of the rows, the next
    group's `step` numbers later. `weight` is `(3, numbers in a window's row, numbers in a group)`.
    """
    width = weight.shape[2]
    for i in range(0, count, CHUNK):
        n, x_first, at = min(CHUNK, count - i), first + i * step, out_first + i * width
        add_product(upper, x_first, step, weight[0], out, at, width, n)
        add_product(middle, x_first, step, weight[1], out, at, width, n)
        add_product(lower, x_first, step, weight[2], out, at, width, n)
