"""The scan without gradients as Triton kernels; see `triton_scan`.

Each order is cut into chunks of tokens, walked by a program each: `chunk_states` finds what a
chunk makes of the state that enters it, `entering_states` chains the chunks, `chunk_outputs` walks again with
the true states. A chunk's tokens stay in registers, where both directions pass over them, and pixels are
found by index: nothing is copied into another order.
"""

import triton
import triton.language as tl


@triton.jit
def softplus(x):
    """`log(1 + exp(x))` with the digits of small results."""
    z = tl.exp2(-tl.abs(x) * 1.4426950408889634)
    s = z / (2.0 + z)  # log(1 + z) is twice the inverse hyperbolic tangent of s, which is at most 1/3
    q = s * s
    series = q * (0.33333333 + q * (0.2 + q * (0.14285714 + q * (0.11111111 + q * 0.09090909))))
    return tl.maximum(x, 0.0) + 2.0 * s * (1.0 + series)


@triton.jit
def _step_size(delta, bias, SOFTPLUS: tl.constexpr):
    """`softplus(delta + bias)`, or `delta` where it is a step size already."""
    return softplus(delta + bias) if SOFTPLUS else delta


@triton.jit
def _first(token, axis, h, w):
    """Of a token along rows (axis 0) or columns: pixel, place in its line, line.

    And what a line has of tokens, and how far apart its pixels are. All rows together are one line.
    """
    length = tl.where(axis == 1, h, h * w)
    step = tl.where(axis == 1, w, 1)
    place = token % length
    line = token // length
    return place * step + line, place, line, length, step


@triton.jit
def _next(pixel, place, line, length, step):
    """What `_first` tells, of the token after."""
    ended = place + 1 == length
    line = tl.where(ended, line + 1, line)
    return tl.where(ended, line, pixel + step), tl.where(ended, 0, place + 1), line


