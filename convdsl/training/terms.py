"""Formulas on values of a graph, written as in the papers that they come from.

    m = m + (g - m) * (1 - beta1)
    p = p - (rate / correction) * m / (v.sqrt() + eps)

Operands are values or numbers. A scalar beside a tensor of another type is cast to that: what is
one number is computed in double precision and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass

from convdsl.ir.build import Build
from convdsl.ir.graph import Value
from convdsl.tensor import DType


@dataclass(frozen=True, slots=True)
class Term:
    """A value in a formula; arithmetic with it adds nodes to the graph."""

    build: Build
    value: Value

    @property
    def dtype(self) -> DType:
        return self.value.type.dtype

    def __add__(self, other: Term | float) -> Term:
        return self if other == 0 else self._with("add", other)

    def __radd__(self, other: float) -> Term:
        return self + other

    def __sub__(self, other: Term | float) -> Term:
        return self if other == 0 else self._with("sub", other)

    def __rsub__(self, other: float) -> Term:
        return self._number(other)._with("sub", self)

    def __mul__(self, other: Term | float) -> Term:
        return self if other == 1 else self._with("mul", other)

    def __rmul__(self, other: float) -> Term:
        return self * other

    def __truediv__(self, other: Term | float) -> Term:
        return self._with("div", other)

    def __rtruediv__(self, other: float) -> Term:
        return self._number(other)._with("div", self)

    def __rpow__(self, base: float) -> Term:
        return self._number(base)._with("pow", self)

    def __gt__(self, other: Term | float) -> Term:
        return self._with("greater", other)

    def __le__(self, other: Term | float) -> Term:
        return self._with("less_equal", other)

    def sqrt(self) -> Term:
        """The square root."""
        return self._apply("sqrt")

    def abs(self) -> Term:
        """The magnitude."""
        return self._apply("abs")

    def sign(self) -> Term:
        """-1, 0 or 1."""
        return self._apply("sign")

    def maximum(self, other: Term | float) -> Term:
        """The larger one; NaN if one is."""
        return self._with("max", other)

    def minimum(self, other: Term | float) -> Term:
        """The smaller one; NaN if one is."""
        return self._with("min", other)

    def where(self, then: Term, otherwise: Term | float) -> Term:
        """Of a mask: `then` where it holds."""
        other = otherwise if isinstance(otherwise, Term) else then._number(otherwise)
        a, b = _alike(then, other)
        return Term(self.build, self.build("where", self.value, a.value, b.value))

    def both(self, other: Term) -> Term:
        """Whether two masks hold."""
        return self._with("logical_and", other)

    def norm(self) -> Term:
        """sqrt(sum of squares), a scalar of double precision."""
        if not self.value.type.rank:
            return self.cast(DType.F64).abs()
        return Term(self.build, self.build("reduce_l2", self.value, axes="all")).cast(DType.F64)

    def cast(self, dtype: DType) -> Term:
        """The same in another element type."""
        if dtype is self.dtype:
            return self
        return Term(self.build, self.build("cast", self.value, dtype=str(dtype)))

    def _number(self, number: float) -> Term:
        return Term(self.build, self.build.constant(number, self.dtype, name="number"))

    def _with(self, op: str, other: Term | float) -> Term:
        a, b = _alike(self, other if isinstance(other, Term) else self._number(other))
        return Term(self.build, self.build(op, a.value, b.value))

    def _apply(self, op: str) -> Term:
        return Term(self.build, self.build(op, self.value))


def _alike(a: Term, b: Term) -> tuple[Term, Term]:
    """Both of one type: that of the tensor, where one is a scalar."""
    if not a.value.type.rank:
        return a.cast(b.dtype), b
    return a, b.cast(a.dtype)
