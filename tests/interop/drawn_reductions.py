"""Nodes that reduce along axes, or select along one."""

from __future__ import annotations

from typing import Any

import numpy as np
from op_cases.draw import Draw

from interop.drawn_node import Generator, Node, axis_of, floats


def softmax(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(d.integer(2, 4), 1, 4))
    how = {"axis": axis_of(d, x.ndim, opset, 11)} if d.chance(0.8) else {}
    return Node(kind, {"x": x}, how)


def reduction(kind: str, d: Draw, opset: int) -> Node:
    positive = kind in ("ReduceLogSum", "ReduceLogSumExp")
    x = floats(d, d.shape(d.integer(1, 4), 1, 4), 0.1 if positive else -2, 2)
    count = d.integer(0, x.ndim)
    axes = sorted(d.rng.choice(x.ndim, count, replace=False).tolist())
    how: dict[str, Any] = {"keepdims": d.integer(0, 1)} if d.chance(0.7) else {}
    if opset >= 11:
        axes = [a - x.ndim if d.chance(0.3) else a for a in axes]
    by_input = opset >= 18 or (kind == "ReduceSum" and opset >= 13)
    if by_input and not axes and d.chance() and kind in ("ReduceSum", "ReduceMax", "ReduceMean"):
        how["noop_with_empty_axes"] = 1
    if not axes:
        return Node(kind, {"x": x}, how)
    if by_input:
        return Node(kind, {"x": x, "a": np.int64(axes)}, how, ("a",))
    return Node(kind, {"x": x}, {**how, "axes": axes})


def selection(kind: str, d: Draw, opset: int) -> Node:
    x = d.rng.integers(-3, 4, d.shape(d.integer(1, 3), 1, 5)).astype("f4")
    how: dict[str, Any] = {"keepdims": d.integer(0, 1)} if d.chance(0.7) else {}
    if d.chance(0.8):
        how["axis"] = axis_of(d, x.ndim, opset, 11)
    if opset >= 12 and d.chance():
        how["select_last_index"] = 1
    return Node(kind, {"x": x}, how)


def top_k(kind: str, d: Draw, opset: int) -> Node:
    x = d.distinct(d.shape(d.integer(1, 3), 1, 5)).astype("f4")
    axis = axis_of(d, x.ndim, opset, 11)
    k = d.integer(1, x.shape[axis])
    if opset < 10:
        return Node(kind, {"x": x}, {"k": k, "axis": axis}, (), 2)
    how: dict[str, Any] = {"axis": axis}
    if opset >= 11 and d.chance():
        how["largest"] = 0
    return Node(kind, {"x": x, "k": np.int64([k])}, how, ("k",), 2)


GENERATORS: dict[str, Generator] = {
    "Softmax": softmax, "LogSoftmax": softmax,
    **dict.fromkeys(
        ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1",
         "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"), reduction),
    "ArgMax": selection, "ArgMin": selection, "TopK": top_k,
}  # fmt: skip
