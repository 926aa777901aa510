"""Vectors that are computed together where functions are written out.

exp is a chain of twenty operations that wait for each other, and of as many constants. Where a
multiply-add cannot take a constant from memory into every lane by itself, each is an instruction of
its own: with four vectors side by side, one for four. And a processor looks no further ahead than a
vector or two, so that it is these four that fill the time in which one waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from typing import TypeVar

from convdsl.kernel import nodes
from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Binary, Compare, Expr, Unary, walk
from convdsl.kernel.formula import functions_of
from convdsl.kernel.nodes import Let, Statement, Store, Value, Var
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import DType

T = TypeVar("T")

_TOGETHER = 4  # of 16 registers: so much of each is needed at one time


def written_out(bodies: Iterable[Expr]) -> bool:
    """Whether any function of these is more than an operation or two of a processor."""
    return any(
        isinstance(node, Unary | Binary | Compare) and _is_long(node.op, node.dtype)
        for body in bodies
        for node in walk(body)
    )


def _is_long(name: str, dtype: DType) -> bool:
    function = FUNCTIONS[name]
    if not dtype.is_float or function.printed:
        return False
    if function.formula is None:
        return True
    return any(_is_long(part, dtype) for part in functions_of(function.formula))


def vectors_together(bodies: Iterable[Expr]) -> int:
    """How many vectors are computed side by side."""
    return _TOGETHER if written_out(bodies) else 1


def side_by_side(
    b: Builder, many: int, makers: Sequence[Callable[[], T]], loaded: Callable[[], Iterable[Var]]
) -> list[T]:
    """What each of the makers makes; statements of so many of them at a time step by step in turn.
    `loaded`: what one has named for those that follow."""
    if many == 1:
        return [make() for make in makers]
    made: list[T] = []
    for first in range(0, len(makers), many):
        bodies: list[list[Statement]] = []
        for make in makers[first : first + many]:
            with b.aside() as body:
                made.append(make())
            bodies.append(body)
        b.add(_in_turn(b, bodies, frozenset(var.name for var in loaded())))
    return made


def _in_turn(
    b: Builder, bodies: Sequence[list[Statement]], shared: frozenset[str]
) -> list[Statement]:
    """The statements of straight lines, in turns from the last ones back; what is shared first, so
    that it is there whoever comes first."""
    flat = [statement for body in bodies for statement in body]
    if not all(isinstance(statement, Let | Store) for statement in flat):
        return flat
    first = [s for s in flat if isinstance(s, Let) and s.var.name in shared]
    with b.aside() as steps:
        lines: list[list[Statement]] = []
        for body in bodies:
            for statement in body:
                if not (isinstance(statement, Let) and statement.var.name in shared):
                    _step_by_step(b, statement)
            lines.append([*steps])
            steps.clear()
    longest = max(map(len, lines))
    turns = [
        line[len(line) - longest + step]
        for step in range(longest)
        for line in lines
        if len(line) - longest + step >= 0
    ]
    return [*first, *turns]


_OPERATIONS = (nodes.Unary, nodes.Binary, nodes.Fma, nodes.Compare, nodes.Select, nodes.Cast)


def _step_by_step(b: Builder, statement: Statement) -> None:
    """A statement, and before it each operation that its value is made of."""
    assert isinstance(statement, Let | Store)
    b.add([replace(statement, value=_named_parts(b, statement.value))])


def _named_parts(b: Builder, value: Value) -> Value:
    """The same of names."""
    if not isinstance(value, _OPERATIONS):
        return value
    parts = {field.name: getattr(value, field.name) for field in fields(value)}
    named = {
        name: b.let(_named_parts(b, part))
        for name, part in parts.items()
        if isinstance(part, _OPERATIONS)
    }
    return replace(value, **named)
