"""What a statement that failed would have bound: lost with it, and not missed again later."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Stop
from convdsl.elaborate.values import POISON
from convdsl.syntax import ast
from convdsl.syntax.walk import nodes


@contextmanager
def losing(bodies: tuple[ast.Body, ...], context: Context) -> Generator[None]:
    """Where bodies cannot be run, what they would have bound, or put out, is poison."""
    try:
        yield
    except Stop:
        for node in nodes(bodies):
            match node:
                case ast.Let() | ast.Assign():
                    context.scope.names.update((name.id, POISON) for name in node.targets)
                case ast.Sink() | ast.Output():
                    _lose_output(node.label, context)
                case _:
                    pass
        raise


def _lose_output(label: ast.Text, context: Context) -> None:
    name = "".join(part for part in label.parts if isinstance(part, str))
    context.results.values.setdefault(name, POISON)
    if not context.scope.find(name)[0]:
        context.scope.names[name] = POISON
    context.results.spans.setdefault(name, label.span)
