"""Blocks and models that nothing instantiates: at least their names are checked.

What a block computes is known only with arguments, but a name that nothing defines, or a
keyword that an operator does not have, is wrong with any.
"""

from __future__ import annotations

from collections.abc import Iterator

from convdsl.elaborate import foreign
from convdsl.elaborate.builtins import BUILTINS, NUMBERS
from convdsl.elaborate.expressions import WORDS
from convdsl.elaborate.scope import Scope
from convdsl.elaborate.session import Session, suggest
from convdsl.ir.opdef import Role
from convdsl.ir.starts import STARTS
from convdsl.ops import SPELLINGS
from convdsl.syntax import ast
from convdsl.syntax.walk import nodes

KNOWN = frozenset({*BUILTINS, *NUMBERS, *SPELLINGS, *WORDS, *STARTS})
"""Names that need no definition."""


def check_unused(session: Session, tree: ast.File, scope: Scope, used: set[int]) -> None:
    """Report names without meaning in the definitions of the file that are not in `used`."""
    visible = set(scope.visible())
    for item in tree.items:
        if isinstance(item, ast.Block | ast.Model) and id(item) not in used:
            _check(session, item, visible)


def _check(session: Session, definition: ast.Block | ast.Model, visible: set[str]) -> None:
    found = list(nodes(definition.body))
    for parameter in definition.parameters:
        if parameter.default is not None:
            found += nodes(parameter.default)
    bound = {parameter.name.id for parameter in definition.parameters} | set(_bound(found))
    words = {id(value) for node in found for value in _starts(node)}
    for node in found:
        if isinstance(node, ast.Name):
            if id(node) not in words and not any(
                node.id in names for names in (bound, visible, KNOWN)
            ):
                text = f"unknown name `{node.id}`"
                help = foreign.name(node.id) or suggest(node.id, bound | visible | KNOWN)
                session.fail("E0201", text, node.span, help=help)
        elif isinstance(node, ast.Call) and isinstance(node.callee, ast.Name):
            _check_keywords(session, node, node.callee, (bound, visible))


def _starts(node: ast.Node) -> Iterator[ast.Expression]:
    """Words of elsewhere for what weights start from, which are told of where they are used."""
    for argument in node.arguments if isinstance(node, ast.Call) else ():
        value = argument.value
        if argument.name is not None and isinstance(value, ast.Name) and foreign.start(value.id):
            yield value


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


def _bound(found: list[ast.Node]) -> Iterator[str]:
    """Names that some statement or loop of the block binds, and those of its outputs."""
    for node in found:
        match node:
            case ast.Let() | ast.Assign() | ast.Loop():
                yield from (target.id for target in node.targets)
            case ast.Sink() | ast.Output():
                if node.label.plain is not None:
                    yield node.label.plain
            case ast.Input():
                yield from (name.id for name in node.names)
                extents = node.type.extents if node.type is not None else ()
                for extent in extents:
                    yield from (n.id for n in nodes(extent) if isinstance(n, ast.Name))
            case _:
                pass