@triton.jit(do_not_specialize=("h", "w", "chunks", "shared"))
def chunk_states(
    x_ptr,
    delta_ptr,
    bias_ptr,
    A_ptr,
    B_ptr,
    decay_ptr,
    state_ptr,
    h,
    w,
    chunks,
    shared,
    d: tl.constexpr,
    N: tl.constexpr,
    SETS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    """What each chunk leaves of a state, and what it adds: `(P, 2, N, chunks, d)`, `(P, 4, N, chunks, d)`.

    `shared` pictures in a row have the same of the `SETS` parameters.
    """
    picture = tl.program_id(2)
    axis = tl.program_id(1) % 2
    chunk = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    lane = ((tl.program_id(1) // 2) * LANES + tl.arange(0, LANES))[None, :]
    inside = lane < d
    tokens = h * w
    chosen = tl.minimum(picture // shared, SETS - 1)
    pixels = picture.to(tl.int64) * tokens
    x_ptr += pixels * d
    delta_ptr += pixels * d
    B_ptr += pixels * N
    bias = 0.0
    if SOFTPLUS:
        bias = tl.load(bias_ptr + chosen * d + lane, mask=inside, other=0.0)
    pixel, place, line, length, step = _first(chunk * CHUNK, axis, h, w)
    x = ()
    dt = ()
    where = ()
    for u in tl.static_range(CHUNK):
        valid = (chunk * CHUNK + u < tokens)[:, None] & inside
        at = pixel[:, None] * d + lane
        x = x + (tl.load(x_ptr + at, mask=valid, other=0.0).to(tl.float32),)
        delta = tl.load(delta_ptr + at, mask=valid, other=0.0).to(tl.float32)
        dt = dt + (tl.where(valid, _step_size(delta, bias, SOFTPLUS), 0.0),)
        where = where + (pixel,)
        pixel, place, line = _next(pixel, place, line, length, step)
    for n in range(N):
        A = tl.load(A_ptr + (chosen * d + lane) * N + n, mask=inside, other=0.0) * 1.4426950408889634
        decay = tl.full((ROWS, LANES), 1.0, tl.float32)
        ahead = tl.zeros((ROWS, LANES), tl.float32)
        back = tl.zeros((ROWS, LANES), tl.float32)
        for u in tl.static_range(CHUNK):
            B = tl.load(B_ptr + where[u] * N + n, mask=chunk * CHUNK + u < tokens, other=0.0).to(tl.float32)
            a = tl.exp2(dt[u] * A)
            b = dt[u] * x[u] * B[:, None]
            ahead = a * ahead + b
            back = back + decay * b
            decay = decay * a
        mask = (chunk < chunks)[:, None] & inside
        summary = chunk[:, None] * d + lane
        plane = ((picture.to(tl.int64) * 2 + axis) * N + n) * chunks * d
        tl.store(decay_ptr + plane + summary, decay, mask=mask)
        plane = ((picture.to(tl.int64) * 4 + 2 * axis) * N + n) * chunks * d
        tl.store(state_ptr + plane + summary, ahead, mask=mask)
        tl.store(state_ptr + plane + N * chunks * d + summary, back, mask=mask)


@triton.jit
def _then(first_decay, first_state, decay, state):
    """Two chunks in a row as one."""
    return first_decay * decay, decay * first_state + state


@triton.jit(do_not_specialize=("h", "w", "chunks", "shared"))
def entering_states(
    x_ptr,
    delta_ptr,
    bias_ptr,
    A_ptr,
    B_ptr,
    decay_ptr,
    state_ptr,
    h,
    w,
    chunks,
    shared,
    d: tl.constexpr,
    N: tl.constexpr,
    SETS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    GROUPS: tl.constexpr,
    STRETCH: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts the state that enters each chunk in place of the one that it adds.

    A row of the tile chains the chunks of one group; the groups are chained by one scan over the rows.
    """
    block, order, picture = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    n = block % N
    lane = (block // N) * LANES + tl.arange(0, LANES)
    inside = lane < d
    chosen = tl.minimum(picture // shared, SETS - 1)
    # The fixed point of the first token: `recurrence.start_states`.
    pixel = picture.to(tl.int64) * h * w + tl.where(order % 2 == 1, h * w - 1, 0)
    bias = 0.0
    if SOFTPLUS:
        bias = tl.load(bias_ptr + chosen * d + lane, mask=inside, other=0.0)
    delta = tl.load(delta_ptr + pixel * d + lane, mask=inside, other=0.0).to(tl.float32)
    rate = -tl.load(A_ptr + (chosen * d + lane) * N + n, mask=inside, other=-1.0)
    decay = tl.maximum(_step_size(delta, bias, SOFTPLUS) * rate, 1e-12)
    series = 1.0 + decay * (0.5 + decay * (0.083333333 - decay * decay * 0.0013888889))
    x = tl.load(x_ptr + pixel * d + lane, mask=inside, other=0.0).to(tl.float32)
    start = x * tl.load(B_ptr + pixel * N + n).to(tl.float32) / rate
    start *= tl.where(decay < 0.3, series, decay / (1.0 - tl.exp(-decay)))

    decay_ptr += ((picture.to(tl.int64) * 2 + order // 2) * N + n) * chunks * d
    state_ptr += ((picture.to(tl.int64) * 4 + order) * N + n) * chunks * d
    group = tl.arange(0, GROUPS)
    each = tl.cdiv(chunks, GROUPS)
    # A row chains the group before its own, so that the scan's result is what enters its own.
    state = tl.where(group[:, None] == 0, start[None, :], 0.0)
    kept = tl.where(group[:, None] == 0, 0.0, 1.0) + tl.zeros((1, LANES), tl.float32)
    for done in range(0, each, STRETCH):
        decays = ()
        states = ()
        for u in tl.static_range(STRETCH):
            i = (group - 1) * each + done + u
            valid = (group > 0) & (i < chunks) & (done + u < each)
            i = tl.where(order % 2 == 1, chunks - 1 - i, i)
            at = i[:, None] * d + lane[None, :]
            mask = valid[:, None] & inside[None, :]
            decays = decays + (tl.load(decay_ptr + at, mask=mask, other=1.0),)
            states = states + (tl.load(state_ptr + at, mask=mask, other=0.0),)
        for u in tl.static_range(STRETCH):
            state = decays[u] * state + states[u]
            kept = kept * decays[u]
    kept, state = tl.associative_scan((kept, state), 0, _then)
    for done in range(0, each, STRETCH):
        decays = ()
        states = ()
        for u in tl.static_range(STRETCH):
            i = group * each + done + u
            valid = (i < chunks) & (done + u < each)
            i = tl.where(order % 2 == 1, chunks - 1 - i, i)
            at = i[:, None] * d + lane[None, :]
            mask = valid[:, None] & inside[None, :]
            decays = decays + (tl.load(decay_ptr + at, mask=mask, other=1.0),)
            states = states + (tl.load(state_ptr + at, mask=mask, other=0.0),)
        for u in tl.static_range(STRETCH):
            i = group * each + done + u
            valid = (i < chunks) & (done + u < each)
            i = tl.where(order % 2 == 1, chunks - 1 - i, i)
            mask = valid[:, None] & inside[None, :]
            tl.store(state_ptr + i[:, None] * d + lane[None, :], state, mask=mask)
            state = decays[u] * state + states[u]


@triton.jit(do_not_specialize=("h", "w", "chunks", "shared"))
def chunk_outputs(
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
    chunks,
    shared,
    d: tl.constexpr,
    N: tl.constexpr,
    SETS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    FIRST: tl.constexpr,
    ADD: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    """What the orders along rows give, with `D x`, and those along columns: `(axes, P, h * w, d)`.

    The axes are those from `FIRST` on that the grid spans; `ADD` adds to what is there.
    """
    picture = tl.program_id(2)
    blocks: tl.constexpr = (d + LANES - 1) // LANES
    axis = FIRST + tl.program_id(1) // blocks
    chunk = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    lane = ((tl.program_id(1) % blocks) * LANES + tl.arange(0, LANES))[None, :]
    inside = lane < d
    tokens = h * w
    chosen = tl.minimum(picture // shared, SETS - 1)
    pixels = picture.to(tl.int64) * tokens
    x_ptr += pixels * d
    delta_ptr += pixels * d
    B_ptr += pixels * N
    C_ptr += pixels * N
    y_ptr += (tl.num_programs(2).to(tl.int64) * (axis - FIRST) * tokens + pixels) * d
    bias = 0.0
    if SOFTPLUS:
        bias = tl.load(bias_ptr + chosen * d + lane, mask=inside, other=0.0)
    skip = tl.where(axis == 0, tl.load(D_ptr + chosen * d + lane, mask=inside, other=0.0), 0.0)
    pixel, place, line, length, step = _first(chunk * CHUNK, axis, h, w)
    x = ()
    dt = ()
    y = ()
    where = ()
    for u in tl.static_range(CHUNK):
        valid = (chunk * CHUNK + u < tokens)[:, None] & inside
        at = pixel[:, None] * d + lane
        value = tl.load(x_ptr + at, mask=valid, other=0.0).to(tl.float32)
        delta = tl.load(delta_ptr + at, mask=valid, other=0.0).to(tl.float32)
        x = x + (value,)
        y = y + (skip * value,)
        dt = dt + (tl.where(valid, _step_size(delta, bias, SOFTPLUS), 0.0),)
        where = where + (pixel,)
        pixel, place, line = _next(pixel, place, line, length, step)
    for n in range(N):
        A = tl.load(A_ptr + (chosen * d + lane) * N + n, mask=inside, other=0.0) * 1.4426950408889634
        mask = (chunk < chunks)[:, None] & inside
        plane = ((picture.to(tl.int64) * 4 + 2 * axis) * N + n) * chunks * d
        summary = chunk[:, None] * d + lane
        state = tl.load(state_ptr + plane + summary, mask=mask, other=0.0)
        back = tl.load(state_ptr + plane + N * chunks * d + summary, mask=mask, other=0.0)
        a = ()
        b = ()
        states = ()
        for u in tl.static_range(CHUNK):
            B = tl.load(B_ptr + where[u] * N + n, mask=chunk * CHUNK + u < tokens, other=0.0).to(tl.float32)
            a = a + (tl.exp2(dt[u] * A),)
            b = b + (dt[u] * x[u] * B[:, None],)
            state = a[u] * state + b[u]
            states = states + (state,)
        sums = ()
        for v in tl.static_range(1, CHUNK + 1):
            known = chunk * CHUNK + CHUNK - v < tokens
            C = tl.load(C_ptr + where[CHUNK - v] * N + n, mask=known, other=0.0).to(tl.float32)
            back = a[CHUNK - v] * back + b[CHUNK - v]
            sums = (y[CHUNK - v] + (states[CHUNK - v] + back) * C[:, None],) + sums
        y = sums
    for u in tl.static_range(CHUNK):
        valid = (chunk * CHUNK + u < tokens)[:, None] & inside
        at = where[u][:, None] * d + lane
        result = y[u]
        if ADD:
            result += tl.load(y_ptr + at, mask=valid, other=0.0).to(tl.float32)
        tl.store(y_ptr + at, result, mask=valid)
