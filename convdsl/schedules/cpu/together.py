"""Vectors that are computed together where functions are written out.

exp is a chain of twenty operations that wait for each other, and of as many constants. Where a
multiply-add cannot take a constant from memory into every lane by itself, each is an instruction of
its own: with four vectors side by side, one for four. And a processor looks no further ahead than a
vector or two, so that it is these four that fill the time in which one waits.
"""

from __future__ import annotations

from collections.abc import Iterable

from convdsl.kernel.expr import Binary, Compare, Expr, Unary, walk
from convdsl.kernel.formula import functions_of
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import DType

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
