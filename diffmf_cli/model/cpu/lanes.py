"""Arithmetic on vectors of `LANES` numbers in registers, as LLVM instructions for intrinsics of numba.

Of a loop over the lanes LLVM would make one lane after the other, since it unrolls it before it looks for
vectors.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from diffmf_cli.scan.numba_kernels import LANES

_LOG2E = 1.4426950408889634


class Lanes:
    """Instructions of one builder. Their arithmetic is that of `diffmf_cli.scan.numba_kernels`."""

    def __init__(self, build: Any, count: int = LANES) -> None:
        self.build, self.count = build, count
        self._numbers = ir.VectorType(ir.FloatType(), count)
        self._integers = ir.VectorType(ir.IntType(32), count)

    def load(self, data: Any, index: Any) -> Any:
        """The vector that starts at number `index`."""
        return self.build.load(self._line(data, index), align=4)

    def store(self, vector: Any, data: Any, index: Any) -> None:
        """Where `load` finds it."""
        self.build.store(vector, self._line(data, index), align=4)

    def everywhere(self, data: Any, index: Any) -> Any:
        """One number of memory in all lanes."""
        one = self.build.load(self.build.gep(data, [index]), align=4)
        nothing, zero = ir.Constant(self._numbers, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        first = self.build.insert_element(nothing, one, zero)
        return self.build.shuffle_vector(first, nothing, self._integer(0))

    def constant(self, value: float) -> Any:
        """A number in all lanes."""
        return ir.Constant(self._numbers, [float(np.float32(value))] * self.count)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """`x * y + z`, rounded once where the processor can."""
        return self.build.fadd(self.mul(x, y), z, flags=["contract"])

    def mul(self, x: Any, y: Any) -> Any:
        """`x * y`."""
        return self.build.fmul(x, y, flags=["contract"])

    def add(self, x: Any, y: Any) -> Any:
        """`x + y`."""
        return self.build.fadd(x, y, flags=["contract"])

    def sub(self, x: Any, y: Any) -> Any:
        """`x - y`."""
        return self.build.fsub(x, y, flags=["contract"])

    def softplus(self, x: Any) -> Any:
        """`log(1 + exp(x))`."""
        z = self._exp_of_minus(x)
        s = self.build.fdiv(z, self.build.fadd(z, self.constant(2)))
        p = self._polynomial(self.mul(s, s), 2 / 13, 2 / 11, 2 / 9, 2 / 7, 2 / 5, 2 / 3, 2)
        return self.fma(p, s, self.larger(x, self.constant(0)))

    def silu(self, x: Any) -> Any:
        """`x * sigmoid(x)`."""
        power = self.smaller(self.mul(x, self.constant(-_LOG2E)), self.constant(126))
        return self.build.fdiv(x, self.build.fadd(self.exp2(power), self.constant(1)))

    def gelu(self, x: Any) -> Any:
        """`x / 2 * (1 + erf(x / sqrt(2)))`, erf as a quotient of polynomials, to 1.5e-7."""
        limit = 5.3  # from here on it is 1, and the whole is 0 on the other side
        x = self.larger(x, self.constant(-limit))
        v = self.smaller(x, self.constant(limit))
        square = self.mul(v, v)
        p = self._polynomial(square, 1.2529742e-5, 6.8325196e-4, 1.1398838e-2, 1.0414142e-1, 7.9788365e-1)
        q = self._polynomial(square, 5.2983133e-7, 1.2253493e-4, 2.8634980e-3, 3.8829932e-2, 2.9718126e-1, 1)
        half = self.mul(x, self.constant(0.5))
        return self.fma(half, self.build.fdiv(self.mul(v, p), q), half)

    def exp2(self, x: Any) -> Any:
        """`2**x` for x <= 126."""
        build, shift = self.build, self.constant(12582912)
        x = self.larger(x, self.constant(-126))
        z = build.fadd(x, shift)
        f = build.fsub(x, build.fsub(z, shift))
        p = self._polynomial(f, 1.3264700e-3, 9.6715100e-3, 5.5507340e-2, 2.4022242e-1, 6.9314698e-1, 1)
        power = build.shl(build.bitcast(z, self._integers), self._integer(23))
        return build.bitcast(build.add(build.bitcast(p, self._integers), power), self._numbers)

    def _exp_of_minus(self, x: Any) -> Any:
        """`exp(-|x|)`."""
        bits = self.build.or_(self.build.bitcast(x, self._integers), self._integer(-(2**31)))
        return self.exp2(self.mul(self.build.bitcast(bits, self._numbers), self.constant(_LOG2E)))

    def _polynomial(self, x: Any, *coefficients: float) -> Any:
        p = self.constant(coefficients[0])
        for c in coefficients[1:]:
            p = self.fma(p, x, self.constant(c))
        return p

    def totals(self, vectors: list[Any]) -> Any:
        """The sum of all lanes of each of one or four vectors, as a vector of so many numbers."""
        parts = [self._halved(self._halved(x)) for x in vectors]  # four lanes of each
        if len(parts) == 1:
            return self._halved(self._halved(parts[0]))
        parts = [self._paired(x, y, [0, 1, 4, 5], [2, 3, 6, 7]) for x, y in (parts[:2], parts[2:])]
        return self._paired(parts[0], parts[1], [0, 2, 4, 6], [1, 3, 5, 7])

    def _halved(self, x: Any) -> Any:
        """The lower lanes plus the upper ones."""
        count = x.type.count // 2
        return self._paired(x, x, list(range(count)), list(range(count, 2 * count)))

    def _paired(self, x: Any, y: Any, first: list[int], second: list[int]) -> Any:
        """Some lanes of `x` and `y` plus others."""
        masks = (ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes) for lanes in (first, second))
        return self.build.fadd(*(self.build.shuffle_vector(x, y, mask) for mask in masks))

    def lane(self, x: Any, number: int) -> Any:
        """One lane of another vector in all lanes."""
        return self.build.shuffle_vector(x, x, self._integer(number))

    def smaller(self, x: Any, y: Any) -> Any:
        """The smaller of both."""
        return self.build.select(self.build.fcmp_ordered("<", x, y), x, y)

    def larger(self, x: Any, y: Any) -> Any:
        """The larger of both."""
        return self.build.select(self.build.fcmp_ordered(">", x, y), x, y)

    def _line(self, data: Any, index: Any) -> Any:
        return self.build.bitcast(self.build.gep(data, [index]), self._numbers.as_pointer())

    def _integer(self, value: int) -> Any:
        return ir.Constant(self._integers, [value] * self.count)


def loop(
    build: Any, count: Any, entered: list[Any], body: Callable[[Any, list[Any]], list[Any]]
) -> list[Any]:
    """`count` steps of `body(i, values) -> values`, at least one, from `entered` on; the last values."""
    before = build.block
    inside, done = build.append_basic_block("loop"), build.append_basic_block("done")
    build.branch(inside)
    build.position_at_end(inside)
    i = build.phi(count.type)
    values = [build.phi(value.type) for value in entered]
    after = body(i, values)
    following = build.add(i, ir.Constant(count.type, 1))
    i.add_incoming(ir.Constant(count.type, 0), before)
    i.add_incoming(following, build.block)
    for value, old, new in zip(values, entered, after, strict=True):
        value.add_incoming(old, before)
        value.add_incoming(new, build.block)
    build.cbranch(build.icmp_signed("<", following, count), inside, done)
    build.position_at_end(done)
    return after
