"""Types that are only stored: arithmetic on them, written as arithmetic in the types that compute.

    x: f16, y: i8          y[i] = x[i] * 2
    becomes                y[i] = i8(f32(x[i]) * 2)

What is read is widened by a cast, what a stage defines is narrowed by one, and a value that the
expression itself casts to such a type is rounded there and widened again; what is only moved stays
as it is stored. So an expression means the same however its stages are fused, and whoever executes
it meets such types in reads, selects, picks and casts alone. A machine that computes in one of
them leaves that one as it is.
"""

from __future__ import annotations

from dataclasses import replace

from convdsl.kernel.expr import (
    Cast,
    Expr,
    IndexValue,
    Literal,
    Pick,
    Read,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    children,
    rebuild,
    walk,
)
from convdsl.tensor.conversion import convert, stored


def widened(expr: TensorExpr) -> TensorExpr:
    """The same tensors by arithmetic in types that compute; the expression itself where all do."""
    if all(map(_computes, expr.stages)):
        return expr
    stages = (replace(stage, body=held(stage.body)) for stage in expr.stages)
    return replace(expr, stages=tuple(stages))


def _computes(stage: Stage) -> bool:
    return all(node.dtype.computes for node in walk(stage.body))


def held(e: Expr) -> Expr:
    """The value of `e` in its own type, stored or not."""
    match e:
        case Read() | Literal():
            return e
        case Select():
            return Select(computed(e.condition), held(e.yes), held(e.no))
        case Pick():
            return replace(e, index=computed(e.index), body=held(e.body))
        case Cast():
            return Cast(held(e.x), e.type)
        case _ if e.dtype.computes:
            return computed(e)
        case _:
            return Cast(computed(e), e.dtype)


def computed(e: Expr) -> Expr:
    """The value of `e` in the type that its own computes in."""
    dtype = e.dtype
    match e:
        case Literal():
            return _literal(e)
        case IndexValue() if not dtype.computes:
            return _rounded(IndexValue(e.index, dtype.computed), e)
        case Read() | Cast():
            return held(e) if dtype.computes else Cast(held(e), dtype.computed)
        case Reduce() if e.accumulate is not None and not dtype.computes:
            return _rounded(Reduce(e.op, e.axes, computed(e.body), dtype.computed), e)
        case _:
            return rebuild(e, tuple(map(computed, children(e))))


def _rounded(x: Expr, e: Expr) -> Expr:
    """`x` as an element of the type of `e` holds it, in the type that this computes in."""
    return Cast(Cast(x, e.dtype), e.dtype.computed)


def _literal(e: Literal) -> Expr:
    if e.type.computes:
        return e
    wide = e.type.computed
    return Literal(convert(stored(e.value, e.type), e.type, wide).item(), wide)
