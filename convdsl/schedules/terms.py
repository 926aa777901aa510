"""Which terms of a reduction count, as bounds of the loops over them.

    sum over t of (x[h - t] where 0 <= h - t < H, else 0) = sum over max(0, h - H + 1) <= t <= h

A test that moves with one reduced axis alone is a bound of its loop, and need not be asked again.
What it is compared with may be data (`Pick`): a loop over the elements of a region's cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from convdsl.kernel.expr import (
    Axis,
    Binary,
    Expr,
    IndexCompare,
    Literal,
    Reduce,
    Select,
)
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.tensor import Dim, ceil_div, dim_max, dim_min, floor_div, substitute, symbols_of

Range = tuple[Dim, Dim]  # the first position that counts, and the one behind the last


def counted(reduce: Reduce, at: Mapping[str, Dim], lane: str) -> tuple[Reduce, dict[str, Range]]:
    """The reduction without the tests that bound a single axis, and those bounds, at a place of the
    other axes; as it is where those that do not count are another term than the neutral one. What
    differs from `lane` to lane bounds nothing."""
    body = reduce.body
    if not isinstance(body, Select) or not isinstance(body.no, Literal):
        return reduce, {}
    if body.no.value != REDUCTIONS[reduce.op].neutral(body.dtype):
        return reduce, {}
    found: dict[str, Range] = {}
    left: list[Expr] = []
    for test in _joined(body.condition):
        bound = _bound(test, reduce.axes, at, lane) if isinstance(test, IndexCompare) else None
        if bound is None:
            left.append(test)
            continue
        name, (start, stop) = bound
        first, past = found.get(name, (0, _extent(reduce.axes, name)))
        found[name] = dim_max(first, start), dim_min(past, stop)
    return replace(reduce, body=_selected(body, left)), found


def _joined(condition: Expr) -> list[Expr]:
    if isinstance(condition, Binary) and condition.op == "and":
        return [*_joined(condition.a), *_joined(condition.b)]
    return [condition]


def _selected(body: Select, left: list[Expr]) -> Expr:
    if not left:
        return body.yes
    condition = left[0]
    for test in left[1:]:
        condition = Binary("and", condition, test)
    return replace(body, condition=condition)


def _extent(axes: tuple[Axis, ...], name: str) -> Dim:
    return next(axis.extent for axis in axes if axis.name == name)


def _bound(
    test: IndexCompare, axes: tuple[Axis, ...], at: Mapping[str, Dim], lane: str
) -> tuple[str, Range] | None:
    """The axis that a test bounds, and from where to where; None where it is not one alone, or
    where it differs from lane to lane."""
    difference = substitute(test.a - test.b, at)
    names = {symbol.name for symbol in symbols_of(difference)}
    moved = [axis for axis in axes if axis.name in names]
    if len(moved) != 1 or lane in names:
        return None
    (axis,) = moved
    rest = substitute(difference, {axis.name: 0})
    step = substitute(difference, {axis.name: 1}) - rest
    if not isinstance(step, int) or not step or difference != axis.i * step + rest:
        return None
    op, extent = test.op, axis.extent
    if op not in ("lt", "le", "gt", "ge"):
        return None
    if step < 0:  # turn it around: - rest + |step| i, compared the other way
        rest, step, op = -rest, -step, {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}[op]
    match op:
        case "lt":
            return axis.name, (0, ceil_div(-rest, step))
        case "le":
            return axis.name, (0, floor_div(-rest, step) + 1)
        case "ge":
            return axis.name, (ceil_div(-rest, step), extent)
        case _:
            return axis.name, (floor_div(-rest, step) + 1, extent)
