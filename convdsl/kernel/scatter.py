"""Sums by position: y[j] = the sum of v[i] over all i whose index is j, in ascending order of i.

    y[j, d] = sum[i < N](select(ids[i] == j, v[i, d], 0))

is an ordinary reduction, and anything that runs reductions in order runs it; who recognises it by
its form can add each v[i] where it belongs instead of looking at every i for every j. Both give
the same bits: a zero added to a sum that began as 0 changes nothing, and what is added to one y is
added in the same order. Positions that y has not are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from convdsl.kernel.expr import (
    Axis,
    Compare,
    Expr,
    IndexValue,
    Literal,
    Reduce,
    Select,
    indices_of,
    lift,
    walk,
)
from convdsl.tensor import DType, symbols_of


@dataclass(frozen=True, slots=True)
class Scatter:
    """The parts of a sum by position: `value`, over `axes`, is added where axis `place` of the
    output equals `index`, an i64."""

    axes: tuple[Axis, ...]
    place: str
    index: Expr
    value: Expr


def scatter_sum(axes: tuple[Axis, ...], place: Axis, index: Expr, value: Expr) -> Reduce:
    """The sum, over `axes` in ascending order, of the values whose `index` is the position along
    `place`, an axis of the output that neither index nor value knows of."""
    here = Compare("eq", index, IndexValue(place.i, DType.I64))
    return Reduce("sum", axes, Select(here, value, lift(0, value.dtype)))


def match_scatter(e: Expr) -> Scatter | None:
    """The parts of an expression that is a sum by position."""
    match e:
        case Reduce(
            op="sum",
            body=Select(
                condition=Compare(op="eq", a=index, b=IndexValue(index=place, type=DType.I64)),
                yes=value,
                no=Literal(value=0),
            ),
        ):
            names = [s.name for s in symbols_of(place)]
            exact = e.accumulate in (None, value.dtype)
            if len(names) != 1 or str(place) != names[0] or not exact:
                return None
            known = {*_mentioned(index), *_mentioned(value)}
            own = {axis.name for axis in e.axes}
            if names[0] in known | own or index.dtype is not DType.I64:
                return None
            return Scatter(e.axes, names[0], index, value)
        case _:
            return None


def _mentioned(e: Expr) -> set[str]:
    """Names of the axes in the indices of an expression."""
    return {s.name for node in walk(e) for at in indices_of(node) for s in symbols_of(at)}
