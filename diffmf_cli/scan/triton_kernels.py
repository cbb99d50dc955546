"""The scan as Triton kernels; see `triton_scan`.

For inference the map is cut into tiles. `tile_states` finds, row by row, what each line of a tile makes of
the states that enter it, `segment_states` and `entering_states` chain the lines, and `tile_outputs` walks
with the true states while a tile's values stay in registers. Pixels are found by index: nothing is copied
into another order.
"""

import triton
import triton.language as tl


@triton.jit
def softplus(x):
    """`log(1 + exp(x))` with the digits of small results."""
    z = tl.exp2(-tl.abs(x) * 1.4426950408889634)
    # log(1 + z) / z for z from 0 to 1, to 2e-7.
    series = 0.17745204 + z * (-0.10768117 + z * (0.044089238 - z * 0.0085390963))
    series = 0.99999981 + z * (-0.49997405 + z * (0.33275478 + z * (-0.2449545 + z * series)))
    return tl.maximum(x, 0.0) + z * series


@triton.jit
def _step_size(delta, bias, SOFTPLUS: tl.constexpr):
    """`softplus(delta + bias)`, or `delta` where it is a step size already."""
    return softplus(delta + bias) if SOFTPLUS else delta


@triton.jit
def _apart(SIZE: tl.constexpr):
    """A range that the compiler does not take for neighbours: it gives the first axis to the threads."""
    return tl.max_contiguous(tl.arange(0, SIZE), 1)


@triton.jit
def _unstacked(t):
    """A tile `(32, A, B)` as B parts `(32, A)`; all of a thread's values stay in its registers."""
    A: tl.constexpr = t.shape[1]
    B: tl.constexpr = t.shape[2]
    parts = (t,)
    for k in tl.static_range(5):
        if B >> k > 1:
            halves = ()
            for i in tl.static_range(1 << k):
                half = tl.reshape(parts[i], (32, A, 2, B >> (k + 1)))
                halves = halves + tl.split(tl.permute(half, (0, 1, 3, 2)))
            parts = halves
    tiles = ()
    for i in tl.static_range(B):
        tiles = tiles + (tl.reshape(parts[i], (32, A)),)
    return tiles


@triton.jit
def _stacked(parts, A: tl.constexpr, B: tl.constexpr):
    """What `_unstacked` took apart."""
    tiles = ()
    for i in tl.static_range(B):
        tiles = tiles + (tl.reshape(parts[i], (32, A, 1)),)
    for k in tl.static_range(5):
        if B >> k > 1:
            pairs = ()
            for i in tl.static_range(B >> (k + 1)):
                pair = tl.permute(tl.join(tiles[2 * i], tiles[2 * i + 1]), (0, 1, 3, 2))
                pairs = pairs + (tl.reshape(pair, (32, A, 2 << k)),)
            tiles = pairs
    return tiles[0]


@triton.jit
def _summary(decay, ahead, back):
    """Parts of lines, along the last axis, as one: what it leaves of a state and adds to it, each side."""
    SIZE: tl.constexpr = decay.shape[2]
    decay = _unstacked(decay)
    ahead = _unstacked(ahead)
    back = _unstacked(back)
    kept = decay[0]
    after = ahead[0]
    before = back[0]
    for i in tl.static_range(1, SIZE):
        after = decay[i] * after + ahead[i]
        before += kept * back[i]
        kept *= decay[i]
    return kept, after, before


@triton.jit
def _together(thread, decay, ahead, back, DISTANCE: tl.constexpr):
    """Of two tiles, what the first one's thread should know: their lines as one."""
    next_decay = _partner(thread, decay, DISTANCE)
    next_ahead = _partner(thread, ahead, DISTANCE)
    next_back = _partner(thread, back, DISTANCE)
    return decay * next_decay, next_decay * ahead + next_ahead, back + decay * next_back


