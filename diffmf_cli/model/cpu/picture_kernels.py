"""The stems and the decoder, row by row of the picture, compiled by numba.

No map of full or half resolution exists in memory: every convolution keeps the last rows of its input in a
ring of four, and asks for the next row when it needs it. Rows are flat: a pixel of border, the pixels, their
channels side by side, a pixel of border. Importing this compiles what is not yet in numba's cache. For the
form of weights see `convolve`; biases are those of a group of pixels.
"""

import numpy as np
from numba import float32, int64, njit, void

from diffmf_cli.model.cpu.pointwise_kernels import leaky_relu, sigmoid
from diffmf_cli.model.cpu.product_kernels import convolve
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


@njit(
    int64(_tokens, _index, _index, int64, int64, int64, int64, _tokens, _weight, _vector, int64, _tokens),
    **JIT,
)
def _detail_row(picture, rows, columns, first, pixels, row, ready, ring, weight, bias, channels, line_ring):
    """`Stem.detail` of one row from column `first` on; the next picture's row that the ring lacks."""
    last = rows.size - 1
    while ready <= min(row + 1, last):
        line, source = ring[ready & 3], picture[rows[ready]]
        for i in range(pixels + 2):
            line[i] = source[columns[min(max(first + i - 1, 0), columns.size - 1)]]
        ready += 1
    group = bias.size // channels
    line, count = line_ring[row & 3], pixels // group
    _convolve(ring, row, last, group, weight, bias, 0, line, channels, count)
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
                        details,
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
        _weight,
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
    merge_own,
    merge_ir,
    merge_vis,
    merge_bias,
    out_weight,
    out_bias,
    out,
):
    """`Decoder` after its first convolution, `features` `(h * w, C)`, to the picture `out` without margins.

    Fills what is in `out` of rows `4 * top` to `4 * bottom` of the padded picture. The bias of its second
    convolution lies in that of the third. The weights before a pixel shuffle are two, of the upper and the
    lower row; a group holds what lies side by side in a row.
    """
    c, h, w = first_bias.size, rows.size // 4, columns.size // 4
    height, halved, quartered = 4 * h, c // 2, c // 4
    widest = min(_COLUMNS + 2 * _DECODER_HALO, w)
    inputs = np.empty((4, (widest + 2) * c), np.float32)
    between, quarters = np.empty_like(inputs), np.empty_like(inputs)
    halves = np.empty((4, (2 * widest + 2) * halved), np.float32)
    fulls = np.empty((4, (4 * widest + 2) * quartered), np.float32)
    ir_details, vis_details, merged = np.empty_like(fulls), np.empty_like(fulls), np.empty_like(fulls)
    ir_rows, vis_rows = (
        np.empty((4, 4 * widest + 2), np.float32),
        np.empty((4, 4 * widest + 2), np.float32),
    )
    result = np.empty(4 * widest, np.float32)
    half_group, full_group = full_bias.shape[1] // (2 * quartered), merge_bias.size // quartered
    out_group = out_bias.size
    for left in range(0, w, _COLUMNS):
        right = min(left + _COLUMNS, w)
        start, end = max(left - _DECODER_HALO, 0), min(right + _DECODER_HALO, w)
        width = end - start
        pixels = 4 * width
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
                                    next_input += 1
                                line = between[next_between & 3]
                                _convolve(
                                    inputs,
                                    next_between,
                                    h - 1,
                                    c,
                                    first_weight,
                                    first_bias,
                                    0,
                                    line,
                                    c,
                                    width,
                                )
                                _activate(line, width, c)
                                next_between += 1
                            line = quarters[next_quarter & 3]
                            own = inputs[next_quarter & 3]
                            _convolve(between, next_quarter, h - 1, c, second_weight, own, c, line, c, width)
                            _border(line, width, c)
                            next_quarter += 1
                        for k in range(2):
                            line = halves[next_half & 3]
                            _convolve(
                                quarters, q, h - 1, c, half_weight[k], half_bias[k], 0, line, halved, width
                            )
                            _activate(line, 2 * width, halved)
                            next_half += 1
                    for k in range(2):
                        line, count = fulls[next_full & 3], 2 * width // half_group
                        _convolve(
                            halves,
                            p,
                            height // 2 - 1,
                            half_group * halved,
                            full_weight[k],
                            full_bias[k],
                            0,
                            line,
                            quartered,
                            count,
                        )
                        _activate(line, pixels, quartered)
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
                        ir_details,
                    )
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
                        vis_details,
                    )
                    next_detail += 1
                line, count, step = merged[next_merged & 3], pixels // full_group, full_group * quartered
                last = height - 1
                _convolve(fulls, next_merged, last, step, merge_own, merge_bias, 0, line, quartered, count)
                for ring, weight in ((ir_details, merge_ir), (vis_details, merge_vis)):
                    _convolve(ring, next_merged, last, step, weight, line, step, line, quartered, count)
                _activate(line, pixels, quartered)
                next_merged += 1
            if margin <= row < margin + out.shape[0]:
                count = pixels // out_group
                step = out_group * quartered
                _convolve(merged, row, height - 1, step, out_weight, out_bias, 0, result, 0, count)
                sigmoid(result[:pixels])
                first, last = max(4 * left, margin), min(4 * right, margin + out.shape[1])
                for i in range(first, last):
                    out[row - margin, i - margin] = result[i - 4 * start]
