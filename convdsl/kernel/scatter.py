"""Reductions by position: y[j] = the combination of v[i] over all i whose index is j, in order.

    y[j, d] = sum[i < N](select(ids[i] == j, v[i, d], 0))
    y[j]    = max[i < N](select(ids[i] == j, i, lowest))        the last i that says j

is an ordinary reduction, and anything that runs reductions in order runs it; who recognises it by
its form can combine each v[i] where it belongs instead of looking at every i for every j. Both
give the same bits: what a combination starts from changes nothing (a zero, added to a sum that
began as 0), and what reaches one y is combined in the same order. Positions that y has not are
left out.
"""

from __future__ import annotations

from convdsl.kernel.expr import (
    Axis,
    Compare,
    Expr,
    IndexValue,
    Literal,
    Reduce,
    Select,
    indices_of,
    walk,
)
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.tensor import DType, symbols_of
from convdsl.tensor.records import record


@record
class Scatter:
    """The parts of a reduction by position: `value`, over `axes`, is combined by `op`, one of
    `scalar.REDUCTIONS`, where axis `place` of the output equals `index`, an i64."""

    op: str
    axes: tuple[Axis, ...]
    place: str
    index: Expr
    value: Expr


def combined_at(op: str, axes: tuple[Axis, ...], place: Axis, index: Expr, value: Expr) -> Reduce:
    """The reduction, over `axes` in ascending order, of the values whose `index` is the position
    along `place`, an axis of the output that neither index nor value knows of."""
    here = Compare("eq", index, IndexValue(place.i, DType.I64))
    start = Literal(REDUCTIONS[op].neutral(value.dtype), value.dtype)
    return Reduce(op, axes, Select(here, value, start))


def scatter_sum(axes: tuple[Axis, ...], place: Axis, index: Expr, value: Expr) -> Reduce:
    """The sum of the values whose `index` is the position along `place`."""
    return combined_at("sum", axes, place, index, value)


def match_scatter(e: Expr) -> Scatter | None:
    """The parts of an expression that is a reduction by position."""
    match e:
        case Reduce(
            body=Select(
                condition=Compare(op="eq", a=index, b=IndexValue(index=place, type=DType.I64)),
                yes=value,
                no=Literal(value=start),
            ),
        ):
            names = [s.name for s in symbols_of(place)]
            exact = e.accumulate in (None, value.dtype)
            exact = exact and start == REDUCTIONS[e.op].neutral(value.dtype)
            if len(names) != 1 or str(place) != names[0] or not exact:
                return None
            known = {*_mentioned(index), *_mentioned(value)}
            own = {axis.name for axis in e.axes}
            if names[0] in known | own or index.dtype is not DType.I64:
                return None
            return Scatter(e.op, e.axes, names[0], index, value)
        case _:
            return None


def _mentioned(e: Expr) -> set[str]:
    """Names of the axes in the indices of an expression."""
    return {s.name for node in walk(e) for at in indices_of(node) for s in symbols_of(at)}