@triton.jit
def _entering(thread, a, b, ahead, back, DISTANCE: tl.constexpr):
    """What enters each of two tiles' lines from each side, from what enters both."""
    decay, own_ahead, own_back = _summary(a, b, b)
    decay = _partner(thread, decay, DISTANCE)
    second = ((thread & DISTANCE) > 0)[:, None]
    from_first = decay * ahead + _partner(thread, own_ahead, DISTANCE)
    from_second = decay * back + _partner(thread, own_back, DISTANCE)
    return tl.where(second, from_first, ahead), tl.where(second, back, from_second)


@triton.jit
def _both_ways(a, b, ahead, back, sum):
    """Adds the states of both orders along the last axis, from what enters from each side, to `sum`."""
    OTHER: tl.constexpr = a.shape[1]
    SIZE: tl.constexpr = a.shape[2]
    a = _unstacked(a)
    b = _unstacked(b)
    if sum is not None:
        sum = _unstacked(sum)
    states = ()
    for i in tl.static_range(SIZE):
        ahead = a[i] * ahead + b[i]
        states = states + (ahead if sum is None else sum[i] + ahead,)
    sums = ()
    for i in tl.static_range(1, SIZE + 1):
        back = a[SIZE - i] * back + b[SIZE - i]
        sums = (states[SIZE - i] + back,) + sums
    return _stacked(sums, OTHER, SIZE)


