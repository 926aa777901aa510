"""Walking syntax trees."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from convdsl.syntax import ast

SKIPPED: dict[type[ast.Node], set[str]] = {  # fields that hold no expressions of the block's own
    ast.Argument: {"name"},
    ast.Member: {"name"},
    ast.TypeExpression: {"dtype"},
    ast.Preprocess: {"steps"},
    ast.DefaultEntry: {"callee"},
    ast.Loop: {"targets"},
    ast.Let: {"targets"},
    ast.Assign: {"targets"},
    ast.Input: {"names"},
}


@functools.cache
def fields_of(kind: type[Any]) -> tuple[str, ...]:
    """What nodes of a kind consist of; nothing for what is no node, such as a number."""
    if not issubclass(kind, ast.Node):
        return ()
    return tuple(field.name for field in dataclasses.fields(kind) if field.name != "span")


def nodes(root: ast.Node | tuple[ast.Node, ...]) -> Iterator[ast.Node]:
    """The nodes of a tree in order of the text, names in roles of their own left out."""
    stack: list[Any] = [root]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            stack.extend(reversed(item))  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(item, ast.Node):
            yield item
            skipped = SKIPPED.get(type(item), ())
            fields = [name for name in fields_of(type(item)) if name not in skipped]
            stack.extend(getattr(item, name) for name in reversed(fields))
