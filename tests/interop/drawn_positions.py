"""Nodes whose positions are data, or that choose by position; and products by an equation."""

from __future__ import annotations

from typing import Any

import numpy as np
from op_cases.draw import Draw
from op_cases.positions import DIAGONALS, EQUATIONS

from interop.drawn_node import Generator, Node, axis_of, floats


def along(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(d.integer(1, 3), 1, 5))
    axis = axis_of(d, x.ndim, opset, 11)
    low = -x.shape[axis] if opset >= 11 else 0
    if kind != "GatherElements":  # of several updates for one place any may win
        positions = np.argsort(d.rng.random(x.shape), axis=axis)
        count = d.integer(1, x.shape[axis])
        positions = np.take(positions, range(count), axis=axis)
        how: dict[str, Any] = {"axis": axis}
        updates = floats(d, positions.shape)
        if opset >= 16 and kind == "ScatterElements" and d.chance():
            words = ("add", "mul", "max", "min") if opset >= 18 else ("add", "mul")
            how["reduction"] = d.pick(*words)
            positions = d.rng.integers(low, x.shape[axis], positions.shape)
        operands = {"x": x, "i": positions.astype(d.pick("i4", "i8")), "u": updates}
        return Node(kind, operands, how, d.pick((), ("i",)))
    shape = list(x.shape)
    shape[axis] = d.integer(1, 6)
    positions = d.rng.integers(low, x.shape[axis], shape).astype(d.pick("i4", "i8"))
    return Node(kind, {"x": x, "i": positions}, {"axis": axis}, d.pick((), ("i",)))


def at(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(d.integer(2, 4), 1, 4))
    batch = d.integer(0, 1) if kind == "GatherND" and opset >= 12 else 0
    said = d.integer(1, x.ndim - batch)
    shape = (*x.shape[:batch], d.integer(1, 4), *([2] if d.chance(0.3) else []))
    extents = x.shape[batch : batch + said]
    if kind == "GatherND":
        positions = np.stack([d.rng.integers(-e, e, shape) for e in extents], -1)
        how = {"batch_dims": batch} if opset >= 12 and (batch or d.chance()) else {}
        return Node(kind, {"x": x, "i": positions}, how, d.pick((), ("i",)))
    count = int(np.prod(extents))
    flat = d.rng.permutation(count)[: d.integer(1, count)]
    positions = np.stack(np.unravel_index(flat, extents), -1)
    how = {}
    if opset >= 16 and d.chance():
        how["reduction"] = d.pick("add", "mul", *(("max", "min") if opset >= 18 else ()))
        positions = np.concatenate([positions, positions])
    updates = floats(d, (*positions.shape[:-1], *x.shape[said:]))
    return Node(kind, {"x": x, "i": positions, "u": updates}, how, d.pick((), ("i",)))


def cumsum(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(d.integer(1, 3), 1, 6))
    how = {name: 1 for name in ("exclusive", "reverse") if d.chance()}
    axis = np.asarray(axis_of(d, x.ndim, opset, 11), d.pick("i4", "i8"))
    return Node(kind, {"x": x, "a": axis}, how, ("a",))


def triangle(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(d.integer(2, 4), 1, 6))
    k = {"k": np.asarray(d.integer(-4, 4))} if d.chance(0.8) else {}
    return Node(kind, {"x": x, **k}, {"upper": d.integer(0, 1)} if d.chance(0.8) else {}, tuple(k))


def einsum(kind: str, d: Draw, opset: int) -> Node:
    equation = d.pick(*EQUATIONS, *DIAGONALS)
    sizes = {name: d.integer(1, 4) for name in "abcdehijklmnqw"}
    dots = [d.integer(1, 3) for _ in range(d.integer(0, 2))]
    operands: dict[str, Any] = {}
    for number, term in enumerate(equation.replace(" ", "").split("->")[0].split(",")):
        before, mark, after = term.partition("...")
        shape = [*(sizes[n] for n in before), *(dots if mark else []), *(sizes[n] for n in after)]
        operands[f"x{number}"] = floats(d, shape)
    known = ("x1",) if "x1" in operands and d.chance(0.3) else ()
    return Node(kind, operands, {"equation": equation}, known)


GENERATORS: dict[str, Generator] = {
    **dict.fromkeys(("GatherElements", "ScatterElements", "Scatter"), along),
    **dict.fromkeys(("GatherND", "ScatterND"), at),
    "CumSum": cumsum,
    "Trilu": triangle,
    "Einsum": einsum,
}
