"""The nodes of a tree at a place of its text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from convdsl.editing.names import children
from convdsl.syntax import ast

T = TypeVar("T", bound=ast.Node)


def path_to(tree: ast.Node, offset: int) -> list[ast.Node]:
    """The nodes that an offset lies in, the outermost first; of two that meet there the later."""
    path: list[ast.Node] = [tree]
    while True:
        inside = [n for n in children(path[-1]) if n.span.start <= offset <= n.span.end]
        if not inside:
            return path
        path.append(max(inside, key=lambda n: (n.span.start, -n.span.end)))


def innermost(path: list[ast.Node], *kinds: type[T]) -> T | None:
    """The last node of a path that is of one of the kinds."""
    return next((node for node in reversed(path) if isinstance(node, kinds)), None)


def calls_around(path: list[ast.Node]) -> Iterator[ast.Call]:
    """The calls on a path, the innermost first."""
    yield from (node for node in reversed(path) if isinstance(node, ast.Call))


def definition_around(path: list[ast.Node]) -> ast.Block | ast.Model | None:
    """The block or model that a path leads into."""
    found: Any = innermost(path, ast.Block, ast.Model)
    return found
