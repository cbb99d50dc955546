"""DIFF-MF's inference as Triton kernels; see `diffmf_cli.model.cuda.inference`.

Features are `(P, L, C)` with pixels in rows: P pictures of all modalities, those of one set of weights one
after the other. `batch` pictures in a row have the same weights, all that remain the last set's. A program
works on `TOKENS` pixels of one picture. Neighbours, layouts and borders are found by index, so that nothing
is padded, concatenated or transposed. Sums and statistics are float32; products have operands of the weights'
type.
"""

import triton
import triton.language as tl

from diffmf_cli.scan.triton_kernels import softplus

# Of what a scan gives. LayerNorm follows, so training does not hold it down: 88,000 with `lite` 1.4.0, where
# 16 bits end at 65,504. In this unit it fits, and with LayerNorm's constant likewise nothing changes.
SCAN_UNIT = tl.constexpr(2.0**-6)


@triton.jit
def _weights(picture, batch, SETS: tl.constexpr):
    return tl.minimum(picture // batch, SETS - 1)


@triton.jit
def _dot(a, b, sum):
    """`a @ b + sum`; float32 operands keep their accuracy."""
    return tl.dot(a.to(b.dtype), b, sum, input_precision="tf32x3")


@triton.jit
def _normed(x, inside, C: tl.constexpr):
    """Mean 0 and variance 1 of each row's first `C` values; the others are zero."""
    x = x - tl.sum(x, 1)[:, None] / C
    x = tl.where(inside, x, 0.0)
    return x * tl.rsqrt(tl.sum(x * x, 1) / C + 1e-5)[:, None]


@triton.jit
def _sigmoid(x):
    root = tl.rsqrt(1.0 + tl.exp(-x))  # cheaper than a division
    return root * root


@triton.jit
def _silu(x):
    return x * _sigmoid(x)


@triton.jit
def _gelu(x):
    # Abramowitz and Stegun 7.1.26: the error function to 1.5e-7, at half the cost of the library's.
    z = tl.abs(x) * 0.7071067811865476
    root = tl.rsqrt(1.0 + 0.3275911 * z)
    t = root * root
    series = -0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))
    tail = t * (0.254829592 + t * series) * tl.exp(-z * z)
    return 0.5 * (x + tl.abs(x) * (1.0 - tail))


