"""Ranks: how many elements along an axis come before each one, in ascending or descending order.

    rank[i] = sum[j < N](i64(select(j < i, not before(x[i], x[j]), before(x[j], x[i]))))

Equals stand in the order of their positions, and a NaN counts as larger than any number: ranks are
a permutation. As an expression it compares all pairs; who recognises it by its form sorts, or
selects the first few.
"""

from __future__ import annotations

from convdsl.kernel.expr import (
    Axis,
    Binary,
    Cast,
    Compare,
    Expr,
    IndexCompare,
    Reduce,
    Select,
    Stage,
    Unary,
    reindex,
)
from convdsl.tensor import DType
from convdsl.tensor.records import record


@record
class Ranks:
    """The parts of a stage that ranks: `value`, an expression of the stage's axes, along `axis`;
    the `largest` come first, or the smallest."""

    axis: Axis
    value: Expr
    largest: bool


def ranks(axis: Axis, other: Axis, value: Expr, *, largest: bool) -> Expr:
    """The rank of `value` among all along `axis`; `other` is a name for the same positions."""
    there = reindex(value, {axis.name: other.i})
    earlier = IndexCompare("lt", other.i, axis.i)
    not_after = Unary("not", _before(value, there, largest=largest))
    precedes = Select(earlier, not_after, _before(there, value, largest=largest))
    return Reduce("sum", (other,), Cast(precedes, DType.I64))


def _before(a: Expr, b: Expr, *, largest: bool) -> Expr:
    """Whether a comes before b; a NaN counts as larger than any number."""
    compared = Compare("gt" if largest else "lt", a, b)
    if not a.dtype.is_float:
        return compared
    first, second = (a, b) if largest else (b, a)
    only = Binary("and", Unary("isnan", first), Unary("not", Unary("isnan", second)))
    return Binary("or", compared, only)


def match_ranks(stage: Stage) -> Ranks | None:
    """The parts of a stage that ranks along one of its axes."""
    match stage.body:
        case Reduce(
            op="sum",
            axes=(other,),
            body=Cast(x=Select(condition=IndexCompare(op="lt", b=place), no=after)),
        ):
            compared = after.a if isinstance(after, Binary) else after
            axis = next((axis for axis in stage.axes if axis.i == place), None)
            if axis is None or axis.extent != other.extent or not isinstance(compared, Compare):
                return None
            found = Ranks(axis, compared.b, compared.op == "gt")
            rebuilt = ranks(axis, other, found.value, largest=found.largest)
            return found if rebuilt == stage.body else None
        case _:
            return None
