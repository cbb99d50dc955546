"""The blocks of the state space part, some rows of a picture at a time, compiled by numba.

Each kernel takes a few tokens through all its operations before it goes on: what lies between stays in the
innermost cache, and rows that a convolution reads again in a ring. Importing this compiles what is not yet in
numba's cache. Features are tokens, `(h * w, C)`, float32; the widths of products are whole `LANES`.
"""

import numpy as np
from numba import boolean, float32, float64, int64, njit, void

from diffmf_cli.model.cpu.pointwise_kernels import (
    depthwise,
    depthwise_silu,
    depthwise_silu_lanes,
    gate,
    gelu,
    guide,
    norm,
)
from diffmf_cli.model.cpu.product_kernels import CHUNK, add_product, copy_lanes, linear
from diffmf_cli.model.cpu.winograd_kernels import AT_ONCE, POINTS, TILE, convolve_tiles, transform_row
from diffmf_cli.scan.numba_kernels import JIT, LANES, put, softplus

_F = np.float32
_COLUMNS = 262  # of a tile, and two of border: three of its rows fit into the second cache
_ROOM = -(-(_COLUMNS + 2) // CHUNK) * CHUNK
STATE = 16  # of the channel exchange
_flat, _vector, _tokens, _three = float32[::1], float32[::1], float32[:, ::1], float32[:, :, ::1]


@njit(
    void(
        _tokens, int64, int64, int64, int64, int64, int64, int64, _vector, _vector, _tokens, _vector, _tokens
    ),
    **JIT,
)
def _project_row(tokens, start, piece, jump, step, w, left, count, scale, shift, weight, bias, out):
    """LayerNorm and projection of columns `left - 1` to `left + count`, the border repeated.

    Column c is token `start + c * step`, from column `piece` on `jump` tokens later.
    """
    x = np.empty((CHUNK, tokens.shape[1]), np.float32)
    normed, channels = np.empty_like(x), x.shape[1]
    flat_tokens, flat_x = tokens.reshape(-1), x.reshape(-1)
    for i in range(0, count + 2, CHUNK):
        for j in range(CHUNK):
            c = min(max(left + i + j - 1, 0), w - 1)
            t = start + c * step
            if c >= piece:
                t += jump
            for k in range(0, channels, LANES):
                copy_lanes(flat_tokens, t * channels + k, flat_x, j * channels + k)
        norm(x, scale, shift, normed)
        linear(normed, weight, bias, out[i : i + CHUNK])  # more than needed: whole chunks are faster


@njit(
    void(
        _tokens,
        int64,
        int64,
        int64,
        int64,
        int64,
        int64,
        int64,
        int64,
        _vector,
        _vector,
        _tokens,
        _vector,
        _tokens,
        _vector,
        _tokens,
        _three,
        _tokens,
    ),
    **JIT,
)
def prepare(
    tokens,
    h,
    w,
    row,
    piece,
    jump,
    step,
    top,
    bottom,
    norm_scale,
    norm_shift,
    in_weight,
    in_bias,
    conv_weight,
    conv_bias,
    select_weight,
    values,
    selected,
):
    """`SS2D.prepare` of rows `top` to `bottom`, after LayerNorm: `values` and `selected`, in raster order.

    `values` is `(d / LANES, h * w, LANES)`; `selected` holds the rank of delta, B and C, without the rest of
    the product's lanes. The token of row r and column c is `r * row`, and then as in `_project_row`.
    """
    wide, kept = select_weight.shape[1], selected.shape[1]
    products, nothing = np.empty((CHUNK, wide), np.float32), np.zeros(wide, np.float32)
    flat_products = products.reshape(-1)
    ring = np.empty((3, _ROOM, in_weight.shape[1]), np.float32)
    for left in range(0, w, _COLUMNS):
        count = min(_COLUMNS, w - left)
        ready = max(top - 1, 0)
        for r in range(top, bottom):
            while ready <= min(r + 1, h - 1):
                _project_row(
                    tokens,
                    ready * row,
                    piece,
                    jump,
                    step,
                    w,
                    left,
                    count,
                    norm_scale,
                    norm_shift,
                    in_weight,
                    in_bias,
                    ring[ready % 3],
                )
                ready += 1
            upper, middle, lower = ring[max(r - 1, 0) % 3], ring[r % 3], ring[min(r + 1, h - 1) % 3]
            for c in range(0, count, CHUNK):
                n, p = min(CHUNK, count - c), r * w + left + c
                for block in range(values.shape[0]):
                    column, lines = block * LANES, values[block, p : p + n]
                    depthwise_silu_lanes(
                        upper, middle, lower, c + 1, column, conv_weight, conv_bias, lines, 0
                    )
                    start, start_step = (nothing, 0) if block == 0 else (flat_products, wide)
                    add_product(
                        lines.reshape(-1),
                        0,
                        LANES,
                        select_weight[column : column + LANES],
                        start,
                        0,
                        start_step,
                        flat_products,
                        0,
                        wide,
                        n,
                    )
                for i in range(n):
                    for j in range(kept):
                        selected[p + i, j] = products[i, j]


@njit(
    void(
        _tokens,
        int64,
        int64,
        _three,
        int64,
        int64,
        int64,
        _vector,
        _vector,
        _tokens,
        _vector,
        _vector,
        _vector,
        _tokens,
        _tokens,
        _tokens,
        _tokens,
    ),
    **JIT,
)
def _gated(
    tokens,
    x_first,
    x_step,
    y,
    y_first,
    y_step,
    n,
    norm_scale,
    norm_shift,
    gate_weight,
    gate_bias,
    y_scale,
    y_shift,
    x,
    normed,
    z,
    gated,
):
    """`n` tokens as `x`, and their scanned values `y`, gated by them, as `gated`."""
    c, d, length = x.shape[1], gated.shape[1], y.shape[1]
    flat_tokens, flat_x, flat_y, flat_gated = (
        tokens.reshape(-1),
        x.reshape(-1),
        y.reshape(-1),
        gated.reshape(-1),
    )
    for i in range(n):
        p, q = (x_first + i * x_step) * c, (y_first + i * y_step) * LANES
        for j in range(0, c, LANES):
            copy_lanes(flat_tokens, p + j, flat_x, i * c + j)
        for j in range(0, d, LANES):
            copy_lanes(flat_y, j * length + q, flat_gated, i * d + j)
    norm(x[:n], norm_scale, norm_shift, normed[:n])
    linear(normed[:n], gate_weight, gate_bias, z[:n])
    gate(gated[:n], z[:n], y_scale, y_shift)


@njit(
    void(
        _tokens,
        _three,
        int64,
        int64,
        _vector,
        _vector,
        _tokens,
        _vector,
        _vector,
        _vector,
        _tokens,
        _vector,
        _vector,
        _vector,
        _tokens,
        _vector,
        _tokens,
        _vector,
    ),
    **JIT,
)
def finish(
    tokens,
    y,
    first,
    last,
    norm_scale,
    norm_shift,
    gate_weight,
    gate_bias,
    y_scale,
    y_shift,
    out_weight,
    out_bias,
    ffn_scale,
    ffn_shift,
    widen,
    widen_bias,
    narrow,
    narrow_bias,
):
    """What follows the scan in a `VSSBlock` with FFN, in place; gains lie in the weights."""
    c, d, wide = tokens.shape[1], y.shape[0] * LANES, widen.shape[1]
    x, normed = np.empty((CHUNK, c), np.float32), np.empty((CHUNK, c), np.float32)
    z, gated = np.empty((CHUNK, d), np.float32), np.empty((CHUNK, d), np.float32)
    hidden = np.empty((CHUNK, wide), np.float32)
    flat_x, flat_gated, flat_hidden = x.reshape(-1), gated.reshape(-1), hidden.reshape(-1)
    flat_tokens = tokens.reshape(-1)
    for p in range(first, last, CHUNK):
        n = min(CHUNK, last - p)
        _gated(
            tokens,
            p,
            1,
            y,
            p,
            1,
            n,
            norm_scale,
            norm_shift,
            gate_weight,
            gate_bias,
            y_scale,
            y_shift,
            x,
            normed,
            z,
            gated,
        )
        for i in range(n):
            for j in range(c):
                x[i, j] += out_bias[j]
        add_product(flat_gated, 0, d, out_weight, flat_x, 0, c, flat_x, 0, c, n)
        norm(x[:n], ffn_scale, ffn_shift, normed[:n])
        linear(normed[:n], widen, widen_bias, hidden[:n])
        gelu(hidden[:n])
        for i in range(n):
            for j in range(c):
                x[i, j] += narrow_bias[j]
        add_product(flat_hidden, 0, wide, narrow, flat_x, 0, c, flat_tokens, p * c, c, n)


@njit(
    void(
        _tokens,
        int64,
        int64,
        _three,
        int64,
        int64,
        int64,
        int64,
        int64,
        int64,
        _vector,
        _vector,
        _tokens,
        _vector,
        _vector,
        _vector,
        _tokens,
        _tokens,
        _vector,
        boolean,
        _tokens,
    ),
    **JIT,
)
def finish_into(
    tokens,
    x_first,
    x_step,
    y,
    y_first,
    y_row,
    y_step,
    w,
    top,
    bottom,
    norm_scale,
    norm_shift,
    gate_weight,
    gate_bias,
    y_scale,
    y_shift,
    own,
    scanned,
    bias,
    fresh,
    out,
):
    """`out += own(x) + scanned(gated y)`: a `VSSBlock` without FFN and the linear layers after it.

    Pixel p has token `x_first + p * x_step`; that of row r and column c has the scanned token
    `y_first + r * y_row + c * y_step`. Where `fresh`, `out` starts from `bias`.
    """
    c, d, width = tokens.shape[1], y.shape[0] * LANES, out.shape[1]
    x, normed = np.empty((CHUNK, c), np.float32), np.empty((CHUNK, c), np.float32)
    z, gated = np.empty((CHUNK, d), np.float32), np.empty((CHUNK, d), np.float32)
    flat_x, flat_gated, flat_out = x.reshape(-1), gated.reshape(-1), out.reshape(-1)
    for r in range(top, bottom):
        for column in range(0, w, CHUNK):
            n, p = min(CHUNK, w - column), r * w + column
            _gated(
                tokens,
                x_first + p * x_step,
                x_step,
                y,
                y_first + r * y_row + column * y_step,
                y_step,
                n,
                norm_scale,
                norm_shift,
                gate_weight,
                gate_bias,
                y_scale,
                y_shift,
                x,
                normed,
                z,
                gated,
            )
            at = p * width
            if fresh:
                add_product(flat_x, 0, c, own, bias, 0, 0, flat_out, at, width, n)
            else:
                add_product(flat_x, 0, c, own, flat_out, at, width, flat_out, at, width, n)
            add_product(flat_gated, 0, d, scanned, flat_out, at, width, flat_out, at, width, n)


@njit(void(_tokens, int64, int64, int64, int64, _three, _vector, _tokens), **JIT)
def conv(x, h, w, top, bottom, weight, bias, out):
    """`Conv3x3` of rows `top` to `bottom`; see `convolve_tiles` for `weight`. `w` is a multiple of 4."""
    c, columns = x.shape[1], TILE * AT_ONCE
    line, flat_out = np.empty((columns + 2) * c, np.float32), out.reshape(-1)
    ring = np.zeros((3, POINTS, AT_ONCE, c), np.float32)
    sums = np.empty((POINTS, AT_ONCE, out.shape[1]), np.float32)
    for left in range(0, w, columns):
        count = min(columns, w - left)
        ready = max(top - 1, 0)
        for r in range(top, bottom):
            while ready <= min(r + 1, h - 1):
                for i in range(count + 2):
                    p = ready * w + min(max(left + i - 1, 0), w - 1)
                    put(x[p], line[i * c : (i + 1) * c])
                transform_row(line, c, count // TILE, ring[ready % 3], 0)
                ready += 1
            upper, middle, lower = ring[max(r - 1, 0) % 3], ring[r % 3], ring[min(r + 1, h - 1) % 3]
            at = (r * w + left) * out.shape[1]
            convolve_tiles(upper, middle, lower, count // TILE, weight, bias, 0, flat_out, at, False, sums)


@njit(
    void(
        _tokens,
        _tokens,
        int64,
        int64,
        int64,
        int64,
        _tokens,
        _vector,
        _three,
        _tokens,
        _tokens,
        _tokens,
    ),
    **JIT,
)
def guide_both(
    shared_ir, shared_vis, h, w, top, bottom, spread_weight, spread_bias, weights, biases, ir, vis
):
    """The difference of both, spread, guides `ir` by the first of the weights and `vis` by the second."""
    c = ir.shape[1]
    ring = np.empty((3, _ROOM, c), np.float32)
    difference, guidance = np.empty((CHUNK, c), np.float32), np.empty((CHUNK, 2 * c), np.float32)
    for left in range(0, w, _COLUMNS):
        count = min(_COLUMNS, w - left)
        ready = max(top - 1, 0)
        for r in range(top, bottom):
            while ready <= min(r + 1, h - 1):
                line = ring[ready % 3]
                for i in range(count + 2):
                    p = ready * w + min(max(left + i - 1, 0), w - 1)
                    for j in range(c):
                        line[i, j] = shared_ir[p, j] - shared_vis[p, j]
                ready += 1
            upper, middle, lower = ring[max(r - 1, 0) % 3], ring[r % 3], ring[min(r + 1, h - 1) % 3]
            for column in range(0, count, CHUNK):
                n, p = min(CHUNK, count - column), r * w + left + column
                depthwise(upper, middle, lower, column + 1, spread_weight, spread_bias, difference[:n])
                linear(difference[:n], weights[0], biases[0], guidance[:n])
                guide(ir[p : p + n], guidance[:n])
                linear(difference[:n], weights[1], biases[1], guidance[:n])
                guide(vis[p : p + n], guidance[:n])


@njit(
    void(
        _tokens,
        _tokens,
        int64,
        int64,
        int64,
        int64,
        _tokens,
        _tokens,
        _three,
        _tokens,
        float32[:, :, :, ::1],
    ),
    **JIT,
)
def _project_both(ir, vis, row, w, left, count, scale, shift, weight, bias, ring):
    """`_project_row` of a row of IR and of VIS, into the last three of each."""
    for m in range(2):
        feature, line = ir if m == 0 else vis, ring[m, row % 3]
        _project_row(feature, row * w, w, 0, 1, w, left, count, scale[m], shift[m], weight[m], bias[m], line)


@njit(
    void(
        _tokens,
        _tokens,
        int64,
        int64,
        int64,
        int64,
        _tokens,
        _tokens,
        _three,
        _tokens,
        _three,
        _tokens,
        _tokens,
        float64[:, :, ::1],
        float64[:, ::1],
        float64[:, ::1],
        _tokens,
    ),
    **JIT,
)
def channel_sums(
    ir,
    vis,
    h,
    w,
    top,
    bottom,
    norm_scale,
    norm_shift,
    in_weight,
    in_bias,
    conv_weight,
    conv_bias,
    rate,
    kv,
    totals,
    sums,
    peaks,
):
    """What `ChannelExchange` adds up over rows `top` to `bottom`, for IR and VIS.

    Adds to `kv` `(2, C, STATE)` the weighted x by the other's B, to `totals` `(2, heads)` the weights and to
    `sums` `(2, C)` the normed features, whose largest are `peaks`. Projections are x, B and Delta.
    """
    c, heads = ir.shape[1], rate.shape[1]
    mixed, width = c + STATE, in_weight.shape[2]
    ring = np.empty((2, 3, _ROOM, width), np.float32)
    convolved = np.empty((2, CHUNK, mixed), np.float32)
    normed, B = np.empty((CHUNK, c), np.float32), np.empty((CHUNK, STATE), np.float32)
    turned, part = np.empty((c, CHUNK), np.float32), np.empty((2, c, STATE), np.float32)
    for left in range(0, w, _COLUMNS):
        count = min(_COLUMNS, w - left)
        ready = max(top - 1, 0)
        for r in range(top, bottom):
            while ready <= min(r + 1, h - 1):
                _project_both(
                    ir, vis, ready, w, left, count, norm_scale, norm_shift, in_weight, in_bias, ring
                )
                ready += 1
            part[:] = _F(0)
            for column in range(0, count, CHUNK):
                n, p = min(CHUNK, count - column), r * w + left + column
                for m in range(2):
                    lines = ring[m]
                    depthwise_silu(
                        lines[max(r - 1, 0) % 3],
                        lines[r % 3],
                        lines[min(r + 1, h - 1) % 3],
                        column + 1,
                        conv_weight[m],
                        conv_bias[m],
                        convolved[m, :n],
                    )
                for m in range(2):
                    feature = ir if m == 0 else vis
                    norm(feature[p : p + n], norm_scale[m], norm_shift[m], normed[:n])
                    for i in range(n):
                        for j in range(c):
                            sums[m, j] += normed[i, j]
                            peaks[m, j] = max(peaks[m, j], normed[i, j])
                        for head in range(heads):
                            weight = softplus(ring[m, r % 3, column + 1 + i, mixed + head]) * rate[m, head]
                            totals[m, head] += weight
                            for j in range(head * STATE, head * STATE + STATE):
                                turned[j, i] = convolved[m, i, j] * weight
                        for j in range(STATE):
                            B[i, j] = convolved[1 - m, i, c + j]
                    total = part[m].reshape(-1)
                    add_product(turned.reshape(-1), 0, CHUNK, B[:n], total, 0, STATE, total, 0, STATE, c)
            kv += part


@njit(
    void(
        _tokens,
        _tokens,
        int64,
        int64,
        int64,
        int64,
        _tokens,
        _tokens,
        _three,
        _tokens,
        _three,
        _tokens,
        _three,
        _tokens,
        _three,
        _tokens,
        _tokens,
        _tokens,
        _three,
        _tokens,
        _tokens,
    ),
    **JIT,
)
def channel_read(
    ir,
    vis,
    h,
    w,
    top,
    bottom,
    norm_scale,
    norm_shift,
    in_weight,
    in_bias,
    conv_weight,
    conv_bias,
    gate_weight,
    gate_bias,
    kv,
    skip,
    y_scale,
    y_shift,
    out_weight,
    out_bias,
    both,
):
    """Rows `top` to `bottom` of what `ChannelExchange` gives: `both` `(h * w * 2, C)`, IR and VIS in turns.

    Projections are x and C; omega lies in the weights.
    """
    c = ir.shape[1]
    mixed = c + STATE
    ring = np.empty((2, 3, _ROOM, mixed), np.float32)
    convolved = np.empty((2, CHUNK, mixed), np.float32)
    x, normed = np.empty((CHUNK, c), np.float32), np.empty((CHUNK, c), np.float32)
    y, z = np.empty((CHUNK, c), np.float32), np.empty((CHUNK, c), np.float32)
    for left in range(0, w, _COLUMNS):
        count = min(_COLUMNS, w - left)
        ready = max(top - 1, 0)
        for r in range(top, bottom):
            while ready <= min(r + 1, h - 1):
                _project_both(
                    ir, vis, ready, w, left, count, norm_scale, norm_shift, in_weight, in_bias, ring
                )
                ready += 1
            for column in range(0, count, CHUNK):
                n, p = min(CHUNK, count - column), r * w + left + column
                for m in range(2):
                    lines = ring[m]
                    depthwise_silu(
                        lines[max(r - 1, 0) % 3],
                        lines[r % 3],
                        lines[min(r + 1, h - 1) % 3],
                        column + 1,
                        conv_weight[m],
                        conv_bias[m],
                        convolved[m, :n],
                    )
                for m in range(2):
                    feature = ir if m == 0 else vis
                    for i in range(n):
                        for j in range(c):
                            y[i, j] = skip[m, j] * convolved[m, i, j]
                    flat = y.reshape(-1)
                    add_product(convolved[1 - m].reshape(-1), c, mixed, kv[m], flat, 0, c, flat, 0, c, n)
                    norm(feature[p : p + n], norm_scale[m], norm_shift[m], normed[:n])
                    linear(normed[:n], gate_weight[m], gate_bias[m], z[:n])
                    gate(y[:n], z[:n], y_scale[m], y_shift[m])
                    linear(y[:n], out_weight[m], out_bias[m], x[:n])
                    for i in range(n):
                        q = 2 * (p + i) + m
                        for j in range(c):
                            both[q, j] = feature[p + i, j] + x[i, j]


@njit(void(_tokens, int64, int64, int64, _tokens), **JIT)
def halve(x, w, top, bottom, out):
    """Means of 2x2 tokens, rows `top` to `bottom` of `out`; `w` is the width of `x`."""
    for r in range(top, bottom):
        for c in range(w // 2):
            p = 2 * r * w + 2 * c
            first, second, third, fourth = x[p], x[p + 1], x[p + w], x[p + w + 1]
            result = out[r * (w // 2) + c]
            for j in range(result.size):
                result[j] = ((first[j] + second[j]) + (third[j] + fourth[j])) * _F(0.25)


@njit(void(_tokens, int64, int64, int64, int64, _tokens), **JIT)
def add_doubled(x, h, w, top, bottom, out):
    """Adds `x` of `h` x `w` tokens, doubled bilinearly, to rows `top` to `bottom` of `out`."""
    for r in range(top, bottom):
        near = r // 2
        far = min(max(near + (r % 2) * 2 - 1, 0), h - 1)
        for c in range(2 * w):
            column = c // 2
            side = min(max(column + (c % 2) * 2 - 1, 0), w - 1)
            first, second = x[near * w + column], x[near * w + side]
            third, fourth = x[far * w + column], x[far * w + side]
            result = out[r * 2 * w + c]
            for j in range(result.size):
                upper = _F(0.75) * first[j] + _F(0.25) * second[j]
                lower = _F(0.75) * third[j] + _F(0.25) * fourth[j]
                result[j] += _F(0.75) * upper + _F(0.25) * lower