@triton.jit
def _neighbour(pixel, dy, dx, h, w):
    """Index of a pixel's neighbour; the border is repeated."""
    y = tl.minimum(tl.maximum(pixel // w + dy, 0), h - 1)
    return y * w + tl.minimum(tl.maximum(pixel % w + dx, 0), w - 1)


@triton.jit
def _reflected(t, n):
    """Place in a picture of `n` pixels of place `t` of the padded one, whose origin is the picture's."""
    period = tl.maximum(2 * (n - 1), 1)
    if n < 32:  # the padding is wider than the picture: whole periods go, and keep the dividend positive
        t = (t + 32 * period) % period
    t = tl.abs(t)
    return tl.minimum(tl.minimum(t, period - t), n - 1)


@triton.jit
def _source(pixel, picture, batch, h, w, WIDE: tl.constexpr):
    """Row of the features that a pixel of a map shows.

    A wide map shows both modalities: the first `batch` ones with columns interleaved, the next side by side.
    """
    if WIDE:
        width = w // 2
        x = pixel % w
        together = picture < batch
        modality = tl.where(together, x % 2, x // width)
        x = tl.where(together, x // 2, x % width)
        plane = modality * batch + picture % batch
        return plane.to(tl.int64) * h * width + (pixel // w) * width + x
    return picture.to(tl.int64) * h * w + pixel


@triton.jit(do_not_specialize=("h", "w", "height", "width", "batch"))
def detail(
    picture_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    h,
    w,
    height,
    width,
    batch,
    C: tl.constexpr,
    PIXEL: tl.constexpr,
    MARGIN: tl.constexpr,
    BC: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """The stems' first convolution: pictures `(2 B, h, w)` -> `(B, height, width, PIXEL)`, 2 C channels.

    The padded picture of `height` x `width` is the given one, reflected.
    """
    pixel = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    picture = tl.program_id(1)
    channel = tl.arange(0, BC)
    inside = channel < C
    modality = picture // batch
    picture_ptr += picture.to(tl.int64) * h * w
    sum = tl.zeros((TOKENS, BC), tl.float32)
    rows = ()
    columns = ()
    for i in tl.static_range(3):
        y = tl.minimum(tl.maximum(pixel // width + i - 1, 0), height - 1)
        x = tl.minimum(tl.maximum(pixel % width + i - 1, 0), width - 1)
        rows = rows + (_reflected(y - MARGIN, h) * w,)
        columns = columns + (_reflected(x - MARGIN, w),)
    for tap in tl.static_range(9):
        value = tl.load(picture_ptr + rows[tap // 3] + columns[tap % 3]).to(tl.float32)
        weight = tl.load(weight_ptr + (modality * 9 + tap) * C + channel, mask=inside, other=0.0)
        sum += value[:, None] * weight.to(tl.float32)[None, :]
    sum += tl.load(bias_ptr + modality * C + channel, mask=inside, other=0.0)[None, :]
    sum = tl.where(sum > 0, sum, 0.1 * sum)
    row = (picture % batch).to(tl.int64) * height * width + pixel
    at = out_ptr + modality * C + row[:, None] * PIXEL + channel[None, :]
    tl.store(at, sum, mask=(pixel < height * width)[:, None] & inside[None, :])


@triton.jit
def _tap(
    x_ptr,
    weight_ptr,
    tap,
    y,
    x,
    inside,
    output,
    h,
    w,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    X_PIXEL: tl.constexpr,
    BK: tl.constexpr,
):
    """What a tap of nine multiplies: neighbours of pixels, with the border repeated, and weights."""
    y = tl.minimum(tl.maximum(y + tap // 3 - 1, 0), h - 1)
    x = tl.minimum(tl.maximum(x + tap % 3 - 1, 0), w - 1)
    k = tl.arange(0, BK)
    mask = inside[:, None] & (k < INPUTS)[None, :]
    at = (y * w + x).to(tl.int64) * X_PIXEL
    values = tl.load(x_ptr + at[:, None] + k[None, :], mask=mask, other=0.0)
    weight = tl.load(
        weight_ptr + (tap * INPUTS + k)[:, None] * OUTPUTS + output[None, :],
        mask=(k < INPUTS)[:, None] & (output < OUTPUTS)[None, :],
        other=0.0,
    )
    return values, weight


@triton.jit(do_not_specialize=("h", "w", "batch", "x_set", "x_picture", "out_set", "out_picture"))
def convolve(
    x_ptr,
    weight_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    h,
    w,
    batch,
    x_set,
    x_picture,
    out_set,
    out_picture,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    X_PIXEL: tl.constexpr,
    OUT_PIXEL: tl.constexpr,
    X_UNIT: tl.constexpr,
    OUT_UNIT: tl.constexpr,
    STRIDE: tl.constexpr,
    SETS: tl.constexpr,
    LEAKY: tl.constexpr,
    RESIDUAL: tl.constexpr,
    SHUFFLE: tl.constexpr,
    AHEAD: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """A 3x3 convolution of maps of `h` x `w`, with what may follow it.

    `x_set`, `x_picture` and `X_PIXEL` are the distances between maps of two sets, two pictures and two
    pixels; likewise those of the output. The first two count in units, from which the compiler knows how
    values are aligned. `SHUFFLE` puts each quarter of the outputs, of which the pixel shuffle takes every
    fourth, at one of the four pixels that a pixel becomes.
    """
    pixel = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    picture = tl.program_id(1)
    chosen = _weights(picture, batch, SETS)
    out_h = h // STRIDE
    out_w = w // STRIDE
    output = tl.program_id(2) * BN + tl.arange(0, BN)
    number = (picture % batch).to(tl.int64)
    own = (picture // batch).to(tl.int64)
    x_ptr += (own * x_set + number * x_picture) * X_UNIT
    start = (own * out_set + number * out_picture) * OUT_UNIT
    out_ptr += start
    residual_ptr += start
    weight_ptr += chosen * (9 * INPUTS * OUTPUTS)
    inside = pixel < out_h * out_w
    sum = tl.zeros((TOKENS, BN), tl.float32)
    y = STRIDE * (pixel // out_w)
    x = STRIDE * (pixel % out_w)
    if AHEAD:
        values, weight = _tap(x_ptr, weight_ptr, 0, y, x, inside, output, h, w, INPUTS, OUTPUTS, X_PIXEL, BK)
        for tap in range(1, 9):
            after = _tap(x_ptr, weight_ptr, tap, y, x, inside, output, h, w, INPUTS, OUTPUTS, X_PIXEL, BK)
            sum = _dot(values, weight, sum)
            values, weight = after
        sum = _dot(values, weight, sum)
    else:
        for tap in range(9):
            values, weight = _tap(
                x_ptr, weight_ptr, tap, y, x, inside, output, h, w, INPUTS, OUTPUTS, X_PIXEL, BK
            )
            sum = _dot(values, weight, sum)
    sum += tl.load(bias_ptr + chosen * OUTPUTS + output, mask=output < OUTPUTS, other=0.0)[None, :]
    if LEAKY:
        sum = tl.where(sum > 0, sum, 0.1 * sum)
    mask = inside[:, None] & (output < OUTPUTS)[None, :]
    if SHUFFLE:
        quarter = output // (OUTPUTS // 4)
        at = 4 * (pixel // out_w) * out_w + 2 * (pixel % out_w)
        at = at[:, None] + ((quarter // 2) * 2 * out_w + quarter % 2)[None, :]
        at = at.to(tl.int64) * OUT_PIXEL + (output % (OUTPUTS // 4))[None, :]
    else:
        at = pixel.to(tl.int64)[:, None] * OUT_PIXEL + output[None, :]
    if RESIDUAL:
        sum += tl.load(residual_ptr + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, sum, mask=mask)


@triton.jit(do_not_specialize=("h", "w", "height", "width"))
def picture(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    h,
    w,
    height,
    width,
    C: tl.constexpr,
    MARGIN: tl.constexpr,
    BC: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """The last convolution, without the padding: `(B, height, width, C)` -> `(B, h, w)` in [0, 1]."""
    pixel = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    channel = tl.arange(0, BC)
    inside = pixel < h * w
    x_ptr += tl.program_id(1).to(tl.int64) * height * width * C
    padded = (pixel // w + MARGIN) * width + pixel % w + MARGIN
    sum = tl.zeros((TOKENS, BC), tl.float32)
    mask = inside[:, None] & (channel < C)[None, :]
    for tap in tl.static_range(9):
        at = _neighbour(padded, tap // 3 - 1, tap % 3 - 1, height, width).to(tl.int64) * C
        x = tl.load(x_ptr + at[:, None] + channel[None, :], mask=mask, other=0.0).to(tl.float32)
        weight = tl.load(weight_ptr + tap * C + channel, mask=channel < C, other=0.0).to(tl.float32)
        sum += x * weight[None, :]
    result = _sigmoid(tl.sum(sum, 1) + tl.load(bias_ptr))
    tl.store(out_ptr + tl.program_id(1).to(tl.int64) * h * w + pixel, result, mask=inside)


@triton.jit(do_not_specialize=("h", "w", "batch"))
def norm_and_project(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    h,
    w,
    batch,
    C: tl.constexpr,
    PART: tl.constexpr,
    OUTPUTS: tl.constexpr,
    SETS: tl.constexpr,
    WIDE: tl.constexpr,
    BC: tl.constexpr,
    BN: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """LayerNorm, whose affine part is in the weights, and a linear layer: `(P, L, OUTPUTS)` of `h` x `w`.

    Where `PART` is less than `C`, a map stacks the features of both modalities along channels.
    """
    pixel = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    picture = tl.program_id(1)
    chosen = _weights(picture, batch, SETS)
    channel = tl.arange(0, BC)
    inside = pixel < h * w
    mask = inside[:, None] & (channel < C)[None, :]
    row = _source(pixel, picture, batch, h, w, WIDE)
    plane = (channel // PART).to(tl.int64) * batch * h * w * PART + channel % PART
    x = tl.load(x_ptr + row[:, None] * PART + plane[None, :], mask=mask, other=0.0).to(tl.float32)
    x = _normed(x, mask, C).to(weight_ptr.dtype.element_ty)
    weight_ptr += chosen * (C * OUTPUTS)
    out_ptr += picture.to(tl.int64) * h * w * OUTPUTS
    for start in tl.static_range(0, OUTPUTS, BN):
        output = start + tl.arange(0, BN)
        known = output < OUTPUTS
        weight = tl.load(
            weight_ptr + channel[:, None] * OUTPUTS + output[None, :],
            mask=(channel < C)[:, None] & known[None, :],
            other=0.0,
        )
        bias = tl.load(bias_ptr + chosen * OUTPUTS + output, mask=known, other=0.0)
        result = _dot(x, weight, tl.zeros((TOKENS, BN), tl.float32)) + bias[None, :]
        at = pixel.to(tl.int64)[:, None] * OUTPUTS + output[None, :]
        tl.store(out_ptr + at, result, mask=inside[:, None] & known[None, :])


@triton.jit
def _column(rows, mask, x, PIXEL: tl.constexpr, DIFFERENCE: tl.constexpr, other):
    """Three pixels of a column, of one map or of the difference of two."""
    column = ()
    for i in tl.static_range(3):
        at = rows[i] + (x * PIXEL)[:, None]
        value = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        if DIFFERENCE:
            value -= tl.load(at + other, mask=mask, other=0.0).to(tl.float32)
        column = column + (value,)
    return column


@triton.jit(do_not_specialize=("h", "w", "batch"))
def depthwise(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    h,
    w,
    batch,
    other,
    C: tl.constexpr,
    PIXEL: tl.constexpr,
    SETS: tl.constexpr,
    DIFFERENCE: tl.constexpr,
    SILU: tl.constexpr,
    RUN: tl.constexpr,
    BC: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """A depthwise 3x3 convolution, and SiLU: the first channels of pixels of `PIXEL` -> `(P, L, C)`.

    A row of the tile slides over `RUN` pixels of a row. With `DIFFERENCE` it is that of the map less the one
    that lies `other` values further on.
    """
    picture = tl.program_id(1).to(tl.int64)
    chosen = _weights(tl.program_id(1), batch, SETS)
    runs = tl.cdiv(w, RUN)
    run = tl.program_id(0) * (TOKENS // RUN) + tl.arange(0, TOKENS // RUN)
    y = run // runs
    start = (run % runs) * RUN
    channel = (tl.program_id(2) * BC + tl.arange(0, BC))[None, :] + tl.zeros((TOKENS // RUN, BC), tl.int32)
    known = channel < C
    x_ptr += picture * h * w * PIXEL
    out_ptr += picture * h * w * C
    weight_ptr += chosen * (9 * C) + channel
    weight = ()
    for tap in tl.static_range(9):
        weight = weight + (tl.load(weight_ptr + tap * C, mask=known, other=0.0),)
    bias = tl.load(bias_ptr + chosen * C + channel, mask=known, other=0.0)
    mask = known & (y < h)[:, None]
    rows = ()
    for i in tl.static_range(3):
        row = tl.minimum(tl.maximum(y + i - 1, 0), h - 1).to(tl.int64) * w
        rows = rows + (x_ptr + row[:, None] * PIXEL + channel,)
    left = _column(rows, mask, tl.maximum(start - 1, 0), PIXEL, DIFFERENCE, other)
    centre = _column(rows, mask, start, PIXEL, DIFFERENCE, other)
    out_ptr += (y.to(tl.int64) * w + start)[:, None] * C + channel
    for u in tl.static_range(RUN):
        right = _column(rows, mask, tl.minimum(start + u + 1, w - 1), PIXEL, DIFFERENCE, other)
        sum = bias
        for i in tl.static_range(3):  # one after the other, as products that are added
            sum += weight[3 * i] * left[i]
            sum += weight[3 * i + 1] * centre[i]
            sum += weight[3 * i + 2] * right[i]
        if SILU:
            sum = _silu(sum)
        tl.store(out_ptr + u * C, sum, mask=mask & (start + u < w)[:, None])
        left = centre
        centre = right


@triton.jit(do_not_specialize=("h", "w", "batch"))
def select(
    value_ptr,
    weight_ptr,
    bias_ptr,
    step_ptr,
    B_ptr,
    C_ptr,
    h,
    w,
    batch,
    d: tl.constexpr,
    N: tl.constexpr,
    SELECTED: tl.constexpr,
    SETS: tl.constexpr,
    BD: tl.constexpr,
    BN: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """What a scan takes beside the values `(P, L, d)`: step sizes `(P, L, d)`, B and C `(P, L, N)`.

    The weights `(sets, d, SELECTED)` give the first d of them before softplus, then B, then C. C is stored in
    `SCAN_UNIT`, like D, so that the scan's result is.
    """
    pixel = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    chosen = _weights(tl.program_id(1), batch, SETS)
    inside = (pixel < h * w)[:, None]
    row = (tl.program_id(1).to(tl.int64) * h * w + pixel)[:, None]
    inner = tl.arange(0, BD)
    value = tl.load(value_ptr + row * d + inner[None, :], mask=inside & (inner < d)[None, :], other=0.0)
    weight_ptr += chosen * (d * SELECTED) + inner[:, None] * SELECTED
    for start in tl.static_range(0, SELECTED, BN):
        column = start + tl.arange(0, BN)
        known = (inner < d)[:, None] & (column < SELECTED)[None, :]
        weight = tl.load(weight_ptr + column[None, :], mask=known, other=0.0)
        bias = tl.load(bias_ptr + chosen * SELECTED + column, mask=column < SELECTED, other=0.0)
        column = column[None, :]
        result = _dot(value, weight, tl.zeros((TOKENS, BN), tl.float32)) + bias[None, :]
        if start < d:
            tl.store(step_ptr + row * d + column, softplus(result), mask=inside & (column < d))
        if start + BN > d:
            mask = inside & (column >= d) & (column < d + N)
            tl.store(B_ptr + row * N + column - d, result, mask=mask)
            mask = inside & (column >= d + N) & (column < d + 2 * N)
            tl.store(C_ptr + row * N + column - d - N, result * SCAN_UNIT, mask=mask)


@triton.jit(do_not_specialize=("h", "w", "batch"))
def finish(
    x_ptr,
    y_ptr,
    gate_ptr,
    gate_bias_ptr,
    norm_ptr,
    norm_bias_ptr,
    out_proj_ptr,
    out_bias_ptr,
    widen_ptr,
    widen_bias_ptr,
    narrow_ptr,
    narrow_bias_ptr,
    out_ptr,
    h,
    w,
    batch,
    C: tl.constexpr,
    PART: tl.constexpr,
    d: tl.constexpr,
    SETS: tl.constexpr,
    WIDE: tl.constexpr,
    FFN: tl.constexpr,
    BC: tl.constexpr,
    BD: tl.constexpr,
    BH: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """A block after its scan: gate, projection, residual, and its FFN; `y` `(P, L, d)` -> `(P, L, C)`.

    `y` is in `SCAN_UNIT`. Gains are in the weights of the projections, affine parts of LayerNorms in those
    that follow them.
    """
    pixel = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    picture = tl.program_id(1)
    chosen = _weights(picture, batch, SETS)
    channel = tl.arange(0, BC)
    inner = tl.arange(0, BD)
    inside = pixel < h * w
    mask = inside[:, None] & (channel < C)[None, :]
    source = _source(pixel, picture, batch, h, w, WIDE)
    plane = (channel // PART).to(tl.int64) * batch * h * w * PART + channel % PART
    x = tl.load(x_ptr + source[:, None] * PART + plane[None, :], mask=mask, other=0.0).to(tl.float32)
    row = picture.to(tl.int64) * h * w + pixel

    normed = _normed(x, mask, C)
    x += tl.load(out_bias_ptr + chosen * C + channel, mask=channel < C, other=0.0)[None, :]

    mean = tl.zeros((TOKENS,), tl.float32)
    squares = tl.zeros((TOKENS,), tl.float32)
    for start in range(0, d, BD):  # mean and variance of what was seen and of the next block, put together
        known = (start + inner < d)[None, :]
        at = row[:, None] * d + start + inner[None, :]
        y = tl.load(y_ptr + at, mask=inside[:, None] & known, other=0.0).to(tl.float32)
        count = tl.minimum(d - start, BD)
        difference = tl.sum(y, 1) / count - mean
        y = tl.where(known, y - (mean + difference)[:, None], 0.0)
        squares += tl.sum(y * y, 1) + difference * difference * (start * count / (start + count))
        mean += difference * (count / (start + count))
    scale = tl.rsqrt(squares / d + 1e-5 * SCAN_UNIT * SCAN_UNIT)
    for start in range(0, d, BD):
        known = start + inner < d
        gate = tl.load(
            gate_ptr + (chosen * C + channel)[:, None] * d + start + inner[None, :],
            mask=(channel < C)[:, None] & known[None, :],
            other=0.0,
        )
        z = _dot(normed, gate, tl.zeros((TOKENS, BD), tl.float32))
        z += tl.load(gate_bias_ptr + chosen * d + start + inner, mask=known, other=0.0)[None, :]
        at = row[:, None] * d + start + inner[None, :]
        both = inside[:, None] & known[None, :]
        y = tl.load(y_ptr + at, mask=both, other=0.0).to(tl.float32)
        y = (y - mean[:, None]) * scale[:, None]
        y *= tl.load(norm_ptr + chosen * d + start + inner, mask=known, other=0.0)[None, :]
        y += tl.load(norm_bias_ptr + chosen * d + start + inner, mask=known, other=0.0)[None, :]
        project = tl.load(
            out_proj_ptr + (chosen * d + start + inner)[:, None] * C + channel[None, :],
            mask=known[:, None] & (channel < C)[None, :],
            other=0.0,
        )
        x = _dot(y * _silu(z), project, x)
    if FFN:
        again = _normed(x, mask, C)
        x += tl.load(narrow_bias_ptr + chosen * C + channel, mask=channel < C, other=0.0)[None, :]
        for first in range(0, 2 * C, BH):
            hidden = first + tl.arange(0, BH)
            within = hidden < 2 * C
            widen = tl.load(
                widen_ptr + (chosen * C + channel)[:, None] * (2 * C) + hidden[None, :],
                mask=(channel < C)[:, None] & within[None, :],
                other=0.0,
            )
            wide = _dot(again, widen, tl.zeros((TOKENS, BH), tl.float32))
            wide += tl.load(widen_bias_ptr + chosen * (2 * C) + hidden, mask=within, other=0.0)[None, :]
            narrow = tl.load(
                narrow_ptr + (chosen * (2 * C) + hidden)[:, None] * C + channel[None, :],
                mask=within[:, None] & (channel < C)[None, :],
                other=0.0,
            )
            x = _dot(_gelu(wide), narrow, x)
    tl.store(out_ptr + row[:, None] * C + channel[None, :], x, mask=mask)


@triton.jit(do_not_specialize=("h", "w", "batch"))
def guide(
    x_ptr,
    spread_ptr,
    gate_ptr,
    gate_bias_ptr,
    rest_ptr,
    rest_bias_ptr,
    h,
    w,
    batch,
    C: tl.constexpr,
    BC: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Difference guidance in place: `x` holds IR and VIS, `(2 B, L, C)`; the difference is `(B, L, C)`."""
    pixel = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    modality = tl.program_id(1) // batch
    number = (tl.program_id(1) % batch).to(tl.int64)
    channel = tl.arange(0, BC)
    inside = pixel < h * w
    mask = inside[:, None] & (channel < C)[None, :]
    plane = batch.to(tl.int64) * h * w * C
    at = (number * h * w + pixel)[:, None] * C + channel[None, :]
    spread = tl.load(spread_ptr + at, mask=mask, other=0.0).to(tl.float32)
    spread = tl.where(modality == 0, spread, -spread)
    both = (channel < C)[:, None] & (channel < C)[None, :]
    at = (modality * C + channel)[:, None] * C + channel[None, :]
    zero = tl.zeros((TOKENS, BC), tl.float32)
    gate = _dot(spread, tl.load(gate_ptr + at, mask=both, other=0.0), zero)
    rest = _dot(spread, tl.load(rest_ptr + at, mask=both, other=0.0), zero)
    gate += tl.load(gate_bias_ptr + modality * C + channel, mask=channel < C, other=0.0)[None, :]
    rest += tl.load(rest_bias_ptr + modality * C + channel, mask=channel < C, other=0.0)[None, :]
    gate = _sigmoid(gate)
    own_ptr = x_ptr + modality * plane + number * h * w * C
    at = pixel.to(tl.int64)[:, None] * C + channel[None, :]
    own = tl.load(own_ptr + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(own_ptr + at, own * (1.0 + gate) + gate * rest, mask=mask)


@triton.jit(do_not_specialize=("tokens", "batch", "span"))
def exchange_pool(
    x_ptr,
    norm_ptr,
    norm_bias_ptr,
    pool_ptr,
    tokens,
    batch,
    span,
    C: tl.constexpr,
    BC: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Sums and maxima of the normed features over `span` pixels: `(2 B, programs, 2 C)`."""
    picture = tl.program_id(1)
    modality = picture // batch
    channel = tl.arange(0, BC)
    known = channel < C
    own = picture.to(tl.int64) * tokens
    gain = tl.load(norm_ptr + modality * C + channel, mask=known, other=0.0)[None, :]
    shift = tl.load(norm_bias_ptr + modality * C + channel, mask=known, other=0.0)[None, :]
    total = tl.zeros((TOKENS, BC), tl.float32)
    largest = tl.full((TOKENS, BC), float("-inf"), tl.float32)
    end = tl.minimum((tl.program_id(0) + 1) * span, tokens)
    for start in range(tl.program_id(0) * span, end, TOKENS):
        pixel = start + tl.arange(0, TOKENS)
        mask = (pixel < end)[:, None] & known[None, :]
        features = tl.load(x_ptr + (own + pixel)[:, None] * C + channel[None, :], mask=mask, other=0.0)
        features = _normed(features.to(tl.float32), mask, C) * gain + shift
        total += tl.where(mask, features, 0.0)
        largest = tl.maximum(largest, tl.where(mask, features, float("-inf")))
    pool_ptr += (picture.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)) * (2 * C)
    tl.store(pool_ptr + channel, tl.sum(total, 0), mask=known)
    tl.store(pool_ptr + C + channel, tl.max(largest, 0), mask=known)


@triton.jit(do_not_specialize=("tokens", "batch", "parts"))
def exchange_weights(
    pool_ptr,
    widen_ptr,
    widen_bias_ptr,
    narrow_ptr,
    narrow_bias_ptr,
    out_ptr,
    tokens,
    batch,
    parts,
    C: tl.constexpr,
    BC: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Twice the weight omega of both modalities' results, `(2 B, C)`, from what `exchange_pool` gives."""
    number = tl.program_id(0)
    channel = tl.arange(0, BC)
    known = channel < C
    both = known[:, None] & known[None, :]
    part = tl.arange(0, PARTS)
    mask = (part < parts)[:, None] & known[None, :]
    hidden = tl.zeros((BC, BC), tl.float32)
    for k in tl.static_range(4):  # means of both modalities, then maxima of both
        at = (k % 2 * batch + number) * parts
        at = (at + part)[:, None] * (2 * C) + k // 2 * C + channel[None, :]
        if k < 2:
            pooled = tl.sum(tl.load(pool_ptr + at, mask=mask, other=0.0), 0) / tokens
        else:
            pooled = tl.max(tl.load(pool_ptr + at, mask=mask, other=float("-inf")), 0)
            pooled = tl.where(known, pooled, 0.0)
        weight = tl.load(widen_ptr + (k * C + channel)[:, None] * C + channel[None, :], mask=both, other=0.0)
        hidden += pooled[:, None] * weight
    hidden = tl.sum(hidden, 0) + tl.load(widen_bias_ptr + channel, mask=known, other=0.0)
    hidden = _gelu(hidden)
    for modality in tl.static_range(2):
        at = channel[:, None] * (2 * C) + modality * C + channel[None, :]
        omega = tl.sum(hidden[:, None] * tl.load(narrow_ptr + at, mask=both, other=0.0), 0)
        omega += tl.load(narrow_bias_ptr + modality * C + channel, mask=known, other=0.0)
        tl.store(out_ptr + (modality * batch + number) * C + channel, 2.0 * _sigmoid(omega), mask=known)


@triton.jit(do_not_specialize=("tokens", "batch", "span"))
def exchange_sums(
    projected_ptr,
    mixed_ptr,
    rate_ptr,
    sums_ptr,
    tokens,
    batch,
    span,
    C: tl.constexpr,
    STATE: tl.constexpr,
    HEAD: tl.constexpr,
    PROJECTED: tl.constexpr,
    BC: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Sums over `span` pixels, `(2 B, programs, C * STATE + C)`.

    x times the other modality's B, weighted, and the weights.
    """
    picture = tl.program_id(1)
    modality = picture // batch
    other = (picture + batch) % (2 * batch)
    channel = tl.arange(0, BC)
    state = tl.arange(0, STATE)
    known = channel < C
    mixed: tl.constexpr = C + 2 * STATE
    own = picture.to(tl.int64) * tokens
    others = other.to(tl.int64) * tokens
    rate = tl.load(rate_ptr + modality * (C // HEAD) + channel // HEAD, mask=known, other=0.0)
    products = tl.zeros((BC, STATE), tl.float32)
    weights = tl.zeros((TOKENS, BC), tl.float32)  # summed over the pixels at the end
    end = tl.minimum((tl.program_id(0) + 1) * span, tokens)
    for start in range(tl.program_id(0) * span, end, TOKENS):
        pixel = start + tl.arange(0, TOKENS)
        inside = pixel < end
        mask = inside[:, None] & known[None, :]
        at = (own + pixel)[:, None] * PROJECTED + (2 * C + 2 * STATE + channel // HEAD)[None, :]
        weight = softplus(tl.load(projected_ptr + at, mask=mask, other=0.0).to(tl.float32)) * rate[None, :]
        weight = tl.where(mask, weight, 0.0)
        weights += weight
        x = tl.load(mixed_ptr + (own + pixel)[:, None] * mixed + channel[None, :], mask=mask, other=0.0)
        at = (others + pixel)[:, None] * mixed + (C + state)[None, :]
        B = tl.load(mixed_ptr + at, mask=inside[:, None], other=0.0)
        products = _dot(tl.trans(x.to(tl.float32) * weight), B, products)
    size: tl.constexpr = C * STATE + C
    sums_ptr += (picture.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)) * size
    at = channel[:, None] * STATE + state[None, :]
    tl.store(sums_ptr + at, products, mask=known[:, None])
    tl.store(sums_ptr + C * STATE + channel, tl.sum(weights, 0), mask=known)


@triton.jit(do_not_specialize=("parts",))
def exchange_totals(sums_ptr, total_ptr, parts, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Sums over the parts of `exchange_sums`: `(P, parts, SIZE)` -> `(P, SIZE)`."""
    picture = tl.program_id(1).to(tl.int64)
    entry = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((128, BLOCK), tl.float32)
    for start in range(0, parts, 128):
        part = start + tl.arange(0, 128)
        mask = (part < parts)[:, None] & (entry < SIZE)[None, :]
        at = (picture * parts + part)[:, None] * SIZE + entry[None, :]
        total += tl.load(sums_ptr + at, mask=mask, other=0.0)
    tl.store(total_ptr + picture * SIZE + entry, tl.sum(total, 0), mask=entry < SIZE)


@triton.jit(do_not_specialize=("tokens", "batch"))
def exchange_read(
    x_ptr,
    projected_ptr,
    mixed_ptr,
    total_ptr,
    omega_ptr,
    skip_ptr,
    norm_ptr,
    norm_bias_ptr,
    out_proj_ptr,
    out_bias_ptr,
    tokens,
    batch,
    C: tl.constexpr,
    STATE: tl.constexpr,
    HEAD: tl.constexpr,
    PROJECTED: tl.constexpr,
    BC: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Reads the sums with the other modality's C, gates, projects and adds to `x` `(2 B, L, C)` in place."""
    pixel = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    picture = tl.program_id(1)
    modality = picture // batch
    other = (picture + batch) % (2 * batch)
    channel = tl.arange(0, BC)
    state = tl.arange(0, STATE)
    known = channel < C
    inside = pixel < tokens
    mask = inside[:, None] & known[None, :]
    mixed: tl.constexpr = C + 2 * STATE
    size: tl.constexpr = C * STATE + C
    row = picture.to(tl.int64) * tokens + pixel
    others = other.to(tl.int64) * tokens + pixel
    total_ptr += picture.to(tl.int64) * size
    weights = tl.load(total_ptr + C * STATE + channel, mask=known, other=1.0)
    sums = tl.load(total_ptr + channel[None, :] * STATE + state[:, None], mask=known[None, :], other=0.0)
    at = others[:, None] * mixed + (C + STATE + state)[None, :]
    selected = tl.load(mixed_ptr + at, mask=inside[:, None], other=0.0).to(tl.float32)
    skip = tl.load(skip_ptr + modality * (C // HEAD) + channel // HEAD, mask=known, other=0.0)
    x = tl.load(mixed_ptr + row[:, None] * mixed + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    y = _dot(selected, sums / weights[None, :], skip[None, :] * x)
    y = _normed(y, mask, C) * tl.load(norm_ptr + modality * C + channel, mask=known, other=0.0)[None, :]
    y += tl.load(norm_bias_ptr + modality * C + channel, mask=known, other=0.0)[None, :]
    z = tl.load(projected_ptr + row[:, None] * PROJECTED + channel[None, :], mask=mask, other=0.0)
    project = tl.load(
        out_proj_ptr + (modality * C + channel)[:, None] * C + channel[None, :],
        mask=known[:, None] & known[None, :],
        other=0.0,
    )
    y = _dot(y * _silu(z.to(tl.float32)), project, tl.zeros((TOKENS, BC), tl.float32))
    y += tl.load(out_bias_ptr + modality * C + channel, mask=known, other=0.0)[None, :]
    omega = tl.load(omega_ptr + picture * C + channel, mask=known, other=0.0)
    at = row[:, None] * C + channel[None, :]
    feature = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(x_ptr + at, feature + omega[None, :] * y, mask=mask)


@triton.jit(do_not_specialize=("h", "w"))
def halve(x_ptr, out_ptr, h, w, C: tl.constexpr, BC: tl.constexpr, TOKENS: tl.constexpr):
    """Means of 2x2 pixels: `(P, 2 h, 2 w, C)` -> `(P, h, w, C)`."""
    pixel = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    channel = tl.arange(0, BC)
    mask = (pixel < h * w)[:, None] & (channel < C)[None, :]
    x_ptr += tl.program_id(1).to(tl.int64) * 4 * h * w * C
    corner = (pixel // w).to(tl.int64) * 4 * w + 2 * (pixel % w)
    sum = tl.zeros((TOKENS, BC), tl.float32)
    for part in tl.static_range(4):
        at = (corner + part // 2 * 2 * w + part % 2)[:, None] * C + channel[None, :]
        sum += tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    row = tl.program_id(1).to(tl.int64) * h * w + pixel
    tl.store(out_ptr + row[:, None] * C + channel[None, :], 0.25 * sum, mask=mask)


@triton.jit
def _doubled(x_ptr, y, x, mask, channel, h, w, C: tl.constexpr):
    """Bilinear values at pixels of the map of twice the size."""
    near = (y // 2) * w
    far = tl.minimum(tl.maximum(y // 2 + 2 * (y % 2) - 1, 0), h - 1) * w
    left = x // 2
    right = tl.minimum(tl.maximum(x // 2 + 2 * (x % 2) - 1, 0), w - 1)
    sum = tl.zeros(mask.shape, tl.float32)
    for part in tl.static_range(4):
        row = far if part // 2 else near
        column = right if part % 2 else left
        at = (row + column).to(tl.int64)[:, None] * C + channel[None, :]
        share = (0.25 if part // 2 else 0.75) * (0.25 if part % 2 else 0.75)
        sum += share * tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    return sum


@triton.jit(do_not_specialize=("h", "w", "batch"))
def merge(
    stack_ptr,
    wide_ptr,
    weight_ptr,
    bias_ptr,
    coarse_ptr,
    out_ptr,
    h,
    w,
    batch,
    C: tl.constexpr,
    COARSE: tl.constexpr,
    BC: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """The linear layer of a level's five maps, and the next coarser level's result, doubled: `(B, L, C)`.

    Maps are `stack` `(B, L, 2 C)` and `wide` `(2 B, 2 L, C)`, columns before rows; weights `(6, C, C)`.
    """
    pixel = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    picture = tl.program_id(1)
    number = picture.to(tl.int64)
    channel = tl.arange(0, BC)
    known = channel < C
    mask = (pixel < h * w)[:, None] & known[None, :]
    y = pixel // w
    x = pixel % w
    sum = tl.load(bias_ptr + channel, mask=known, other=0.0)[None, :] + tl.zeros((TOKENS, BC), tl.float32)
    if COARSE:
        coarse = coarse_ptr + number * (h // 2) * (w // 2) * C
        sum += _doubled(coarse, y, x, mask, channel, h // 2, w // 2, C)
    for part in tl.static_range(6):
        if part < 2:
            at = (number * h * w + pixel)[:, None] * (2 * C) + part * C + channel[None, :]
            value = tl.load(stack_ptr + at, mask=mask, other=0.0)
        else:
            if part < 4:
                at = number * 2 * h * w + y * 2 * w + 2 * x + (part - 2)
            else:
                at = (batch + number) * 2 * h * w + y * 2 * w + (part - 4) * w + x
            value = tl.load(wide_ptr + at[:, None] * C + channel[None, :], mask=mask, other=0.0)
        weight = tl.load(
            weight_ptr + (part * C + channel)[:, None] * C + channel[None, :],
            mask=known[:, None] & known[None, :],
            other=0.0,
        )
        sum = _dot(value, weight, sum)
    tl.store(out_ptr + (number * h * w + pixel)[:, None] * C + channel[None, :], sum, mask=mask)
