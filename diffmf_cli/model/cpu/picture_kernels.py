"""The stems and the decoder, row by row of the picture, compiled by numba.

No map of full or half resolution exists in memory: every convolution keeps the last rows of its input in a
ring of four, and asks for the next row when it needs it. Rows are flat: a pixel of border, the pixels, their
channels side by side, a pixel of border. Importing this compiles what is not yet in numba's cache. For the
form of weights see `convolve` and `convolve_tiles`; biases are those of a group of pixels.
"""

import numpy as np
from numba import boolean, float32, int64, njit, void

from diffmf_cli.model.cpu.pointwise_kernels import leaky_relu, sigmoid
from diffmf_cli.model.cpu.product_kernels import convolve
from diffmf_cli.model.cpu.winograd_kernels import (
    AT_ONCE,
    POINTS,
    TILE,
    convolve_tiles,
    room_for,
    transform_row,
)
from diffmf_cli.scan.numba_kernels import JIT, put

_F = np.float32
_COLUMNS = 176  # of a tile, in quarters: the rings fit into the second cache
_STEM_HALO, _DECODER_HALO = 4, 4  # quarters that a tile sees beyond its columns: at least what reaches it
_flat, _vector, _tokens = float32[::1], float32[::1], float32[:, ::1]
_weight, _halves, _index = float32[:, :, ::1], float32[:, :, :, ::1], int64[::1]


@njit(void(_flat, int64, int64), **JIT)
def _border(line, pixels, channels):
    end = (pixels + 1) * channels
    put(line[channels : 2 * channels], line[:channels])
    put(line[end - channels : end], line[end : end + channels])


@njit(void(_flat, int64, int64), **JIT)
def _activate(line, pixels, channels):
    """LeakyReLU, and the border repeated."""
    leaky_relu(line[channels : (pixels + 1) * channels])
    _border(line, pixels, channels)


@njit(void(_tokens, int64, int64, int64, _weight, _flat, int64, _flat, int64, int64), **JIT)
def _convolve(ring, row, last, step, weight, start, start_step, line, first, count):
    """`convolve` of the rows around `row`, of which `last` is the last one, into `line`."""
    upper, middle, lower = ring[max(row - 1, 0) & 3], ring[row & 3], ring[min(row + 1, last) & 3]
    convolve(upper, middle, lower, 0, step, weight, start, start_step, line, first, count)


@njit(void(_halves, int64, int64, int64, _weight, _flat, _flat, int64, boolean, _weight), **JIT)
def _convolve_tiles(ring, row, last, tiles, weight, start, line, channels, leaky, sums):
    """`convolve_tiles` of rows around `row`, of which `last` is the last one, into `line` after its border.

    `start` is a bias, or a line whose numbers are added.
    """
    upper, middle, lower = ring[max(row - 1, 0) & 3], ring[row & 3], ring[min(row + 1, last) & 3]
    width = weight.shape[2]
    if start.size > width:
        convolve_tiles(upper, middle, lower, tiles, weight, start[width:], width, line, channels, leaky, sums)
    else:
        convolve_tiles(upper, middle, lower, tiles, weight, start, 0, line, channels, leaky, sums)


