"""Stages over other names of their axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from convdsl.kernel.expr import Axis, Expr, Pick, Reduce, Stage, reindex, transform
from convdsl.tensor import Dim


def renamed(stage: Stage, names: Mapping[str, Axis]) -> Stage:
    """The same stage, its axes and those of its reductions under other names."""
    body = reindex(stage.body, {name: axis.i for name, axis in names.items()})

    def rule(node: Expr) -> Expr | None:
        if isinstance(node, Reduce):
            axes = tuple(names.get(axis.name, axis) for axis in node.axes)
            return Reduce(node.op, axes, node.body)
        return None

    axes = tuple(names.get(axis.name, axis) for axis in stage.axes)
    return Stage(stage.target, axes, transform(body, rule))


def over(stage: Stage, axes: tuple[Axis, ...]) -> Stage:
    """The same stage over other names of its axes."""
    if stage.axes == axes:
        return stage
    taken = frozenset(axis.name for axis in (*axes, *stage.axes))
    body = _without_capture(stage.body, taken)
    own: dict[str, Dim] = {
        old.name: new.i for old, new in zip(stage.axes, axes, strict=True) if old.name != new.name
    }
    return Stage(stage.target, axes, reindex(body, own))


def _without_capture(e: Expr, taken: frozenset[str]) -> Expr:
    """Rename axes of reductions and picks that bear the names of others."""

    def rule(node: Expr) -> Expr | None:
        if not isinstance(node, Reduce | Pick):
            return None
        own = node.axes if isinstance(node, Reduce) else (node.axis,)
        axes = tuple(Axis(_free_name(a.name, taken), a.extent) for a in own)
        bindings = {old.name: new.i for old, new in zip(own, axes, strict=True)}
        body = reindex(node.body, bindings)
        if isinstance(node, Reduce):
            return replace(node, axes=axes, body=body)
        return replace(node, axis=axes[0], body=body)

    return transform(e, rule)


def _free_name(name: str, taken: frozenset[str]) -> str:
    while name in taken:
        name += "_"
    return name
