"""Blocks and models that nothing instantiates: at least their names are checked.

What a block computes is known only with arguments, but a name that nothing defines, or a
keyword that an operator does not have, is wrong with any.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from convdsl.elaborate import foreign
from convdsl.elaborate.builtins import BUILTINS, NUMBERS
from convdsl.elaborate.expressions import WORDS
from convdsl.elaborate.scope import Scope
from convdsl.elaborate.session import Session, suggest
from convdsl.ir.opdef import Role
from convdsl.ops import SPELLINGS
from convdsl.syntax import ast

KNOWN = frozenset({*BUILTINS, *NUMBERS, *SPELLINGS, *WORDS})
"""Names that need no definition."""

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


def check_unused(session: Session, tree: ast.File, scope: Scope, used: set[int]) -> None:
    """Report names without meaning in the definitions of the file that are not in `used`."""
    visible = set(scope.visible())
    for item in tree.items:
        if isinstance(item, ast.Block | ast.Model) and id(item) not in used:
            _check(session, item, visible)


def _check(session: Session, definition: ast.Block | ast.Model, visible: set[str]) -> None:
    nodes = list(_nodes(definition.body))
    for parameter in definition.parameters:
        if parameter.default is not None:
            nodes += _nodes(parameter.default)
    bound = {parameter.name.id for parameter in definition.parameters} | set(_bound(nodes))
    for node in nodes:
        if isinstance(node, ast.Name):
            if not any(node.id in names for names in (bound, visible, KNOWN)):
                text = f"unknown name `{node.id}`"
                help = foreign.name(node.id) or suggest(node.id, bound | visible | KNOWN)
                session.fail("E0201", text, node.span, help=help)
        elif isinstance(node, ast.Call) and isinstance(node.callee, ast.Name):
            _check_keywords(session, node, node.callee, (bound, visible))


def _check_keywords(
    session: Session, node: ast.Call, callee: ast.Name, own: tuple[set[str], ...]
) -> None:
    op = SPELLINGS.get(callee.id) if not any(callee.id in names for names in own) else None
    if op is None:
        return
    known = [a.name for a in op.attributes]
    known += [operand.name for operand in op.operands if operand.role is not Role.DATA]
    for argument in node.arguments:
        if argument.name is not None and argument.name.id not in known:
            session.fail(
                "E0301",
                f"`{callee.id}` has no argument `{argument.name.id}`",
                argument.name.span,
                help=foreign.argument(argument.name.id, known)
                or suggest(argument.name.id, known)
                or (f"it takes {', '.join(known)}",),
            )


def _bound(nodes: list[ast.Node]) -> Iterator[str]:
    """Names that some statement or loop of the block binds."""
    for node in nodes:
        match node:
            case ast.Let() | ast.Assign() | ast.Loop():
                yield from (target.id for target in node.targets)
            case ast.Input():
                yield from (name.id for name in node.names)
                extents = node.type.extents if node.type is not None else ()
                for extent in extents:
                    yield from (n.id for n in _nodes(extent) if isinstance(n, ast.Name))
            case _:
                pass


def _nodes(root: ast.Node) -> Iterator[ast.Node]:
    """The nodes of a tree in order of the text, names in roles of their own left out."""
    stack: list[Any] = [root]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            stack.extend(reversed(item))  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(item, ast.Node):
            yield item
            skipped = SKIPPED.get(type(item), set())
            fields = [f.name for f in dataclasses.fields(item) if f.name not in skipped]
            stack.extend(getattr(item, name) for name in reversed(fields) if name != "span")
