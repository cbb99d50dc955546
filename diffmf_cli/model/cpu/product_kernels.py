"""Matrix products and 3x3 convolutions of a few rows that lie in a core's cache, compiled by numba.

Libraries want large matrices: ours are 32 to 192 wide, and what lies between two of them should not leave the
cache. Also, the one that torch calls runs at half of an AMD core's speed. Importing this compiles what is not
yet in numba's cache.
"""

from typing import Any

from llvmlite import binding, ir
from numba import config, float32, int64, njit, types, void
from numba.extending import intrinsic

from diffmf_cli.model.cpu.lanes import Lanes, loop
from diffmf_cli.scan.numba_kernels import JIT, LANES

CHUNK = 24  # tokens that go through several operations together: they fit into the innermost cache


def _registers() -> tuple[int, int]:
    """Rows, and vectors of each, whose sums a core holds in registers."""
    features = config.CPU_FEATURES or ("" if config.CPU_NAME else binding.get_host_cpu_features().flatten())
    return (8, 3) if "+avx512f" in features else (6, 1)


ROWS, VECTORS = _registers()


def multiply(
    lanes: Lanes,
    x: Any,
    rows: list[Any],
    depth: Any,
    weight: Any,
    first: Any,
    width: Any,
    sums: list[Any],
) -> list[Any]:
    """`sums`, a few vectors for each row, and the product of `depth` numbers of each with lines of `weight`.

    Rows begin at those numbers of `x`, lines at number `first` of `weight` and `width` numbers apart.
    """
    build, vectors = lanes.build, len(sums) // len(rows)

    def step(k: Any, sums: list[Any]) -> list[Any]:
        line = build.add(first, build.mul(k, width))
        places = [build.add(line, ir.Constant(line.type, v * lanes.count)) for v in range(vectors)]
        columns = [lanes.load(weight, place) for place in places]
        ones = [lanes.everywhere(x, build.add(row, k)) for row in rows]
        return [lanes.fma(ones[i // vectors], columns[i % vectors], total) for i, total in enumerate(sums)]

    return loop(build, depth, sums, step)


def _tile(rows: int, vectors: int) -> Any:
    @intrinsic
    def tile(
        typing_context: Any,
        x: Any,
        x_first: Any,
        x_step: Any,
        weight: Any,
        column: Any,
        start: Any,
        start_first: Any,
        start_step: Any,
        out: Any,
        out_first: Any,
        out_step: Any,
    ) -> Any:
        """`add_product` of some rows and of the vectors from `column` on."""

        def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
            lanes = Lanes(build)
            x, weight, start, out = (
                context.make_array(signature.args[i])(context, build, args[i]) for i in (0, 3, 5, 8)
            )

            def constant(value: int) -> Any:
                return ir.Constant(args[1].type, value)

            def lines(first: Any, step: Any) -> list[Any]:
                return [build.add(first, build.mul(step, constant(r))) for r in range(rows)]

            def places(line: Any) -> list[Any]:
                first = build.add(line, args[4])
                return [build.add(first, constant(v * LANES)) for v in range(vectors)]

            xs = lines(args[1], args[2])
            starts = [place for line in lines(args[6], args[7]) for place in places(line)]
            outs = [place for line in lines(args[9], args[10]) for place in places(line)]
            depth, width = build.extract_value(weight.shape, 0), build.extract_value(weight.shape, 1)

            sums = [lanes.load(start.data, place) for place in starts]
            sums = multiply(lanes, x.data, xs, depth, weight.data, args[4], width, sums)
            for total, place in zip(sums, outs, strict=True):
                lanes.store(total, out.data, place)
            return context.get_dummy_value()

        integer = types.intp
        kinds = (x, integer, integer, weight, integer, start, integer, integer, out, integer, integer)
        return types.void(*kinds), generate

    return tile


_rows_1, _rows_2, _rows_3 = (_tile(ROWS, v) for v in (1, 2, 3))
_half_1, _half_2, _half_3 = (_tile(ROWS // 2, v) for v in (1, 2, 3))
_row_1, _row_2, _row_3 = (_tile(1, v) for v in (1, 2, 3))
_flat, _tokens = float32[::1], float32[:, ::1]


@njit(void(_flat, int64, int64, _tokens, _flat, int64, int64, _flat, int64, int64, int64), **JIT)
def add_product(x, x_first, x_step, weight, start, start_first, start_step, out, out_first, out_step, count):
    """`out = start + x @ weight` for `count` rows; a row begins every `x_step` numbers, and so on.

    Rows of `x` may overlap, as windows of a convolution do; `start` may be a bias, whose step is 0, or `out`.
    `weight` is `(depth, width)`, width a multiple of `LANES`. Every sum runs in one order, whatever `count`.
    """
    column = 0
    while column < weight.shape[1]:
        left = (weight.shape[1] - column) // LANES
        vectors = min(2 if left == 4 else left, VECTORS)
        i = 0
        while i < count:
            rows = ROWS if i + ROWS <= count else ROWS // 2 if i + ROWS // 2 <= count else 1
            a, b, c = x_first + i * x_step, start_first + i * start_step, out_first + i * out_step
            if rows == ROWS:
                if vectors == 3:
                    _rows_3(x, a, x_step, weight, column, start, b, start_step, out, c, out_step)
                elif vectors == 2:
                    _rows_2(x, a, x_step, weight, column, start, b, start_step, out, c, out_step)
                else:
                    _rows_1(x, a, x_step, weight, column, start, b, start_step, out, c, out_step)
            elif rows > 1:
                if vectors == 3:
                    _half_3(x, a, x_step, weight, column, start, b, start_step, out, c, out_step)
                elif vectors == 2:
                    _half_2(x, a, x_step, weight, column, start, b, start_step, out, c, out_step)
                else:
                    _half_1(x, a, x_step, weight, column, start, b, start_step, out, c, out_step)
            else:
                if vectors == 3:
                    _row_3(x, a, x_step, weight, column, start, b, start_step, out, c, out_step)
                elif vectors == 2:
                    _row_2(x, a, x_step, weight, column, start, b, start_step, out, c, out_step)
                else:
                    _row_1(x, a, x_step, weight, column, start, b, start_step, out, c, out_step)
            i += rows
        column += vectors * LANES


@intrinsic
def copy_lanes(typing_context: Any, x: Any, x_first: Any, out: Any, out_first: Any) -> Any:
    """`LANES` numbers of one flat array to another."""

    def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(build)
        x, out = (context.make_array(signature.args[i])(context, build, args[i]) for i in (0, 2))
        lanes.store(lanes.load(x.data, args[1]), out.data, args[3])
        return context.get_dummy_value()

    return types.void(x, types.intp, out, types.intp), generate


@njit(void(_tokens, _tokens, _flat, _tokens), **JIT)
def linear(x, weight, bias, out):
    """`out = x @ weight + bias` of tokens."""
    depth, width = weight.shape
    add_product(x.reshape(-1), 0, depth, weight, bias, 0, 0, out.reshape(-1), 0, width, x.shape[0])


@njit(void(_flat, _flat, _flat, int64, int64, float32[:, :, ::1], _flat, int64, _flat, int64, int64), **JIT)
def convolve(upper, middle, lower, first, step, weight, start, start_step, out, out_first, count):
    """`out = start +` a 3x3 convolution of three rows, for `count` groups of pixels side by side.

    A group is as many pixels as fill whole `LANES`. Its window begins at number `first` of the rows, the next
    group's `step` numbers later. `weight` is `(3, numbers in a window's row, numbers in a group)`. `start` is
    a bias, whose step is 0, or else `out`.
    """
    width = weight.shape[2]
    for i in range(0, count, CHUNK):
        n, x, at = min(CHUNK, count - i), first + i * step, out_first + i * width
        from_out = 0 if start_step == 0 else at
        add_product(upper, x, step, weight[0], start, from_out, start_step, out, at, width, n)
        add_product(middle, x, step, weight[1], out, at, width, out, at, width, n)
        add_product(lower, x, step, weight[2], out, at, width, out, at, width, n)