@njit(
    int64(_tokens, _index, _index, int64, int64, int64, int64, _tokens, _weight, _vector, int64, _flat),
    **JIT,
)
def _detail_row(picture, rows, columns, first, pixels, row, ready, ring, weight, bias, channels, line):
    """`Stem.detail` of one row from column `first` on; the next picture's row that the ring lacks."""
    last = rows.size - 1
    while ready <= min(row + 1, last):
        values, source = ring[ready & 3], picture[rows[ready]]
        for i in range(pixels + 2):
            values[i] = source[columns[min(max(first + i - 1, 0), columns.size - 1)]]
        ready += 1
    group = bias.size // channels
    _convolve(ring, row, last, group, weight, bias, 0, line, channels, pixels // group)
    _activate(line, pixels, channels)
    return ready


@njit(
    void(
        _tokens,
        _index,
        _index,
        int64,
        int64,
        _weight,
        _vector,
        _weight,
        _vector,
        _weight,
        _vector,
        _tokens,
    ),
    **JIT,
)
def stem(
    picture,
    rows,
    columns,
    top,
    bottom,
    full_weight,
    full_bias,
    half_weight,
    half_bias,
    quarter_weight,
    quarter_bias,
    out,
):
    """`Stem` of a picture whose padded rows and columns are `rows` and `columns` of it.

    Fills rows `top` to `bottom` of `out` `(h * w, C)`.
    """
    c, w = quarter_bias.size, columns.size // 4
    halved, quartered = c // 2, c // 4
    widest = min(_COLUMNS + 2 * _STEM_HALO, w)
    pictures = np.empty((4, 4 * widest + 2), np.float32)
    details = np.empty((4, (4 * widest + 2) * quartered), np.float32)
    halves = np.empty((4, (2 * widest + 2) * halved), np.float32)
    flat_out = out.reshape(-1)
    group = half_bias.size // halved
    for left in range(0, w, _COLUMNS):
        right = min(left + _COLUMNS, w)
        start, end = max(left - _STEM_HALO, 0), min(right + _STEM_HALO, w)
        pixels = 4 * (end - start)
        next_half = max(2 * top - 1, 0)
        next_detail = max(2 * next_half - 1, 0)
        ready = max(next_detail - 1, 0)
        for q in range(top, bottom):
            while next_half <= 2 * q + 1:
                while next_detail <= 2 * next_half + 1:
                    ready = _detail_row(
                        picture,
                        rows,
                        columns,
                        4 * start,
                        pixels,
                        next_detail,
                        ready,
                        pictures,
                        full_weight,
                        full_bias,
                        quartered,
                        details[next_detail & 3],
                    )
                    next_detail += 1
                line, count = halves[next_half & 3], pixels // 2 // group
                _convolve(
                    details,
                    2 * next_half,
                    rows.size - 1,
                    2 * group * quartered,
                    half_weight,
                    half_bias,
                    0,
                    line,
                    halved,
                    count,
                )
                _activate(line, pixels // 2, halved)
                next_half += 1
            at, window = (q * w + left) * c, 2 * (left - start) * halved
            upper, middle, lower = halves[max(2 * q - 1, 0) & 3], halves[(2 * q) & 3], halves[(2 * q + 1) & 3]
            convolve(
                upper,
                middle,
                lower,
                window,
                2 * halved,
                quarter_weight,
                quarter_bias,
                0,
                flat_out,
                at,
                right - left,
            )


@njit(
    void(
        _tokens,
        _tokens,
        _tokens,
        _index,
        _index,
        int64,
        int64,
        int64,
        _weight,
        _vector,
        _weight,
        _vector,
        _weight,
        _vector,
        _weight,
        _halves,
        _tokens,
        _halves,
        _tokens,
        _weight,
        _vector,
        _weight,
        _vector,
        _tokens,
    ),
    **JIT,
)
def decode(
    features,
    ir,
    vis,
    rows,
    columns,
    margin,
    top,
    bottom,
    ir_weight,
    ir_bias,
    vis_weight,
    vis_bias,
    first_weight,
    first_bias,
    second_weight,
    half_weight,
    half_bias,
    full_weight,
    full_bias,
    merge_weight,
    merge_bias,
    out_weight,
    out_bias,
    out,
):
    """`Decoder` after its first convolution, `features` `(h * w, C)`, to the picture `out` without margins.

    Fills what is in `out` of rows `4 * top` to `4 * bottom` of the padded picture. The bias of its second
    convolution lies in that of the third. The weights before a pixel shuffle are two, of the upper and the
    lower row. All weights but those of details and of the last convolution are as in `convolve_tiles`.
    """
    c, h, w = first_bias.size, rows.size // 4, columns.size // 4
    height, halved, quartered = 4 * h, c // 2, c // 4
    widest = min(_COLUMNS + 2 * _DECODER_HALO, w)
    inputs = np.empty((4, (widest + 2) * c), np.float32)
    quarter = np.empty((widest + 2) * c, np.float32)
    half = np.empty((2 * widest + 2) * halved, np.float32)
    full = np.empty((4 * widest + 2) * quartered, np.float32)
    merged = np.empty((4, full.size), np.float32)
    ir_rows, vis_rows = (
        np.empty((4, 4 * widest + 2), np.float32),
        np.empty((4, 4 * widest + 2), np.float32),
    )
    result = np.empty(4 * widest, np.float32)
    # Rows as convolutions take them; pixels beyond their ends are computed, but not used.
    inputs_tiles = np.zeros((4, POINTS, room_for(widest), c), np.float32)
    between_tiles, quarter_tiles = np.zeros_like(inputs_tiles), np.zeros_like(inputs_tiles)
    half_tiles = np.zeros((4, POINTS, room_for(2 * widest), halved), np.float32)
    full_tiles = np.zeros((4, POINTS, room_for(4 * widest), 3 * quartered), np.float32)
    c_sums = np.empty((POINTS, AT_ONCE, c), np.float32)
    half_sums = np.empty((POINTS, AT_ONCE, halved), np.float32)
    quarter_sums = np.empty((POINTS, AT_ONCE, quartered), np.float32)
    out_group = out_bias.size
    for left in range(0, w, _COLUMNS):
        right = min(left + _COLUMNS, w)
        start, end = max(left - _DECODER_HALO, 0), min(right + _DECODER_HALO, w)
        width = end - start
        tiles, pixels = width // TILE, 4 * width
        next_merged, next_full = max(4 * top - 1, 0), max(4 * top - 2, 0)
        next_half, next_quarter = max(2 * top - 2, 0), max(top - 2, 0)
        next_between, next_input = max(top - 3, 0), max(top - 4, 0)
        next_detail = next_full
        ir_ready = max(next_detail - 1, 0)
        vis_ready = ir_ready
        for row in range(4 * top, 4 * bottom):
            while next_merged <= min(row + 1, height - 1):
                while next_full <= min(next_merged + 1, height - 1):
                    p = next_full // 2
                    while next_half <= min(p + 1, height // 2 - 1):
                        q = next_half // 2
                        while next_quarter <= min(q + 1, h - 1):
                            while next_between <= min(next_quarter + 1, h - 1):
                                while next_input <= min(next_between + 1, h - 1):
                                    line = inputs[next_input & 3]
                                    for i in range(width):
                                        pixel = features[next_input * w + start + i]
                                        put(pixel, line[(i + 1) * c : (i + 2) * c])
                                    _border(line, width, c)
                                    transform_row(line, c, tiles, inputs_tiles[next_input & 3], 0)
                                    next_input += 1
                                _convolve_tiles(
                                    inputs_tiles,
                                    next_between,
                                    h - 1,
                                    tiles,
                                    first_weight,
                                    first_bias,
                                    quarter,
                                    c,
                                    True,
                                    c_sums,
                                )
                                _border(quarter, width, c)
                                transform_row(quarter, c, tiles, between_tiles[next_between & 3], 0)
                                next_between += 1
                            own = inputs[next_quarter & 3]
                            _convolve_tiles(
                                between_tiles,
                                next_quarter,
                                h - 1,
                                tiles,
                                second_weight,
                                own,
                                quarter,
                                c,
                                False,
                                c_sums,
                            )
                            _border(quarter, width, c)
                            transform_row(quarter, c, tiles, quarter_tiles[next_quarter & 3], 0)
                            next_quarter += 1
                        for k in range(2):
                            _convolve_tiles(
                                quarter_tiles,
                                q,
                                h - 1,
                                tiles,
                                half_weight[k],
                                half_bias[k],
                                half,
                                halved,
                                True,
                                c_sums,
                            )
                            _border(half, 2 * width, halved)
                            transform_row(half, halved, 2 * tiles, half_tiles[next_half & 3], 0)
                            next_half += 1
                    for k in range(2):
                        last = height // 2 - 1
                        _convolve_tiles(
                            half_tiles,
                            p,
                            last,
                            2 * tiles,
                            full_weight[k],
                            full_bias[k],
                            full,
                            quartered,
                            True,
                            half_sums,
                        )
                        _border(full, pixels, quartered)
                        transform_row(full, quartered, 4 * tiles, full_tiles[next_full & 3], 0)
                        next_full += 1
                while next_detail <= min(next_merged + 1, height - 1):
                    ir_ready = _detail_row(
                        ir,
                        rows,
                        columns,
                        4 * start,
                        pixels,
                        next_detail,
                        ir_ready,
                        ir_rows,
                        ir_weight,
                        ir_bias,
                        quartered,
                        full,
                    )
                    transform_row(full, quartered, 4 * tiles, full_tiles[next_detail & 3], quartered)
                    vis_ready = _detail_row(
                        vis,
                        rows,
                        columns,
                        4 * start,
                        pixels,
                        next_detail,
                        vis_ready,
                        vis_rows,
                        vis_weight,
                        vis_bias,
                        quartered,
                        full,
                    )
                    transform_row(full, quartered, 4 * tiles, full_tiles[next_detail & 3], 2 * quartered)
                    next_detail += 1
                line = merged[next_merged & 3]
                _convolve_tiles(
                    full_tiles,
                    next_merged,
                    height - 1,
                    4 * tiles,
                    merge_weight,
                    merge_bias,
                    line,
                    quartered,
                    True,
                    quarter_sums,
                )
                _border(line, pixels, quartered)
                next_merged += 1
            if margin <= row < margin + out.shape[0]:
                count = pixels // out_group
                step = out_group * quartered
                _convolve(merged, row, height - 1, step, out_weight, out_bias, 0, result, 0, count)
                sigmoid(result[:pixels])
                first, last = max(4 * left, margin), min(4 * right, margin + out.shape[1])
                for i in range(first, last):
                    out[row - margin, i - margin] = result[i - 4 * start]
