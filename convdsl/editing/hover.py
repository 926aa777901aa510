"""What is said of the place that somebody points at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convdsl.editing.describing import documented, fenced, shown
from convdsl.editing.finding import definition_around, path_to
from convdsl.editing.symbols import LOCAL, Kind, Symbol
from convdsl.editing.view import View
from convdsl.elaborate.examination import Applied, Examination
from convdsl.elaborate.values import BlockValue
from convdsl.ir.graph import Value
from convdsl.ir.opdef import OpDef
from convdsl.syntax import ast

INSTANCES = 8
"""Of a layer in a block that is used often, what is listed."""

Pair = tuple[Examination, Applied]


@dataclass(frozen=True, slots=True)
class Hover:
    """Markdown, and the part of the text that it is about."""

    text: str
    start: int
    end: int


def hover(view: View, offset: int) -> Hover | None:
    """What the word, or the layer, at an offset is."""
    at = view.at(offset)
    if at is None:
        return None
    path = path_to(view.tree, at)
    symbols = [o.symbol for o in view.names.at(at) if o.symbol.kind is not Kind.UNKNOWN]
    node, pairs = _layer(view, path)
    if symbols and not _is_callee(path):
        node, pairs = (path[-1], pairs if _is_stage(path) else ())
    parts = [_layers(view, pairs)] if pairs and node is not None else []
    word = path[-1]
    if symbols:
        parts += [documented(view.project, symbol) for symbol in symbols[:2]]
        if not pairs:
            parts.append(_values(view, path, word, symbols[0]))
    elif isinstance(word, ast.Incoming | ast.Text) or not pairs:
        parts.append(_plain(view, word))
    found = view.now(*(_extent(word if symbols or not pairs else node or word)))
    text = "\n\n".join(part for part in parts if part)
    return Hover(text, *found) if text and found is not None else None


def _extent(node: ast.Node) -> tuple[int, int]:
    return node.span.start, node.span.end


def _is_callee(path: Sequence[ast.Node]) -> bool:
    """Whether the last node is the name of what is called."""
    around = path[-2] if len(path) > 1 else None
    return isinstance(around, ast.Call) and around.callee is path[-1]


def _is_stage(path: Sequence[ast.Node]) -> bool:
    """Whether the last node stands for a layer by its bare name."""
    around = path[-2] if len(path) > 1 else None
    if isinstance(around, ast.Named):
        return around.value is path[-1]
    return isinstance(around, ast.Chain) and path[-1] is not around.head


def _layer(view: View, path: Sequence[ast.Node]) -> tuple[ast.Node | None, Sequence[Pair]]:
    """The innermost node around that a layer came of, and the layers."""
    for node in reversed(path):
        if isinstance(node, ast.Body | ast.Block | ast.Model | ast.Chain):
            break
        pairs = view.known.applied(node)
        if pairs:
            return node, pairs
    return None, ()


def _layers(view: View, pairs: Sequence[Pair]) -> str:
    """The instances of a layer: one in words, several as a table."""
    if len(pairs) == 1:
        return _one(view, *pairs[0])
    rows = ["| layer | shape | parameters | MACs | sees |", "|---|---|---:|---:|---|"]
    several = len({examination.model for examination, _ in pairs}) > 1
    for examination, applied in pairs[:INSTANCES]:
        figure = view.known.figures.of(examination, applied)
        name = _name(applied)
        where = f"{examination.model}: {name}" if several else name
        shape = shown_result(applied.result)
        rows.append(
            f"| `{where}` | `{shape}` | {figure.params} | {figure.macs} | {figure.fields} |"
        )
    more = len(pairs) - INSTANCES
    return "\n".join(rows) + (f"\n\nand {more:,} more" if more > 0 else "")


def _one(view: View, examination: Examination, applied: Applied) -> str:
    figure = view.known.figures.of(examination, applied)
    incoming = ", ".join(shown_result(value) for value in applied.inputs)
    lines = [f"`{_name(applied)}`: `{incoming}` → `{shown_result(applied.result)}`"]
    lines.append(f"{figure.params} parameters, {figure.macs} MACs")
    if figure.fields:
        lines.append(f"sees {figure.fields}")
    return "  \n".join(lines)


def _name(applied: Applied) -> str:
    value = applied.result
    is_block = isinstance(applied.factory, BlockValue)
    return value.node.name if isinstance(value, Value) and not is_block else applied.name


def shown_result(value: Any) -> str:
    """The shape of a result; of several each."""
    fields = getattr(value, "fields", None)
    if isinstance(fields, dict):
        return ", ".join(f"{name} {shown(one)}" for name, one in fields.items())  # pyright: ignore[reportUnknownVariableType]
    return shown(value)


def _values(view: View, path: Sequence[ast.Node], word: ast.Node, symbol: Symbol) -> str:
    """What a name came to, in the instances of its block."""
    if symbol.kind not in LOCAL | {Kind.VALUE, Kind.OUTPUT}:
        return ""
    found = list(dict.fromkeys(map(shown_result, _distinct(view.known.values(word)))))
    if not found and symbol.kind is Kind.PARAMETER:
        return _default(path, symbol)
    if symbol.kind is Kind.INPUT and not found:
        return _declared(view, symbol)
    return _listed(found)


def _listed(found: Sequence[str]) -> str:
    text = ", ".join(f"`{value}`" for value in found[:INSTANCES])
    return f"{text}, ..." if len(found) > INSTANCES else text


def _distinct(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if not isinstance(value, OpDef)]


def _default(path: Sequence[ast.Node], symbol: Symbol) -> str:
    definition = definition_around(list(path))
    parameters = definition.parameters if definition is not None else ()
    found = next((p for p in parameters if p.name.id == symbol.id), None)
    return fenced(found.span.text) if found is not None and found.default is not None else ""


def _declared(view: View, symbol: Symbol) -> str:
    """What a model's input is."""
    for examination in view.analysis.examinations:
        if examination.model == symbol.owner and symbol.id in examination.graph.inputs:
            return f"`{examination.graph.inputs[symbol.id].type}`"
    return ""


def _plain(view: View, word: ast.Node) -> str:
    """`in`, and whatever else has a value."""
    found = list(dict.fromkeys(map(shown_result, _distinct(view.known.values(word)))))
    return f"what flows in: {_listed(found)}" if found and isinstance(word, ast.Incoming) else ""
