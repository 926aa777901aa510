"""Shapes beside the text, where a layer changes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convdsl.editing.finding import everything
from convdsl.editing.hover import shown_result
from convdsl.editing.view import View
from convdsl.elaborate.examination import Applied
from convdsl.ir.graph import Value
from convdsl.syntax import ast

LISTED = 12
"""Shapes that a layer has in instances of its block, in the words that come up for a hint."""


@dataclass(frozen=True, slots=True)
class Hint:
    """A shape to be shown behind an offset."""

    offset: int
    label: str
    tooltip: str


def hints(view: View, start: int, end: int) -> Iterator[Hint]:
    """The hints of a part of the text, in order."""
    for node in _within(view.tree, view.at(start), view.at(end)):
        if isinstance(node, ast.Let | ast.Assign):
            made = _bound(view, node)
        elif isinstance(node, ast.Call | ast.Name | ast.Arithmetic | ast.Signed | ast.Power):
            made = _layer(view, node)
        else:
            continue
        if made is not None and start <= made.offset <= end:
            yield made


def _within(tree: ast.File, start: int | None, end: int | None) -> Iterator[ast.Node]:
    low = 0 if start is None else start
    high = tree.span.source.text.__len__() if end is None else end
    for item in tree.items:
        if item.span.end >= low and item.span.start <= high:
            yield from everything(item)


def _layer(view: View, node: ast.Node) -> Hint | None:
    """A layer that gives another shape than it took; a name that stands for a layer is one too."""
    found = [applied for _, applied in view.known.applied(node)]
    if not found or not any(map(_changes, found)):
        return None
    return _hint(view, node.span.end, [shown_result(applied.result) for applied in found])


def _changes(applied: Applied) -> bool:
    result = applied.result
    if not isinstance(result, Value):
        return True
    tensors = [value for value in applied.inputs if isinstance(value, Value)]
    return not any(value.type == result.type for value in tensors)


def _bound(view: View, node: ast.Let | ast.Assign) -> Hint | None:
    """A name that a tensor is bound to, where the end of what is bound does not show it; of several
    each would crowd the line."""
    if len(node.targets) != 1 or _layer(view, _last(node.value)) is not None:
        return None
    values = [value for value in view.known.values(node.targets[0]) if isinstance(value, Value)]
    if not values:
        return None
    return _hint(view, node.targets[0].span.end, [shown_result(value) for value in values])


def _last(node: ast.Expression) -> ast.Expression:
    """What gives an expression its value: of a chain the last stage."""
    if isinstance(node, ast.Chain):
        node = node.stages[-1]
    return node.value if isinstance(node, ast.Named) else node


def _hint(view: View, offset: int, shapes: Sequence[str]) -> Hint | None:
    """One shape, or the first and the last of several."""
    now = view.now(offset, offset)
    if now is None:
        return None
    several = list(dict.fromkeys(shapes))
    label = several[0] if len(several) == 1 else f"{several[0]} … {several[-1]}"
    more = len(several) - LISTED
    listed = [f"`{shape}`" for shape in several[:LISTED]]
    tooltip = "\n\n".join([*listed, f"and {more:,} more"] if more > 0 else listed)
    return Hint(now[0], label, tooltip if len(several) > 1 else "")
