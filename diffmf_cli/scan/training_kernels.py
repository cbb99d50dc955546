"""The scan with gradients as Triton kernels; see `triton_training`.

Each order is cut into chunks of tokens, as for inference, and so is its gradient, which runs the other way.
The gradient by a state obeys a recurrence of its own. With `e_t = C_t grad_t` it is `h_t`, and `k_t` is what
it hands on to the token before:

    h_t = e_t + k_{t+1}        k_t = a_t h_t

So a chunk passes on as much of a gradient as of a state: the product of its decays. Three kernels each way:
`chunk_states` or `chunk_adjoints` find what a chunk adds, `chain` links the chunks, and `outputs`
or `gradients` walk again from what really enters. States are not kept but computed again.

A tile is `(ROWS, LANES)`: chunks by channels, four channels to a thread, so that loads are wide and sums over
channels short. Two orders walk the same tokens, one up and one down.
"""

import triton
import triton.language as tl

from diffmf_cli.scan.triton_kernels import softplus


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


@triton.jit
def _exp(x):
    return tl.exp2(x * 1.4426950408889634)


@triton.jit
def _lanes(block, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Channels of a block, as a whole tile: parameters then lie in threads as the pictures do."""
    return tl.broadcast_to((block * LANES + tl.arange(0, LANES))[None, :], (ROWS, LANES))


@triton.jit(do_not_specialize=("h", "w", "chunks", "B_apart"))
def chunk_states(
    x_ptr,
    delta_ptr,
    bias_ptr,
    A_ptr,
    B_ptr,
    dt_ptr,
    decay_ptr,
    state_ptr,
    h,
    w,
    chunks,
    B_apart,
    d: tl.constexpr,
    N: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Step sizes `(P, h * w, d)`, what a chunk leaves of a state, and what it adds to it.

    Decays are `(P, 2, N, chunks, d)`, states `(P, 4, N, chunks, d)`.
    """
    picture = tl.program_id(2).to(tl.int64)
    axis = tl.program_id(1) % 2
    chunk = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    lane = _lanes(tl.program_id(1) // 2, ROWS, LANES)
    inside = lane < d
    tokens = h * w
    x_ptr += picture * tokens * d
    delta_ptr += picture * tokens * d
    dt_ptr += picture * tokens * d
    B_ptr += picture * tokens * B_apart
    bias = tl.load(bias_ptr + lane, mask=inside, other=0.0)
    pixel, place, line, length, step = _first(chunk * CHUNK, axis, h, w)
    dts = ()
    inputs = ()
    where = ()
    for u in tl.static_range(CHUNK):
        valid = (chunk * CHUNK + u < tokens)[:, None] & inside
        at = pixel[:, None] * d + lane
        x = tl.load(x_ptr + at, mask=valid, other=0.0).to(tl.float32)
        delta = tl.load(delta_ptr + at, mask=valid, other=0.0).to(tl.float32)
        dt = tl.where(valid, softplus(delta + bias), 0.0)
        tl.store(dt_ptr + at, dt, mask=valid & (axis == 0))
        dts = dts + (dt,)
        inputs = inputs + (dt * x,)
        where = where + (pixel,)
        pixel, place, line = _next(pixel, place, line, length, step)
    for n in range(N):
        A = tl.load(A_ptr + n * d + lane, mask=inside, other=0.0)
        binary = A * 1.4426950408889634
        decay = tl.full((ROWS, LANES), 1.0, tl.float32)
        ahead = tl.zeros((ROWS, LANES), tl.float32)
        back = tl.zeros((ROWS, LANES), tl.float32)
        for u in tl.static_range(CHUNK):
            known = (chunk * CHUNK + u < tokens)[:, None]
            B = tl.load(B_ptr + where[u][:, None] * B_apart + n, mask=known, other=0.0).to(tl.float32)
            a = tl.exp2(dts[u] * binary)
            b = inputs[u] * B
            ahead = a * ahead + b
            back += decay * b
            decay *= a
        mask = (chunk < chunks)[:, None] & inside
        summary = chunk[:, None] * d + lane
        tl.store(decay_ptr + ((picture * 2 + axis) * N + n) * chunks * d + summary, decay, mask=mask)
        plane = state_ptr + ((picture * 4 + 2 * axis) * N + n) * chunks * d
        tl.store(plane + summary, ahead, mask=mask)
        tl.store(plane + N * chunks * d + summary, back, mask=mask)


@triton.jit(do_not_specialize=("h", "w", "chunks", "C_apart"))
def chunk_adjoints(
    dt_ptr,
    A_ptr,
    C_ptr,
    grad_rows_ptr,
    grad_columns_ptr,
    adjoint_ptr,
    h,
    w,
    chunks,
    C_apart,
    d: tl.constexpr,
    N: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    """What a chunk adds to what an order hands on to the tokens before: `(P, 4, N, chunks, d)`."""
    picture = tl.program_id(2).to(tl.int64)
    axis = tl.program_id(1) % 2
    chunk = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    lane = _lanes(tl.program_id(1) // 2, ROWS, LANES)
    inside = lane < d
    tokens = h * w
    grad_ptr = (grad_rows_ptr if axis == 0 else grad_columns_ptr) + picture * tokens * d
    dt_ptr += picture * tokens * d
    C_ptr += picture * tokens * C_apart
    pixel, place, line, length, step = _first(chunk * CHUNK, axis, h, w)
    dts = ()
    grads = ()
    where = ()
    for u in tl.static_range(CHUNK):
        valid = (chunk * CHUNK + u < tokens)[:, None] & inside
        at = pixel[:, None] * d + lane
        dts = dts + (tl.load(dt_ptr + at, mask=valid, other=0.0),)
        grads = grads + (tl.load(grad_ptr + at, mask=valid, other=0.0).to(tl.float32),)
        where = where + (pixel,)
        pixel, place, line = _next(pixel, place, line, length, step)
    for n in range(N):
        A = tl.load(A_ptr + n * d + lane, mask=inside, other=0.0)
        binary = A * 1.4426950408889634
        decay = tl.full((ROWS, LANES), 1.0, tl.float32)
        ahead = tl.zeros((ROWS, LANES), tl.float32)
        back = tl.zeros((ROWS, LANES), tl.float32)
        for u in tl.static_range(CHUNK):
            known = (chunk * CHUNK + u < tokens)[:, None]
            C = tl.load(C_ptr + where[u][:, None] * C_apart + n, mask=known, other=0.0).to(tl.float32)
            a = tl.exp2(dts[u] * binary)
            e = grads[u] * C
            back = a * (back + e)
            decay *= a
            ahead += decay * e
        mask = (chunk < chunks)[:, None] & inside
        summary = chunk[:, None] * d + lane
        plane = adjoint_ptr + ((picture * 4 + 2 * axis) * N + n) * chunks * d
        tl.store(plane + summary, ahead, mask=mask)
        tl.store(plane + N * chunks * d + summary, back, mask=mask)


@triton.jit
def _then(first_decay, first_state, decay, state):
    """Two chunks in a row as one."""
    return first_decay * decay, decay * first_state + state


@triton.jit
def _start_factor(decay):
    """`u / (1 - exp(-u))`: the start state over `x B / -A`; see `recurrence.start_states`."""
    series = 1.0 + decay * (0.5 + decay * (0.083333333 - decay * decay * 0.0013888889))
    return tl.where(decay < 0.3, series, decay / (1.0 - _exp(-decay)))


@triton.jit(do_not_specialize=("tokens", "chunks", "B_apart"))
def chain(
    x_ptr,
    dt_ptr,
    A_ptr,
    B_ptr,
    decay_ptr,
    state_ptr,
    tokens,
    chunks,
    B_apart,
    d: tl.constexpr,
    N: tl.constexpr,
    ADJOINT: tl.constexpr,
    GROUPS: tl.constexpr,
    STRETCH: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts the state that enters each chunk in place of the one that it adds; or the adjoint.

    A row of the tile chains the chunks of one group; the groups are chained by one scan over the rows.
    """
    block, order, picture = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    n = block % N
    lane = (block // N) * LANES + tl.arange(0, LANES)
    inside = lane < d
    start = tl.zeros((LANES,), tl.float32)
    reversed = order % 2 == 1
    if ADJOINT:
        reversed = order % 2 == 0
    else:
        pixel = picture * tokens + tl.where(reversed, tokens - 1, 0)
        rate = -tl.load(A_ptr + n * d + lane, mask=inside, other=-1.0)
        dt = tl.load(dt_ptr + pixel * d + lane, mask=inside, other=0.0)
        x = tl.load(x_ptr + pixel * d + lane, mask=inside, other=0.0).to(tl.float32)
        start = x * tl.load(B_ptr + pixel * B_apart + n).to(tl.float32) / rate * _start_factor(dt * rate)
    decay_ptr += ((picture * 2 + order // 2) * N + n) * chunks * d
    state_ptr += ((picture * 4 + order) * N + n) * chunks * d
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
            i = tl.where(reversed, chunks - 1 - i, i)
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
            i = tl.where(reversed, chunks - 1 - i, i)
            at = i[:, None] * d + lane[None, :]
            mask = valid[:, None] & inside[None, :]
            decays = decays + (tl.load(decay_ptr + at, mask=mask, other=1.0),)
            states = states + (tl.load(state_ptr + at, mask=mask, other=0.0),)
        for u in tl.static_range(STRETCH):
            i = group * each + done + u
            valid = (i < chunks) & (done + u < each)
            i = tl.where(reversed, chunks - 1 - i, i)
            mask = valid[:, None] & inside[None, :]
            tl.store(state_ptr + i[:, None] * d + lane[None, :], state, mask=mask)
            state = decays[u] * state + states[u]


@triton.jit(do_not_specialize=("h", "w", "chunks", "B_apart", "C_apart"))
def outputs(
    x_ptr,
    dt_ptr,
    A_ptr,
    B_ptr,
    C_ptr,
    D_ptr,
    state_ptr,
    rows_ptr,
    columns_ptr,
    h,
    w,
    chunks,
    B_apart,
    C_apart,
    d: tl.constexpr,
    N: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    """What the orders along rows give, with `D x`, and those along columns: `(P, h * w, d)` each."""
    picture = tl.program_id(2).to(tl.int64)
    axis = tl.program_id(1) % 2
    chunk = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    lane = _lanes(tl.program_id(1) // 2, ROWS, LANES)
    inside = lane < d
    tokens = h * w
    y_ptr = (rows_ptr if axis == 0 else columns_ptr) + picture * tokens * d
    x_ptr += picture * tokens * d
    dt_ptr += picture * tokens * d
    B_ptr += picture * tokens * B_apart
    C_ptr += picture * tokens * C_apart
    skip = tl.load(D_ptr + lane, mask=inside & (axis == 0), other=0.0)
    pixel, place, line, length, step = _first(chunk * CHUNK, axis, h, w)
    dts = ()
    inputs = ()
    y = ()
    where = ()
    for u in tl.static_range(CHUNK):
        valid = (chunk * CHUNK + u < tokens)[:, None] & inside
        at = pixel[:, None] * d + lane
        x = tl.load(x_ptr + at, mask=valid, other=0.0).to(tl.float32)
        dt = tl.load(dt_ptr + at, mask=valid, other=0.0)
        dts = dts + (dt,)
        inputs = inputs + (dt * x,)
        y = y + (skip * x,)
        where = where + (pixel,)
        pixel, place, line = _next(pixel, place, line, length, step)
    for n in range(N):
        A = tl.load(A_ptr + n * d + lane, mask=inside, other=0.0)
        binary = A * 1.4426950408889634
        mask = (chunk < chunks)[:, None] & inside
        summary = chunk[:, None] * d + lane
        plane = state_ptr + ((picture * 4 + 2 * axis) * N + n) * chunks * d
        ahead = tl.load(plane + summary, mask=mask, other=0.0)
        back = tl.load(plane + N * chunks * d + summary, mask=mask, other=0.0)
        decays = ()
        added = ()
        states = ()
        for u in tl.static_range(CHUNK):
            known = (chunk * CHUNK + u < tokens)[:, None]
            B = tl.load(B_ptr + where[u][:, None] * B_apart + n, mask=known, other=0.0).to(tl.float32)
            decays = decays + (tl.exp2(dts[u] * binary),)
            added = added + (inputs[u] * B,)
            ahead = decays[u] * ahead + added[u]
            states = states + (ahead,)
        sums = ()
        for v in tl.static_range(1, CHUNK + 1):
            known = (chunk * CHUNK + CHUNK - v < tokens)[:, None]
            C = tl.load(C_ptr + where[CHUNK - v][:, None] * C_apart + n, mask=known, other=0.0).to(tl.float32)
            back = decays[CHUNK - v] * back + added[CHUNK - v]
            sums = (y[CHUNK - v] + (states[CHUNK - v] + back) * C,) + sums
        y = sums
    for u in tl.static_range(CHUNK):
        valid = (chunk * CHUNK + u < tokens)[:, None] & inside
        tl.store(y_ptr + where[u][:, None] * d + lane, y[u], mask=valid)


@triton.jit
def _slope(dt):
    """The derivative of softplus from its value, `1 - exp(-dt)`, with the digits of small results."""
    series = dt * (1.0 - dt * (0.5 - dt * (0.16666667 - dt * 0.041666667)))
    return tl.where(dt < 0.1, series, 1.0 - _exp(-dt))


@triton.jit
def _add_gradients_of_start(
    k,
    pixel,
    n,
    total_A,
    total_bias,
    x_ptr,
    dt_ptr,
    A_ptr,
    B_ptr,
    B_apart,
    grad_x_ptr,
    grad_delta_ptr,
    grad_BC_ptr,
    lane,
    d: tl.constexpr,
    N: tl.constexpr,
):
    """Adds to what this program wrote of a corner what `k` `(1, LANES)`, the start state's gradient, gives.

    The start state is `x B / rate * factor(u)` with `u = dt rate`, and `u factor' - factor` is
    `-factor^2 exp(-u)`. Returns both totals.
    """
    tl.debug_barrier()  # other threads of this program wrote there
    inside = lane < d
    at = pixel * d + lane
    rate = -tl.load(A_ptr + n * d + lane, mask=inside, other=-1.0)
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    dt = tl.load(dt_ptr + at, mask=inside, other=0.0)
    B = tl.load(B_ptr + pixel * B_apart + n).to(tl.float32)
    u = dt * rate
    factor = _start_factor(u)
    left = _exp(-u)
    series = 0.5 + u * (0.16666667 - u * u * (0.0055555556 - u * u * 0.0001984127))
    slope = tl.where(u < 0.3, series, factor * (1.0 - factor * left) / tl.maximum(u, 0.3))
    grad_x = k * B / rate * factor + tl.load(grad_x_ptr + at, mask=inside, other=0.0)
    tl.store(grad_x_ptr + at, grad_x, mask=inside)
    corner = k * x * B * slope * _slope(dt)
    grad_delta = corner + tl.load(grad_delta_ptr + at, mask=inside, other=0.0)
    tl.store(grad_delta_ptr + at, grad_delta, mask=inside)
    grad_B = tl.sum(tl.sum(k * x / rate * factor, 1), 0) + tl.load(grad_BC_ptr + pixel * 2 * N + n)
    tl.store(grad_BC_ptr + pixel * 2 * N + n, grad_B)
    return total_A + k * x * B / (rate * rate) * factor * factor * left, total_bias + corner


@triton.jit(do_not_specialize=("h", "w", "chunks", "B_apart", "C_apart"))
def gradients(
    x_ptr,
    dt_ptr,
    A_ptr,
    B_ptr,
    C_ptr,
    D_ptr,
    grad_rows_ptr,
    grad_columns_ptr,
    state_ptr,
    adjoint_ptr,
    grad_x_ptr,
    grad_delta_ptr,
    grad_BC_ptr,
    grad_parameters_ptr,
    h,
    w,
    chunks,
    B_apart,
    C_apart,
    d: tl.constexpr,
    N: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Gradients by axis, `(2, P, h * w, d)`, and parts of the other ones, which still are to be added.

    Those of B and C are `(2, blocks of lanes, P, h * w, 2 N)`, those of A, bias and D below each other
    `(2, P, programs, N + 2, d)`.
    """
    picture = tl.program_id(2).to(tl.int64)
    pictures = tl.num_programs(2)
    axis = tl.program_id(1) % 2
    block = tl.program_id(1) // 2
    blocks: tl.constexpr = (d + LANES - 1) // LANES
    chunk = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    lane = _lanes(block, ROWS, LANES)
    once = (block * LANES + tl.arange(0, LANES))[None, :]
    inside = lane < d
    tokens = h * w
    grad_ptr = (grad_rows_ptr if axis == 0 else grad_columns_ptr) + picture * tokens * d
    x_ptr += picture * tokens * d
    dt_ptr += picture * tokens * d
    B_ptr += picture * tokens * B_apart
    C_ptr += picture * tokens * C_apart
    grad_x_ptr += (axis * pictures + picture) * tokens * d
    grad_delta_ptr += (axis * pictures + picture) * tokens * d
    grad_BC_ptr += ((axis * blocks + block) * pictures + picture) * tokens * 2 * N
    programs = tl.num_programs(0)
    grad_parameters_ptr += ((axis * pictures + picture) * programs + tl.program_id(0)) * (N + 2) * d
    skip = tl.load(D_ptr + lane, mask=inside & (axis == 0), other=0.0)
    sum_bias = tl.zeros((ROWS, LANES), tl.float32)
    sum_D = tl.zeros((ROWS, LANES), tl.float32)
    total_bias = tl.zeros((1, LANES), tl.float32)
    for n in range(N):
        A = tl.load(A_ptr + n * d + lane, mask=inside, other=0.0)
        binary = A * 1.4426950408889634
        mask = (chunk < chunks)[:, None] & inside
        plane = ((picture * 4 + 2 * axis) * N + n) * chunks * d + chunk[:, None] * d + lane
        ahead = tl.load(state_ptr + plane, mask=mask, other=0.0)
        back = tl.load(state_ptr + plane + N * chunks * d, mask=mask, other=0.0)
        to_start = tl.load(adjoint_ptr + plane, mask=mask, other=0.0)  # of the order that goes ahead
        to_end = tl.load(adjoint_ptr + plane + N * chunks * d, mask=mask, other=0.0)
        pixel, place, line, length, step = _first(chunk * CHUNK, axis, h, w)
        entered = ()
        adjoints = ()
        where = ()
        for u in tl.static_range(CHUNK):
            known = (chunk * CHUNK + u < tokens)[:, None]
            at = pixel[:, None] * d + lane
            x = tl.load(x_ptr + at, mask=known & inside, other=0.0).to(tl.float32)
            dt = tl.load(dt_ptr + at, mask=known & inside, other=0.0)
            grad = tl.load(grad_ptr + at, mask=known & inside, other=0.0).to(tl.float32)
            B = tl.load(B_ptr + pixel[:, None] * B_apart + n, mask=known, other=0.0).to(tl.float32)
            C = tl.load(C_ptr + pixel[:, None] * C_apart + n, mask=known, other=0.0).to(tl.float32)
            a = tl.exp2(dt * binary)
            entered = entered + (ahead,)
            ahead = a * ahead + dt * x * B
            adjoint = grad * C + to_end
            adjoints = adjoints + (adjoint,)
            to_end = a * adjoint
            where = where + (pixel,)
            pixel, place, line = _next(pixel, place, line, length, step)
        sum_A = tl.zeros((ROWS, LANES), tl.float32)
        for v in tl.static_range(1, CHUNK + 1):
            token = chunk * CHUNK + CHUNK - v
            known = (token < tokens)[:, None]
            here = where[CHUNK - v][:, None]
            at = here * d + lane
            x = tl.load(x_ptr + at, mask=known & inside, other=0.0).to(tl.float32)
            dt = tl.load(dt_ptr + at, mask=known & inside, other=0.0)
            grad = tl.load(grad_ptr + at, mask=known & inside, other=0.0).to(tl.float32)
            B = tl.load(B_ptr + here * B_apart + n, mask=known, other=0.0).to(tl.float32)
            C = tl.load(C_ptr + here * C_apart + n, mask=known, other=0.0).to(tl.float32)
            a = tl.exp2(dt * binary)
            adjoint = grad * C + to_start
            to_start = a * adjoint
            grad_b = adjoint + adjoints[CHUNK - v]
            grad_log_a = a * (adjoint * entered[CHUNK - v] + adjoints[CHUNK - v] * back)
            input = x * B
            back = a * back + dt * input
            state = a * entered[CHUNK - v] + dt * input + back
            grad_input = grad_b * dt
            grad_BC = here * (2 * N) + n
            tl.store(grad_BC_ptr + grad_BC, tl.sum(grad_input * x, 1, keep_dims=True), mask=known)
            tl.store(grad_BC_ptr + grad_BC + N, tl.sum(grad * state, 1, keep_dims=True), mask=known)
            grad_x = grad_input * B
            grad_delta = (grad_b * input + grad_log_a * A) * _slope(dt)
            sum_A += grad_log_a * dt
            sum_bias += grad_delta
            if n == 0:
                grad_x += skip * grad
                sum_D += x * grad
            if N > 1:  # added up in place, state by state
                more = known & inside & (n > 0)
                grad_x += tl.load(grad_x_ptr + at, mask=more, other=0.0)
                grad_delta += tl.load(grad_delta_ptr + at, mask=more, other=0.0)
            tl.store(grad_x_ptr + at, grad_x, mask=known & inside)
            tl.store(grad_delta_ptr + at, grad_delta, mask=known & inside)
        total_A = tl.sum(sum_A, 0, keep_dims=True)
        if tl.program_id(0) == 0:
            k = tl.sum(tl.where((chunk == 0)[:, None], to_start, 0.0), 0, keep_dims=True)
            total_A, total_bias = _add_gradients_of_start(
                k,
                0,
                n,
                total_A,
                total_bias,
                x_ptr,
                dt_ptr,
                A_ptr,
                B_ptr,
                B_apart,
                grad_x_ptr,
                grad_delta_ptr,
                grad_BC_ptr,
                once,
                d,
                N,
            )
        if tl.program_id(0) == programs - 1:
            k = tl.sum(tl.where((chunk == chunks - 1)[:, None], to_end, 0.0), 0, keep_dims=True)
            total_A, total_bias = _add_gradients_of_start(
                k,
                tokens - 1,
                n,
                total_A,
                total_bias,
                x_ptr,
                dt_ptr,
                A_ptr,
                B_ptr,
                B_apart,
                grad_x_ptr,
                grad_delta_ptr,
                grad_BC_ptr,
                once,
                d,
                N,
            )
        if N > 1:
            tl.debug_barrier()
        tl.store(grad_parameters_ptr + n * d + once, total_A, mask=once < d)
    total_bias += tl.sum(sum_bias, 0, keep_dims=True)
    tl.store(grad_parameters_ptr + N * d + once, total_bias, mask=once < d)
    total_D = tl.where(axis == 0, tl.sum(sum_D, 0, keep_dims=True), 0.0)
    tl.store(grad_parameters_ptr + (N + 1) * d + once, total_D, mask=once < d)
