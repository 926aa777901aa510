"""Running reductions: y[i] = the combination of v[j] over all j up to i, or before, or from i on.

    y[i, d] = sum[j < N](select(j <= i, v[j, d], 0))

is an ordinary reduction; who recognises it by its form walks along the axis once and puts out what
it has combined so far. Both combine in the order of j, but for one that runs backwards, which is
begun at the end.
"""

from __future__ import annotations

from convdsl.kernel.expr import (
    Axis,
    Cast,
    Expr,
    IndexCompare,
    Literal,
    Reduce,
    Select,
    Stage,
    indices_of,
    walk,
)
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.tensor import DType, symbols_of
from convdsl.tensor.records import record

_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


@record
class Running:
    """The parts of a running reduction: `value`, over `term`, is combined by `op`, one of
    `scalar.REDUCTIONS`, along `axis` of the output: up to each position, or from it on where it
    goes `backwards`, the position itself `included` or not. What comes of it is `stored` in a type
    that may be narrower than the one that it is combined in."""

    op: str
    axis: Axis
    term: Axis
    value: Expr
    backwards: bool
    included: bool
    stored: DType


def running(
    op: str, axis: Axis, term: Axis, value: Expr, *, backwards: bool, included: bool
) -> Reduce:
    """The reduction of `value` over those positions of `term` that come before one of `axis`."""
    sign = ("ge" if included else "gt") if backwards else ("le" if included else "lt")
    start = Literal(REDUCTIONS[op].neutral(value.dtype), value.dtype)
    return Reduce(op, (term,), Select(IndexCompare(sign, term.i, axis.i), value, start))


def match_running(stage: Stage) -> Running | None:
    """The parts of a stage that is a running reduction along one of its axes."""
    body = stage.body.x if isinstance(stage.body, Cast) else stage.body
    match body:
        case Reduce(
            axes=(term,),
            body=Select(
                condition=IndexCompare(op=sign, a=a, b=b), yes=value, no=Literal(value=start)
            ),
        ) if sign in _MIRRORED:
            if b == term.i:
                sign, a, b = _MIRRORED[sign], b, a
            axis = next((axis for axis in stage.axes if axis.i == b), None)
            reduce = body
            exact = reduce.accumulate in (None, value.dtype)
            exact = exact and start == REDUCTIONS[reduce.op].neutral(value.dtype)
            if a != term.i or axis is None or axis.extent != term.extent or not exact:
                return None
            mentioned = {
                s.name for e in walk(value) for at in indices_of(e) for s in symbols_of(at)
            }
            if axis.name in mentioned or any(isinstance(e, Reduce) for e in walk(value)):
                return None
            backwards, included = sign in ("gt", "ge"), sign in ("le", "ge")
            return Running(reduce.op, axis, term, value, backwards, included, stage.body.dtype)
        case _:
            return None
