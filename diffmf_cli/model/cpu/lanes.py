"""Arithmetic on vectors of `LANES` numbers in registers, as LLVM instructions for intrinsics of numba.

Of a loop over the lanes LLVM would make one lane after the other, since it unrolls it before it looks for
vectors.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from diffmf_cli.scan.numba_kernels import LANES

VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_LOG2E = 1.4426950408889634


class Lanes:
    """Instructions of one builder. Their arithmetic is that of `diffmf_cli.scan.numba_kernels`."""

    def __init__(self, build: Any) -> None:
        self.build = build

    def load(self, data: Any, index: Any) -> Any:
        """The vector that starts at number `index`."""
        return self.build.load(self._line(data, index), align=4)

    def store(self, vector: Any, data: Any, index: Any) -> None:
        """Where `load` finds it."""
        self.build.store(vector, self._line(data, index), align=4)

    def everywhere(self, data: Any, index: Any) -> Any:
        """One number of memory in all lanes."""
        one = self.build.load(self.build.gep(data, [index]), align=4)
        nothing, zero = ir.Constant(VECTOR, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        first = self.build.insert_element(nothing, one, zero)
        return self.build.shuffle_vector(first, nothing, self._integer(0))

    def constant(self, value: float) -> Any:
        """A number in all lanes."""
        return ir.Constant(VECTOR, [float(np.float32(value))] * LANES)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """`x * y + z`, rounded once where the processor can."""
        return self.build.fadd(self.mul(x, y), z, flags=["contract"])

    def mul(self, x: Any, y: Any) -> Any:
        """`x * y`."""
        return self.build.fmul(x, y, flags=["contract"])

    def softplus(self, x: Any) -> Any:
        """`log(1 + exp(x))`."""
        z = self._exp_of_minus(x)
        s = self.build.fdiv(z, self.build.fadd(z, self.constant(2)))
        p = self._polynomial(self.mul(s, s), 2 / 13, 2 / 11, 2 / 9, 2 / 7, 2 / 5, 2 / 3, 2)
        return self.fma(p, s, self.larger(x, self.constant(0)))

    def silu(self, x: Any) -> Any:
        """`x * sigmoid(x)`."""
        z, one = self._exp_of_minus(x), self.constant(1)
        positive = self.build.fcmp_ordered(">=", x, self.constant(0))
        above = self.mul(x, self.build.select(positive, one, z))
        return self.build.fdiv(above, self.build.fadd(z, one))

    def exp2(self, x: Any) -> Any:
        """`2**x` for x <= 0."""
        build, shift = self.build, self.constant(12582912)
        x = self.larger(x, self.constant(-126))
        z = build.fadd(x, shift)
        f = build.fsub(x, build.fsub(z, shift))
        p = self._polynomial(
            f, 1.5403530e-4, 1.3333558e-3, 9.6181291e-3, 5.5504109e-2, 2.4022651e-1, 6.9314718e-1, 1
        )
        power = build.shl(build.bitcast(z, _INTEGERS), self._integer(23))
        return build.bitcast(build.add(build.bitcast(p, _INTEGERS), power), VECTOR)

    def _exp_of_minus(self, x: Any) -> Any:
        """`exp(-|x|)`."""
        bits = self.build.or_(self.build.bitcast(x, _INTEGERS), self._integer(-(2**31)))
        return self.exp2(self.mul(self.build.bitcast(bits, VECTOR), self.constant(_LOG2E)))

    def _polynomial(self, x: Any, *coefficients: float) -> Any:
        p = self.constant(coefficients[0])
        for c in coefficients[1:]:
            p = self.fma(p, x, self.constant(c))
        return p

    def larger(self, x: Any, y: Any) -> Any:
        """The larger of both."""
        return self.build.select(self.build.fcmp_ordered(">", x, y), x, y)

    def _line(self, data: Any, index: Any) -> Any:
        return self.build.bitcast(self.build.gep(data, [index]), VECTOR.as_pointer())

    @staticmethod
    def _integer(value: int) -> Any:
        return ir.Constant(_INTEGERS, [value] * LANES)


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
