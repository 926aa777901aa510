"""`default` statements that come too late: what they speak of stands above them alone."""

from __future__ import annotations

from collections.abc import Sequence

from convdsl.elaborate.session import Session
from convdsl.elaborate.values import SPELLED
from convdsl.syntax import ast
from convdsl.syntax.walk import nodes


def check_defaults(session: Session, tree: ast.File) -> None:
    """Warn of defaults, of the file or of braces in it, below which their operator is not
    mentioned, and above which it is: what is mentioned nowhere may be handed over."""
    if "default" not in tree.span.source.text:
        return
    _check(session, tree.items)
    for node in nodes(tree):
        if isinstance(node, ast.Body):
            _check(session, node.statements)


def _check(session: Session, statements: Sequence[ast.Node]) -> None:
    for place, statement in enumerate(statements):
        for entry in statement.entries if isinstance(statement, ast.Default) else ():
            name = entry.callee.id
            above, below = tuple(statements[:place]), tuple(statements[place + 1 :])
            if _mentions(above, name) and not _mentions(below, name):
                text = f"this default comes too late: below it there is no `{name}`"
                help = ("it reaches what stands below it, to the end of the braces: move it up",)
                session.warn("W0201", text, entry.span, help=help)


def _mentions(statements: tuple[ast.Node, ...], name: str) -> bool:
    """Whether layers of the operator are made there, under any of its names."""
    operator = SPELLED.get(name)
    return operator is not None and any(
        isinstance(node, ast.Name) and (found := SPELLED.get(node.id)) and found.op is operator.op
        for node in nodes(statements)
        if not isinstance(node, ast.Default)
    )
