"""3x3 convolutions along rows with half of the products, compiled by numba.

Winograd's minimal filtering F(4, 3) (Lavin & Gray 2016, arXiv 1509.09308, section 4.1): a tile of four pixels
of a row needs six products for each pair of channels instead of twelve. Every row is transformed once, which
gives each tile six points; products of each point run over three rows and all channels; their sums become
four pixels again. Pixels of a tile keep their rounding wherever the tile lies. Importing this compiles what
is not yet in numba's cache.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import boolean, float32, int64, njit, types, void
from numba.extending import intrinsic

from diffmf_cli.model.cpu.lanes import Lanes, loop
from diffmf_cli.model.cpu.product_kernels import ROWS, VECTORS, multiply
from diffmf_cli.scan.numba_kernels import JIT, LANES

TILE, POINTS = 4, 6  # pixels, and points that they become
AT_ONCE = 48  # tiles whose sums lie in the second cache: a multiple of all numbers of rows below
_NARROW_ROWS = 12  # of one vector of few lanes
# What a point of a tile is of three weights of a row; see `_transform` and `_back` for pixels.
_WEIGHTS = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24


def winograd_weights(weight: np.ndarray) -> np.ndarray:
    """A convolution `(outputs, inputs, 3, 3)` as `convolve_tiles` takes it, `(6, 3 * inputs, outputs)`."""
    points = np.einsum("pk,oirk->prio", _WEIGHTS, weight)
    return points.reshape(POINTS, -1, len(weight))


@njit(int64(int64), **JIT)
def room_for(pixels):
    """Tiles of a transformed row of so many pixels: whole `AT_ONCE`, since products take several rows."""
    return -(-pixels // (TILE * AT_ONCE)) * AT_ONCE


def _transform(lanes_count: int) -> Any:
    @intrinsic
    def transform(
        typing_context: Any, x: Any, first: Any, channels: Any, out: Any, column: Any, tiles: Any
    ) -> Any:
        """`transform_row` of the channels from `first` of `x`, and `column` of `out`, on."""

        def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
            lanes = Lanes(build, lanes_count)
            x, out = (context.make_array(signature.args[i])(context, build, args[i]) for i in (0, 3))
            first, channels, column, tiles = (args[i] for i in (1, 2, 4, 5))
            room, depth = build.extract_value(out.shape, 1), build.extract_value(out.shape, 2)
            point = build.mul(room, depth)
            two, minus_four, minus_five = (lanes.constant(n) for n in (2, -4, -5))

            def constant(value: int) -> Any:
                return ir.Constant(first.type, value)

            def step(tile: Any, entered: list[Any]) -> list[Any]:
                start = build.add(first, build.mul(build.mul(tile, constant(TILE)), channels))
                pixels = [build.add(start, build.mul(channels, constant(i))) for i in range(POINTS)]
                a, b, c, d, e, f = (lanes.load(x.data, pixel) for pixel in pixels)
                even, odd = lanes.fma(c, minus_four, e), lanes.fma(b, minus_four, d)
                outer, inner = lanes.sub(e, c), lanes.mul(lanes.sub(d, b), two)
                points = [
                    lanes.sub(lanes.fma(c, minus_five, e), lanes.mul(a, minus_four)),
                    lanes.add(even, odd),
                    lanes.sub(even, odd),
                    lanes.add(outer, inner),
                    lanes.sub(outer, inner),
                    lanes.sub(lanes.fma(d, minus_five, f), lanes.mul(b, minus_four)),
                ]
                at = build.add(column, build.mul(tile, depth))
                for i, value in enumerate(points):
                    lanes.store(value, out.data, build.add(at, build.mul(point, constant(i))))
                return entered

            loop(build, tiles, [], step)
            return context.get_dummy_value()

        i = types.intp
        return types.void(x, i, i, out, i, i), generate

    return transform


_transform_wide, _transform_half, _transform_quarter = (
    _transform(n) for n in (LANES, LANES // 2, LANES // 4)
)
_flat, _tokens, _three = float32[::1], float32[:, ::1], float32[:, :, ::1]


@njit(void(_flat, int64, int64, _three, int64), **JIT)
def transform_row(x, channels, tiles, out, column):
    """The points of a row's tiles: a pixel of border, `4 * tiles` pixels, a pixel of border, channels last.

    They lie in `out` `(6, room, depth)`, whose columns are channels, from `column` on. `channels` is a
    multiple of 4.
    """
    if channels % LANES == 0:
        for j in range(0, channels, LANES):
            _transform_wide(x, j, channels, out, column + j, tiles)
    elif channels % (LANES // 2) == 0:
        for j in range(0, channels, LANES // 2):
            _transform_half(x, j, channels, out, column + j, tiles)
    else:
        for j in range(0, channels, LANES // 4):
            _transform_quarter(x, j, channels, out, column + j, tiles)


def _products(rows: int, vectors: int, lanes_count: int) -> Any:
    @intrinsic
    def products(
        typing_context: Any,
        upper: Any,
        middle: Any,
        lower: Any,
        point: Any,
        tile: Any,
        weight: Any,
        column: Any,
        out: Any,
        row: Any,
    ) -> Any:
        """Sums of one point of `rows` tiles, of the outputs from `column` on, from `row` of `out` on."""

        def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
            lanes = Lanes(build, lanes_count)
            *sources, weight, out = (
                context.make_array(signature.args[i])(context, build, args[i]) for i in (0, 1, 2, 5, 7)
            )
            point, tile, column, row = (args[i] for i in (3, 4, 6, 8))

            def constant(value: int) -> Any:
                return ir.Constant(point.type, value)

            def line(array: Any, second: Any) -> Any:
                """Where that line of the point begins."""
                _, lines, numbers = (build.extract_value(array.shape, i) for i in range(3))
                return build.mul(build.add(build.mul(point, lines), second), numbers)

            depth, width = (build.extract_value(a.shape, 2) for a in (sources[0], out))
            sums = [lanes.constant(0)] * (rows * vectors)
            for k, source in enumerate(sources):
                firsts = [line(source, build.add(tile, constant(r))) for r in range(rows)]
                first = build.add(line(weight, build.mul(depth, constant(k))), column)
                sums = multiply(lanes, source.data, firsts, depth, weight.data, first, width, sums)
            for i, total in enumerate(sums):
                at = build.add(line(out, build.add(row, constant(i // vectors))), column)
                lanes.store(total, out.data, build.add(at, constant(i % vectors * lanes_count)))
            return context.get_dummy_value()

        i = types.intp
        return types.void(upper, middle, lower, i, i, weight, i, out, i), generate

    return products


_products_1, _products_2, _products_3 = (_products(ROWS, v, LANES) for v in (1, 2, 3))
_products_half, _products_quarter = (_products(_NARROW_ROWS, 1, n) for n in (LANES // 2, LANES // 4))


@njit(void(_three, _three, _three, int64, int64, int64, _three, _three), **JIT)
def _add_up(upper, middle, lower, point, first, count, weight, sums):
    """One point of `count` tiles from `first` on, and of some after them: `sums` `(6, AT_ONCE, outputs)`."""
    width, column = sums.shape[2], 0
    while column < width:
        if width % LANES == 0:
            left = (width - column) // LANES
            vectors = min(2 if left == 4 else left, VECTORS)
            for i in range(0, count, ROWS):
                if vectors == 3:
                    _products_3(upper, middle, lower, point, first + i, weight, column, sums, i)
                elif vectors == 2:
                    _products_2(upper, middle, lower, point, first + i, weight, column, sums, i)
                else:
                    _products_1(upper, middle, lower, point, first + i, weight, column, sums, i)
            column += vectors * LANES
        else:
            half = width % (LANES // 2) == 0
            for i in range(0, count, _NARROW_ROWS):
                if half:
                    _products_half(upper, middle, lower, point, first + i, weight, column, sums, i)
                else:
                    _products_quarter(upper, middle, lower, point, first + i, weight, column, sums, i)
            column += LANES // 2 if half else LANES // 4


def _back(lanes_count: int, leaky: bool) -> Any:
    @intrinsic
    def back(
        typing_context: Any,
        sums: Any,
        column: Any,
        start: Any,
        start_first: Any,
        start_step: Any,
        out: Any,
        first: Any,
        tiles: Any,
    ) -> Any:
        """Pixels of the outputs from `column` on, added to `start` and, if so, through LeakyReLU."""

        def generate(context: Any, build: Any, signature: Any, args: Any) -> Any:
            lanes = Lanes(build, lanes_count)
            sums, start, out = (
                context.make_array(signature.args[i])(context, build, args[i]) for i in (0, 2, 5)
            )
            column, start_first, start_step, first, tiles = (args[i] for i in (1, 3, 4, 6, 7))
            width = build.extract_value(sums.shape, 2)
            point = build.mul(build.extract_value(sums.shape, 1), width)
            two, four, eight, slope = (lanes.constant(n) for n in (2, 4, 8, 0.1))

            def constant(value: int) -> Any:
                return ir.Constant(width.type, value)

            def step(tile: Any, entered: list[Any]) -> list[Any]:
                at = build.add(column, build.mul(tile, width))
                places = [build.add(at, build.mul(point, constant(i))) for i in range(POINTS)]
                a, b, c, d, e, f = (lanes.load(sums.data, place) for place in places)
                near, far = lanes.add(b, c), lanes.add(d, e)
                near_odd, far_odd = lanes.sub(b, c), lanes.sub(d, e)
                pixels = [
                    lanes.add(lanes.add(a, near), far),
                    lanes.fma(far_odd, two, near_odd),
                    lanes.fma(far, four, near),
                    lanes.add(lanes.fma(far_odd, eight, near_odd), f),
                ]
                for i, value in enumerate(pixels):
                    pixel = build.add(build.mul(tile, constant(TILE)), constant(i))
                    known = build.add(build.add(start_first, column), build.mul(pixel, start_step))
                    value = lanes.add(value, lanes.load(start.data, known))
                    if leaky:
                        value = lanes.larger(value, lanes.mul(value, slope))
                    place = build.add(build.add(first, column), build.mul(pixel, width))
                    lanes.store(value, out.data, place)
                return entered

            loop(build, tiles, [], step)
            return context.get_dummy_value()

        i = types.intp
        return types.void(sums, i, start, i, i, out, i, i), generate

    return back


_wide, _half, _quarter = (_back(n, False) for n in (LANES, LANES // 2, LANES // 4))
_leaky_wide, _leaky_half, _leaky_quarter = (_back(n, True) for n in (LANES, LANES // 2, LANES // 4))


@njit(void(_three, _three, _three, int64, _three, _flat, int64, _flat, int64, boolean, _three), **JIT)
def convolve_tiles(upper, middle, lower, tiles, weight, start, start_step, out, first, leaky, sums):
    """`out = start +` a 3x3 convolution of three transformed rows, one pixel after the other from `first` on.

    `start` is a bias, whose step is 0, or has the numbers of a pixel every `start_step`. Where
    `leaky`, LeakyReLU of slope 0.1 follows. `sums` is room, `(6, AT_ONCE, outputs)`; `outputs` is a multiple
    of 4. See `transform_row` for rows and `winograd_weights` for `weight`.
    """
    width = weight.shape[2]
    for tile in range(0, tiles, AT_ONCE):
        count = min(AT_ONCE, tiles - tile)
        for point in range(POINTS):
            _add_up(upper, middle, lower, point, tile, count, weight, sums)
        at = first + TILE * tile * width
        known = TILE * tile * start_step
        column = 0
        while column < width:
            if width % LANES == 0:
                if leaky:
                    _leaky_wide(sums, column, start, known, start_step, out, at, count)
                else:
                    _wide(sums, column, start, known, start_step, out, at, count)
                column += LANES
            elif width % (LANES // 2) == 0:
                if leaky:
                    _leaky_half(sums, column, start, known, start_step, out, at, count)
                else:
                    _half(sums, column, start, known, start_step, out, at, count)
                column += LANES // 2
            else:
                if leaky:
                    _leaky_quarter(sums, column, start, known, start_step, out, at, count)
                else:
                    _quarter(sums, column, start, known, start_step, out, at, count)
                column += LANES // 4
