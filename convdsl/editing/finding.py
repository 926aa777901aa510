"""The nodes of a tree: all of them, and those at a place of its text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from convdsl.syntax import ast
from convdsl.syntax.walk import fields_of

T = TypeVar("T", bound=ast.Node)


def children(node: ast.Node) -> Iterator[ast.Node]:
    """The nodes right inside one, in order of the text."""
    stack: list[Any] = [getattr(node, name) for name in reversed(fields_of(type(node)))]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            stack.extend(reversed(item))  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(item, ast.Node):
            yield item


def everything(root: Any) -> Iterator[ast.Node]:
    """All nodes of a tree, in order of the text."""
    stack: list[Any] = [root]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            stack.extend(reversed(item))  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(item, ast.Node):
            yield item
            stack.extend(reversed(list(children(item))))


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
