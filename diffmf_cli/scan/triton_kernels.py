"""The scan's recurrence as Triton kernels; see `triton_scan`.

A program walks one order of one picture for `LANES` channels. Loads of a stretch of tokens are issued
together before the recurrence consumes them, since what bounds a walk is latency, not arithmetic.
"""

import triton
import triton.language as tl


@triton.jit
def _position(t, order, h, w):
    """Flat pixel of token `t` in one of the four orders."""
    length = h * w
    t = tl.where(order % 2 == 1, length - 1 - t, t)
    return tl.where(order >= 2, (t % h) * w + t // h, t)


@triton.jit
def forward(a_ptr, b_ptr, start_ptr, state_ptr, h, w, m, LANES: tl.constexpr, STRETCH: tl.constexpr):
    """States of all orders, `(4, B, h * w, m)`, from `a`, `b` `(B, h * w, m)` and `start` `(B, 2, m)`."""
    picture, order, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = h * w
    lane = block * LANES + tl.arange(0, LANES)
    inside = lane < m
    base = picture.to(tl.int64) * length * m
    plane = (order.to(tl.int64) * tl.num_programs(0) + picture) * length * m
    state = tl.load(start_ptr + (picture * 2 + order % 2) * m + lane, mask=inside, other=0.0)
    for t in range(0, length, STRETCH):
        a = ()
        b = ()
        for u in tl.static_range(STRETCH):
            p = _position(tl.minimum(t + u, length - 1), order, h, w)
            offset = p.to(tl.int64) * m + lane
            a = a + (tl.load(a_ptr + base + offset, mask=inside, other=0.0),)
            b = b + (tl.load(b_ptr + base + offset, mask=inside, other=0.0),)
        for u in tl.static_range(STRETCH):
            p = _position(tl.minimum(t + u, length - 1), order, h, w)
            state = a[u] * state + b[u]
            offset = p.to(tl.int64) * m + lane
            tl.store(state_ptr + plane + offset, state, mask=inside & (t + u < length))


@triton.jit
def backward(
    a_ptr,
    start_ptr,
    state_ptr,
    grad_ptr,
    grad_a_ptr,
    grad_b_ptr,
    grad_start_ptr,
    h,
    w,
    m,
    LANES: tl.constexpr,
    STRETCH: tl.constexpr,
):
    """Gradients of `a` and `b`, `(4, B, h * w, m)`, and of the start states, `(4, B, m)`, order by order."""
    picture, order, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = h * w
    lane = block * LANES + tl.arange(0, LANES)
    inside = lane < m
    base = picture.to(tl.int64) * length * m
    plane = (order.to(tl.int64) * tl.num_programs(0) + picture) * length * m
    start = tl.load(start_ptr + (picture * 2 + order % 2) * m + lane, mask=inside, other=0.0)
    carry = tl.zeros((LANES,), tl.float32)  # a_{t+1} g_{t+1}
    for done in range(0, length, STRETCH):
        a = ()
        grad = ()
        before = ()
        for u in tl.static_range(STRETCH):
            t = length - 1 - done - u
            offset = _position(tl.maximum(t, 0), order, h, w).to(tl.int64) * m + lane
            earlier = _position(tl.maximum(t - 1, 0), order, h, w).to(tl.int64) * m + lane
            a = a + (tl.load(a_ptr + base + offset, mask=inside, other=0.0),)
            grad = grad + (tl.load(grad_ptr + base + offset, mask=inside, other=0.0),)
            before = before + (tl.load(state_ptr + plane + earlier, mask=inside & (t > 0), other=0.0),)
        for u in tl.static_range(STRETCH):
            t = length - 1 - done - u
            offset = _position(tl.maximum(t, 0), order, h, w).to(tl.int64) * m + lane
            g = grad[u] + carry
            carry = a[u] * g
            tl.store(grad_b_ptr + plane + offset, g, mask=inside & (t >= 0))
            entered = tl.where(t == 0, start, before[u])
            tl.store(grad_a_ptr + plane + offset, g * entered, mask=inside & (t >= 0))
            if t == 0:
                tl.store(
                    grad_start_ptr + (order * tl.num_programs(0) + picture) * m + lane, carry, mask=inside
                )