@triton.jit
def _place(h, w, d, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, ACROSS: tl.constexpr, DOWN: tl.constexpr):
    """Of each thread of a program: number, channel, and tile as column and row.

    `ACROSS` times `DOWN` tiles share the threads, which have as many channels of each as that leaves.
    """
    LANES: tl.constexpr = 32 // (ACROSS * DOWN)
    thread = _apart(32)
    blocks = tl.cdiv(d, LANES)
    lane = (tl.program_id(0) % blocks) * LANES + thread % LANES
    group = tl.program_id(0) // blocks
    groups = tl.cdiv(w, WIDTH * ACROSS)
    i = (group % groups) * ACROSS + thread // LANES % ACROSS
    j = (group // groups) * DOWN + thread // (LANES * ACROSS)
    whole = (group % groups + 1) * ACROSS * WIDTH <= w
    whole &= (group // groups + 1) * DOWN * HEIGHT <= h
    whole &= (tl.program_id(0) % blocks + 1) * LANES <= d
    return thread, lane, i, j, whole


@triton.jit
def _partner(thread, t, DISTANCE: tl.constexpr):
    """A tile's values `(32, lines)`, as the thread of the tile beside has them."""
    other = (thread ^ DISTANCE)[:, None] + tl.zeros(t.shape, tl.int32)
    return tl.gather(t, other, 0)


@triton.jit
def _tile(ptr, row_step, column_step, row, column):
    """Where the values of tiles lie that begin at `ptr`."""
    return ptr[:, None, None] + (row * row_step)[:, :, None] + (column * column_step)[:, None, :]


@triton.jit
def _known(inside, i, j, row, column, h, w, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """Which values of a tile lie in the picture."""
    known = inside[:, None, None] & (column < w - (i * WIDTH)[:, None])[:, None, :]
    return known & (row < h - (j * HEIGHT)[:, None])[:, :, None]


@triton.jit
def _read(ptr, other, whole, inside, i, j, row, column, h, w, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """Loads float32 values of tiles; `whole` ones without the mask."""
    if whole:
        t = tl.load(ptr)
    else:
        t = tl.load(ptr, mask=_known(inside, i, j, row, column, h, w, HEIGHT, WIDTH), other=other)
    return t.to(tl.float32)


@triton.jit
def _decay_and_input(
    x,
    delta_ptr,
    bias_ptr,
    A_ptr,
    B_ptr,
    parameter,
    n,
    whole,
    inside,
    i,
    j,
    row,
    column,
    h,
    w,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
    SOFTPLUS: tl.constexpr,
):
    """What a tile's tokens leave of a state, and what they add to it."""
    A = tl.load(A_ptr + parameter * N + n, mask=inside, other=0.0) * 1.4426950408889634
    delta = _read(delta_ptr, -1e4 if SOFTPLUS else 0.0, whole, inside, i, j, row, column, h, w, HEIGHT, WIDTH)
    if SOFTPLUS:
        delta = softplus(delta + tl.load(bias_ptr + parameter, mask=inside, other=0.0)[:, None, None])
    B = _read(B_ptr + n, 0.0, whole, inside, i, j, row, column, h, w, HEIGHT, WIDTH)
    return tl.exp2(delta * A[:, None, None]), delta * x * B


@triton.jit
def _row(ptrs, row, known, w, d, N, WHOLE: tl.constexpr, SOFTPLUS: tl.constexpr):
    """A row of tiles in x, delta and B; what is not known changes no state."""
    x_ptr = ptrs[0] + row * w * d
    delta_ptr = ptrs[1] + row * w * d
    B_ptr = ptrs[2] + row * w * N
    if WHOLE:
        return tl.load(x_ptr), tl.load(delta_ptr), tl.load(B_ptr)
    x = tl.load(x_ptr, mask=known, other=0.0)
    delta = tl.load(delta_ptr, mask=known, other=-1e4 if SOFTPLUS else 0.0)
    return x, delta, tl.load(B_ptr, mask=known, other=0.0)


@triton.jit
def _store_lines(line_ptrs, at, decay, ahead, back, mask):
    tl.store(line_ptrs[0] + at, decay, mask=mask)
    tl.store(line_ptrs[1] + at, ahead, mask=mask)
    tl.store(line_ptrs[2] + at, back, mask=mask)


@triton.jit
def _lines_of_tiles(
    ptrs,
    line_ptrs,
    of_rows,
    of_columns,
    bias,
    A,
    columns,
    height,
    w,
    d: tl.constexpr,
    N: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    ACROSS: tl.constexpr,
    DOWN: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Stores what tiles' rows and columns make of states.

    `ptrs` lead to the first row of x, delta and B, `line_ptrs` to decays and both states, `of_rows` and
    `of_columns` say where among those lines and which threads store; `height` rows lie in the picture.
    """
    LANES: tl.constexpr = 32 // (ACROSS * DOWN)
    kept = tl.full((32, WIDTH), 1.0, tl.float32)
    after = tl.zeros((32, WIDTH), tl.float32)
    before = tl.zeros((32, WIDTH), tl.float32)
    thread = _apart(32)
    x, delta, B = _row(ptrs, 0, columns & (height > 0)[:, None], w, d, N, WHOLE, SOFTPLUS)
    # A loop that is not unrolled needs half of the registers, so that twice as many warps are at work.
    for r in tl.range(0, HEIGHT, loop_unroll_factor=1):
        below = tl.minimum(r + 1, HEIGHT - 1)  # is on its way while this row is walked
        known = columns & (below < height)[:, None]
        below_x, below_delta, below_B = _row(ptrs, below, known, w, d, N, WHOLE, SOFTPLUS)
        delta = delta.to(tl.float32)
        if SOFTPLUS:
            delta = softplus(delta + bias[:, None])
        a = tl.exp2(delta * A[:, None])
        b = delta * x.to(tl.float32) * B.to(tl.float32)
        decay, ahead, back = _summary(a[:, None, :], b[:, None, :], b[:, None, :])
        if ACROSS == 2:
            decay, ahead, back = _together(thread, decay, ahead, back, LANES)
        at = (of_rows[0] + r * of_rows[1])[:, None]
        _store_lines(line_ptrs, at, decay, ahead, back, (of_rows[2] & (r < height))[:, None])
        before += kept * b
        after = a * after + b
        kept *= a
        x = below_x
        delta = below_delta
        B = below_B
    if DOWN == 2:
        kept, after, before = _together(thread, kept, after, before, LANES * ACROSS)
    _store_lines(line_ptrs, of_columns[0], kept, after, before, of_columns[1])


@triton.jit(do_not_specialize=("h", "w", "sets", "shared"))
def tile_states(
    x_ptr,
    delta_ptr,
    bias_ptr,
    A_ptr,
    B_ptr,
    decay_ptr,
    state_ptr,
    h,
    w,
    sets,
    shared,
    d: tl.constexpr,
    N: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    ACROSS: tl.constexpr,
    DOWN: tl.constexpr,
):
    """What lines leave of a state, `(P, N, lines, d)`, and what they add to it, `(P, 2, N, lines, d)`.

    A line is the part of a row or of a column that lies in one tile. First come those of rows, as tokens
    follow each other along rows, then those of columns. `shared` pictures in a row have the same of the
    `sets` of parameters.
    """
    _, lane, i, j, whole = _place(h, w, d, HEIGHT, WIDTH, ACROSS, DOWN)
    picture = tl.program_id(1)
    chosen = tl.minimum(picture // shared, sets - 1)
    inside = lane < d
    column = _apart(WIDTH)[None, :]
    columns = inside[:, None] & (column < w - (i * WIDTH)[:, None])
    start = picture.to(tl.int64) * h * w + j * HEIGHT * w + i * WIDTH
    x_ptr = (x_ptr + start * d + lane)[:, None] + column * d
    delta_ptr = (delta_ptr + start * d + lane)[:, None] + column * d
    B_ptr = (B_ptr + start * N)[:, None] + column * N
    across = tl.cdiv(w, WIDTH * ACROSS)
    down = tl.cdiv(h, HEIGHT * DOWN)
    lines = (h * across + w * down).to(tl.int64) * d
    # The first of two tiles stores what they are together.
    of_rows = (j * HEIGHT * across + i // ACROSS) * d + lane, across * d, inside & (i % ACROSS == 0)
    line = h * across + (i[:, None] * WIDTH + column) * down + j[:, None] // DOWN
    of_columns = line * d + lane[:, None], columns & (j % DOWN == 0)[:, None]
    height = h - j * HEIGHT
    bias = tl.zeros((32,), tl.float32)
    if SOFTPLUS:
        bias = tl.load(bias_ptr + chosen * d + lane, mask=inside, other=0.0)
    decay_ptr += picture.to(tl.int64) * N * lines
    state_ptr += picture.to(tl.int64) * 2 * N * lines
    for n in range(N):
        A = tl.load(A_ptr + (chosen * d + lane) * N + n, mask=inside, other=0.0) * 1.4426950408889634
        ptrs = x_ptr, delta_ptr, B_ptr + n
        states = state_ptr + n * lines
        line_ptrs = decay_ptr + n * lines, states, states + N * lines
        if whole:
            _lines_of_tiles(
                ptrs,
                line_ptrs,
                of_rows,
                of_columns,
                bias,
                A,
                columns,
                height,
                w,
                d,
                N,
                SOFTPLUS,
                HEIGHT,
                WIDTH,
                ACROSS,
                DOWN,
                WHOLE=True,
            )
        else:
            _lines_of_tiles(
                ptrs,
                line_ptrs,
                of_rows,
                of_columns,
                bias,
                A,
                columns,
                height,
                w,
                d,
                N,
                SOFTPLUS,
                HEIGHT,
                WIDTH,
                ACROSS,
                DOWN,
                WHOLE=False,
            )


@triton.jit
def _segment(rows, columns, d, SEGMENT: tl.constexpr):
    """Of a program: channels, segment, its first line; the first segment and the end of its lines' kind."""
    lane = (tl.program_id(0) % tl.cdiv(d, 32)) * 32 + _apart(32)
    segment = tl.program_id(0) // tl.cdiv(d, 32)
    of_rows = tl.cdiv(rows, SEGMENT)
    among_rows = segment < of_rows
    origin = tl.where(among_rows, 0, of_rows)
    start = tl.where(among_rows, 0, rows) + (segment - origin) * SEGMENT
    return lane, segment, start, origin, tl.where(among_rows, rows, rows + columns)


@triton.jit
def _lines(decay_ptr, state_ptr, lane, start, end, planes, d, SEGMENT: tl.constexpr):
    """Decay and both states of a segment's lines, `(32, 1, SEGMENT)`; those past the end change nothing."""
    line = _apart(SEGMENT)[None, None, :]
    mask = (line < end - start) & (lane < d)[:, None, None]
    decay_ptr = (decay_ptr + start * d + lane)[:, None, None] + line * d
    state_ptr = (state_ptr + start * d + lane)[:, None, None] + line * d
    decay = tl.load(decay_ptr, mask=mask, other=1.0)
    ahead = tl.load(state_ptr, mask=mask, other=0.0)
    return decay, ahead, tl.load(state_ptr + planes, mask=mask, other=0.0)


@triton.jit(do_not_specialize=("rows", "columns"))
def segment_states(
    decay_ptr,
    state_ptr,
    segment_decay_ptr,
    segment_state_ptr,
    rows,
    columns,
    d: tl.constexpr,
    N: tl.constexpr,
    SEGMENT: tl.constexpr,
):
    """What `tile_states` says of lines, of segments of so many lines that follow each other."""
    lane, segment, start, _, end = _segment(rows, columns, d, SEGMENT)
    segments = tl.cdiv(rows, SEGMENT) + tl.cdiv(columns, SEGMENT)
    picture = (tl.program_id(1) // N).to(tl.int64)
    n = tl.program_id(1) % N
    lines = (rows + columns).to(tl.int64) * d
    decay, ahead, back = _lines(
        decay_ptr + (picture * N + n) * lines,
        state_ptr + (picture * 2 * N + n) * lines,
        lane,
        start,
        end,
        N * lines,
        d,
        SEGMENT,
    )
    decay, ahead, back = _summary(decay, ahead, back)
    at = segment * d + lane[:, None]
    mask = (lane < d)[:, None]
    tl.store(segment_decay_ptr + (picture * N + n) * segments * d + at, decay, mask=mask)
    segment_state_ptr += (picture * 2 * N + n) * segments * d
    tl.store(segment_state_ptr + at, ahead, mask=mask)
    tl.store(segment_state_ptr + N * segments * d + at, back, mask=mask)


@triton.jit
def _start(x_ptr, delta_ptr, bias, rate, B_ptr, lane, inside, pixel, n, d, N, SOFTPLUS: tl.constexpr):
    """The fixed point of an order's first token: `recurrence.start_states`."""
    delta = tl.load(delta_ptr + pixel * d + lane, mask=inside, other=0.0).to(tl.float32)
    decay = tl.maximum(_step_size(delta, bias, SOFTPLUS) * rate, 1e-12)
    series = 1.0 + decay * (0.5 + decay * (0.083333333 - decay * decay * 0.0013888889))
    x = tl.load(x_ptr + pixel * d + lane, mask=inside, other=0.0).to(tl.float32)
    start = x * tl.load(B_ptr + pixel * N + n).to(tl.float32) / rate
    return start * tl.where(decay < 0.3, series, decay / (1.0 - tl.exp(-decay)))


@triton.jit(do_not_specialize=("h", "w", "rows", "columns", "sets", "shared"))
def entering_states(
    x_ptr,
    delta_ptr,
    bias_ptr,
    A_ptr,
    B_ptr,
    decay_ptr,
    state_ptr,
    segment_decay_ptr,
    segment_state_ptr,
    rows,
    columns,
    h,
    w,
    sets,
    shared,
    d: tl.constexpr,
    N: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    SEGMENT: tl.constexpr,
    STRETCH: tl.constexpr,
):
    """Puts the states that enter each line from each side in place of those that it adds.

    A program chains the segments before its own and those behind it, `STRETCH` at a time, then its lines.
    """
    lane, segment, start, origin, end = _segment(rows, columns, d, SEGMENT)
    segments = tl.cdiv(rows, SEGMENT) + tl.cdiv(columns, SEGMENT)
    number = (tl.program_id(1) // N).to(tl.int64)
    n = tl.program_id(1) % N
    lines = (rows + columns).to(tl.int64) * d
    decay_ptr += (number * N + n) * lines
    state_ptr += (number * 2 * N + n) * lines
    decay, ahead, back = _lines(decay_ptr, state_ptr, lane, start, end, N * lines, d, SEGMENT)
    decay = _unstacked(decay)
    ahead = _unstacked(ahead)
    back = _unstacked(back)

    picture = number
    chosen = tl.minimum(picture // shared, sets - 1)
    inside = lane < d
    rate = -tl.load(A_ptr + (chosen * d + lane) * N + n, mask=inside, other=-1.0)
    bias = 0.0
    if SOFTPLUS:
        bias = tl.load(bias_ptr + chosen * d + lane, mask=inside, other=0.0)
    pixel = picture * h * w
    after = _start(x_ptr, delta_ptr, bias, rate, B_ptr, lane, inside, pixel, n, d, N, SOFTPLUS)
    pixel += h * w - 1
    before = _start(x_ptr, delta_ptr, bias, rate, B_ptr, lane, inside, pixel, n, d, N, SOFTPLUS)
    segment_decay_ptr += (number * N + n) * segments * d + lane
    segment_state_ptr += (number * 2 * N + n) * segments * d + lane
    segment_back_ptr = segment_state_ptr + N * segments * d
    last = origin + (end - start + (segment - origin) * SEGMENT - 1) // SEGMENT
    for done in range(0, tl.maximum(segment - origin, last - segment), STRETCH):
        decay_after = segment_decay_ptr + (origin + done) * d
        state_after = segment_state_ptr + (origin + done) * d
        decay_before = segment_decay_ptr + (last - done) * d
        state_before = segment_back_ptr + (last - done) * d
        passed = ()
        for u in tl.static_range(STRETCH):
            mask = inside & (done + u < segment - origin)
            kept = tl.load(decay_after + u * d, mask=mask, other=1.0)
            passed = passed + ((kept, tl.load(state_after + u * d, mask=mask, other=0.0)),)
            mask = inside & (done + u < last - segment)
            kept = tl.load(decay_before - u * d, mask=mask, other=1.0)
            passed = passed + ((kept, tl.load(state_before - u * d, mask=mask, other=0.0)),)
        for u in tl.static_range(STRETCH):
            after = passed[2 * u][0] * after + passed[2 * u][1]
            before = passed[2 * u + 1][0] * before + passed[2 * u + 1][1]
    after = after[:, None]
    before = before[:, None]
    ahead_ptr = state_ptr + start * d + lane[:, None]
    back_ptr = ahead_ptr + N * lines
    inside = inside[:, None]
    for u in tl.static_range(SEGMENT):
        tl.store(ahead_ptr + u * d, after, mask=inside & (u < end - start))
        after = decay[u] * after + ahead[u]
        tl.store(back_ptr + (SEGMENT - 1 - u) * d, before, mask=inside & (SEGMENT - 1 - u < end - start))
        before = decay[SEGMENT - 1 - u] * before + back[SEGMENT - 1 - u]


@triton.jit(do_not_specialize=("h", "w", "sets", "shared"))
def tile_outputs(
    x_ptr,
    delta_ptr,
    bias_ptr,
    A_ptr,
    B_ptr,
    C_ptr,
    D_ptr,
    state_ptr,
    y_ptr,
    h,
    w,
    sets,
    shared,
    d: tl.constexpr,
    N: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    ACROSS: tl.constexpr,
    DOWN: tl.constexpr,
):
    """What the four orders give, with `D x`: `(P, h * w, d)`."""
    LANES: tl.constexpr = 32 // (ACROSS * DOWN)
    thread, lane, i, j, whole = _place(h, w, d, HEIGHT, WIDTH, ACROSS, DOWN)
    picture = tl.program_id(1)
    chosen = tl.minimum(picture // shared, sets - 1)
    inside = lane < d
    row = _apart(HEIGHT)[None, :]
    column = _apart(WIDTH)[None, :]
    rows = inside[:, None] & (row < h - (j * HEIGHT)[:, None])
    columns = inside[:, None] & (column < w - (i * WIDTH)[:, None])
    start = picture.to(tl.int64) * h * w + j * HEIGHT * w + i * WIDTH
    x_ptr = _tile(x_ptr + start * d + lane, w * d, d, row, column)
    delta_ptr = _tile(delta_ptr + start * d + lane, w * d, d, row, column)
    y_ptr = _tile(y_ptr + start * d + lane, w * d, d, row, column)
    B_ptr = _tile(B_ptr + start * N, w * N, N, row, column)
    C_ptr = _tile(C_ptr + start * N, w * N, N, row, column)
    x = _read(x_ptr, 0.0, whole, inside, i, j, row, column, h, w, HEIGHT, WIDTH)
    across = tl.cdiv(w, WIDTH * ACROSS)
    down = tl.cdiv(h, HEIGHT * DOWN)
    lines = (h * across + w * down).to(tl.int64) * d
    of_rows = ((j[:, None] * HEIGHT + row) * across + i[:, None] // ACROSS) * d + lane[:, None]
    of_columns = (i[:, None] * WIDTH + column) * down + j[:, None] // DOWN
    of_columns = (h * across + of_columns) * d + lane[:, None]
    skip = tl.load(D_ptr + chosen * d + lane, mask=inside, other=0.0)
    y = tl.zeros((32, HEIGHT, WIDTH), tl.float32)
    for n in range(N):
        a, b = _decay_and_input(
            x,
            delta_ptr,
            bias_ptr,
            A_ptr,
            B_ptr,
            chosen * d + lane,
            n,
            whole,
            inside,
            i,
            j,
            row,
            column,
            h,
            w,
            HEIGHT,
            WIDTH,
            N,
            SOFTPLUS,
        )
        plane = (tl.program_id(1) * 2 * N + n) * lines
        states = state_ptr + plane
        backs = states + N * lines
        ahead = tl.load(states + of_rows, mask=rows, other=0.0)
        back = tl.load(backs + of_rows, mask=rows, other=0.0)
        if ACROSS == 2:
            ahead, back = _entering(thread, a, b, ahead, back, LANES)
        sum = _both_ways(a, b, ahead, back, None)
        ahead = tl.load(states + of_columns, mask=columns, other=0.0)
        back = tl.load(backs + of_columns, mask=columns, other=0.0)
        a = tl.permute(a, (0, 2, 1))
        b = tl.permute(b, (0, 2, 1))
        if DOWN == 2:
            ahead, back = _entering(thread, a, b, ahead, back, LANES * ACROSS)
        sum = tl.permute(_both_ways(a, b, ahead, back, tl.permute(sum, (0, 2, 1))), (0, 2, 1))
        y += sum * _read(C_ptr + n, 0.0, whole, inside, i, j, row, column, h, w, HEIGHT, WIDTH)
    x = _read(x_ptr, 0.0, whole, inside, i, j, row, column, h, w, HEIGHT, WIDTH)
    y += skip[:, None, None] * x
    if whole:
        tl.store(y_ptr, y)
    else:
        tl.store(y_ptr, y, mask=_known(inside, i, j, row, column, h, w, HEIGHT, WIDTH))
