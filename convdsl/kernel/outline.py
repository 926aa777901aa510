"""Stages in which a reduction is all there is, or there is none: every sum is then a value that
can be read, kept and differentiated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from convdsl.kernel.expr import (
    Axis,
    Expr,
    Pick,
    Read,
    Reduce,
    Stage,
    TensorExpr,
    TensorVar,
    children,
    indices_of,
    rebuild,
    walk,
)
from convdsl.tensor import TensorType, symbols_of


def outlined(expr: TensorExpr) -> tuple[Stage, ...]:
    """The stages of an expression, reductions inside of others' bodies as stages before them."""
    taken = {s.target.name for s in expr.stages} | {x.name for x in expr.inputs}

    def unused(wanted: str) -> str:
        while wanted in taken:
            wanted += "_"
        taken.add(wanted)
        return wanted

    return tuple(part for stage in expr.stages for part in _split(stage, unused))


def _split(stage: Stage, unused: Callable[[str], str]) -> list[Stage]:
    before: list[Stage] = []

    def cut(e: Expr, around: tuple[Axis, ...]) -> Expr:
        """`e` without reductions, which are stages `before`."""
        if not isinstance(e, Reduce):
            inside = (*around, e.axis) if isinstance(e, Pick) else around
            parts = tuple(cut(child, inside) for child in children(e))
            return rebuild(e, parts) if parts else e
        value = replace(e, body=cut(e.body, (*around, *e.axes)))
        used = _axes_of(value)
        axes = tuple(axis for axis in around if axis.name in used)
        type = TensorType(e.dtype, tuple(axis.extent for axis in axes))
        target = TensorVar(unused(f"{stage.target.name}_{e.op}"), type)
        before.append(Stage(target, axes, value))
        return Read(target, tuple(axis.i for axis in axes))

    body = stage.body
    if isinstance(body, Reduce):
        body = replace(body, body=cut(body.body, (*stage.axes, *body.axes)))
    else:
        body = cut(body, stage.axes)
    return [*before, replace(stage, body=body)]


def _axes_of(e: Expr) -> frozenset[str]:
    """Names of all symbols in the indices of an expression."""
    indices = (index for part in walk(e) for index in indices_of(part))
    return frozenset(s.name for index in indices for s in symbols_of(index))
