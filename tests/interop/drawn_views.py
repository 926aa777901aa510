"""Nodes that move elements, make shapes or constants."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper
from op_cases.draw import Draw

from interop.drawn_arithmetic import two
from interop.drawn_node import Generator, Node, axis_of, floats


def reshape(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, (2, 3, 4))
    wanted = d.pick([2, 12], [0, -1], [-1], [4, 0, 2], [0, 2, -1], [3, 2, 4, 1])
    how = {}
    if opset >= 14 and 0 not in wanted and d.chance():
        how = {"allowzero": 1}
    return Node(kind, {"x": x, "s": np.int64(wanted)}, how, ("s",))


def with_axes(kind: str, d: Draw, opset: int) -> Node:
    """Squeeze and Unsqueeze: axes are an attribute before 13."""
    shape = [d.pick(1, 2, 3) for _ in range(4)]
    ones = [axis for axis, extent in enumerate(shape) if extent == 1]
    axes = [axis for axis in ones if d.chance(0.7)] or ones[:1]
    if kind == "Unsqueeze":
        axes = sorted(d.rng.choice(5, d.integer(1, 2), replace=False).tolist())
        shape = shape[: 5 - len(axes)]
    full = 5 if kind == "Unsqueeze" else 4
    if kind == "Unsqueeze":
        shape = shape[: full - len(axes)]
        full = len(shape) + len(axes)
    if opset >= 11:
        axes = [axis - full if d.chance(0.3) else axis for axis in axes]
    x = floats(d, shape)
    if kind == "Squeeze" and (not axes or d.chance(0.3)):
        return Node(kind, {"x": x}, {})
    if opset >= 13:
        return Node(kind, {"x": x, "a": np.int64(axes)}, {}, ("a",))
    return Node(kind, {"x": x}, {"axes": axes})


def flatten(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(d.integer(1, 4), 1, 4))
    low = -x.ndim if opset >= 11 else 0
    how = {"axis": d.integer(low, x.ndim)} if d.chance(0.8) else {}
    return Node(kind, {"x": x}, how)


def transpose(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(d.integer(1, 4), 1, 4))
    how = {"perm": d.rng.permutation(x.ndim).tolist()} if d.chance(0.8) else {}
    return Node(kind, {"x": x}, how)


def expand(kind: str, d: Draw, opset: int) -> Node:
    a, b = two(d, "f4")
    shape = np.broadcast_shapes(a.shape, b.shape)
    return Node(kind, {"x": b, "s": np.int64(d.pick(a.shape, shape))}, {}, ("s",))


def tile(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(d.integer(1, 3), 1, 4))
    return Node(kind, {"x": x, "r": d.rng.integers(1, 4, x.ndim)}, {}, ("r",))


def concat(kind: str, d: Draw, opset: int) -> Node:
    shape = list(d.shape(d.integer(1, 4), 1, 4))
    axis = axis_of(d, len(shape), opset, 11)
    operands = {}
    for number in range(d.integer(1, 4)):
        shape[axis] = d.integer(1, 4)
        operands[f"x{number}"] = floats(d, shape)
    return Node(kind, operands, {"axis": axis})


def split(kind: str, d: Draw, opset: int) -> Node:
    shape = list(d.shape(d.integer(1, 3), 1, 4))
    axis = axis_of(d, len(shape), opset, 11)
    parts = [d.integer(1, 3) for _ in range(d.integer(1, 3))]
    even = d.chance()
    how: dict[str, Any] = {"axis": axis}
    shape[axis] = sum(parts)
    operands: dict[str, Any] = {}
    if even:
        shape[axis] = parts[0] * len(parts)
        if opset >= 18:
            how["num_outputs"] = len(parts)
            shape[axis] -= d.integer(0, 1) if parts[0] > 1 else 0
    elif opset < 13:
        how["split"] = parts
    else:
        operands = {"s": np.int64(parts)}
    return Node(kind, {"x": floats(d, shape), **operands}, how, tuple(operands), len(parts))


def slices(kind: str, d: Draw, opset: int) -> Node:
    shape = d.shape(d.integer(1, 4), 2, 6)
    axes = sorted(d.rng.choice(len(shape), d.integer(1, len(shape)), replace=False).tolist())
    starts, ends, steps = [], [], []
    for axis in axes:
        extent = shape[axis]
        first, last = sorted(d.rng.choice(extent + 1, 2, replace=False).tolist())
        step = 1 if opset < 10 else d.pick(1, 1, 2, -1)
        if step < 0:
            first, last = last - 1, first - 1 if first else -extent - 1
        elif d.chance(0.3):
            first, last = first - extent, d.pick(last, 1 << 31)
            first = min(first, -1)
        starts, ends, steps = [*starts, first], [*ends, last], [*steps, step]
    x = floats(d, shape)
    by_order = axes == list(range(len(axes))) and d.chance()
    if opset < 10:
        how = {"starts": starts, "ends": ends} | ({} if by_order else {"axes": axes})
        return Node(kind, {"x": x}, how)
    if opset >= 11:
        axes = [a - len(shape) if d.chance(0.2) else a for a in axes]
    limits: dict[str, Any] = {"b": np.int64(starts), "e": np.int64(ends)}
    limits["a"] = None if by_order else np.int64(axes)
    if any(step != 1 for step in steps):
        limits["s"] = np.int64(steps)
    if limits["a"] is None and "s" not in limits:
        del limits["a"]
    known = tuple(name for name, array in limits.items() if array is not None)
    return Node(kind, {"x": x, **limits}, {}, known)


def gather(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(d.integer(1, 3), 1, 5))
    axis = axis_of(d, x.ndim, opset, 11)
    low = -x.shape[axis] if opset >= 11 else 0
    i = d.rng.integers(low, x.shape[axis], d.pick((), (1,), (3,), (2, 2)), d.pick("i4", "i8"))
    return Node(kind, {"x": x, "i": np.asarray(i)}, {"axis": axis}, d.pick((), ("i",)))


def pad(kind: str, d: Draw, opset: int) -> Node:
    mode = d.pick("constant", "reflect", "edge", *(("wrap",) if opset >= 19 else ()))
    x = floats(d, d.shape(4, 3, 6))
    around = [0, 0, *(d.integer(0, 2) for _ in range(2))]
    around += [0, 0, *(d.integer(0, 2) for _ in range(2))]
    if mode == "constant" and d.chance(0.3):
        around[2] = -1
        around[5] = 1
    how: dict[str, Any] = {"mode": mode} if d.chance(0.9) or mode != "constant" else {}
    value = d.pick(0.0, 1.5, -2.0)
    if opset < 11:
        return Node(kind, {"x": x}, {**how, "pads": around, "value": value})
    operands: dict[str, Any] = {"p": np.int64(around), "v": np.float32(value)}
    if opset >= 18 and d.chance():
        operands["p"] = np.int64([1, 0, 2, 1])
        operands["a"] = np.int64(d.pick([2, 3], [3, 2], [-1, 2]))
    return Node(kind, {"x": x, **operands}, how, tuple(operands))


def depth(kind: str, d: Draw, opset: int) -> Node:
    b = d.integer(1, 3)
    n, c, h, w = 1, d.integer(1, 2), d.integer(1, 3), d.integer(1, 3)
    if kind == "SpaceToDepth":
        return Node(kind, {"x": floats(d, (n, c, h * b, w * b))}, {"blocksize": b})
    how = {"mode": d.pick("DCR", "CRD")} if opset >= 11 and d.chance(0.7) else {}
    return Node(kind, {"x": floats(d, (n, c * b * b, h, w))}, {"blocksize": b, **how})


def shape_of(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(d.integer(1, 4)))
    how = {}
    if kind == "Shape" and opset >= 15:
        how = {name: d.integer(-x.ndim, x.ndim) for name in ("start", "end") if d.chance()}
        if len(range(x.ndim)[how.get("start", 0) : how.get("end", x.ndim)]) == 0:
            how = {}
    return Node(kind, {"x": x}, how)


def constant_of_shape(kind: str, d: Draw, opset: int) -> Node:
    value = d.pick(np.float32([1.5]), np.int64([3]), np.array([True]))
    how = {"value": numpy_helper.from_array(value)} if d.chance(0.8) else {}
    return Node(kind, {"s": np.int64(d.shape(3))}, how, ("s",))


def constant(kind: str, d: Draw, opset: int) -> Node:
    array = d.pick(floats(d, (2, 3)), np.int64([1, 2]), np.float64(3.5))
    how: dict[str, Any] = {"value": numpy_helper.from_array(array)}
    if opset >= 12 and d.chance():
        how = d.pick({"value_float": 1.5}, {"value_int": 3}, {"value_floats": [1.0, 2.5]},
                     {"value_ints": [1, 2, 3]})  # fmt: skip
    return Node(kind, {}, how)


GENERATORS: dict[str, Generator] = {
    "Reshape": reshape, "Squeeze": with_axes, "Unsqueeze": with_axes,
    "Flatten": flatten, "Transpose": transpose, "Expand": expand, "Tile": tile,
    "Concat": concat, "Split": split, "Slice": slices, "Gather": gather, "Pad": pad,
    "DepthToSpace": depth, "SpaceToDepth": depth, "Shape": shape_of, "Size": shape_of,
    "ConstantOfShape": constant_of_shape, "Constant": constant,
}  # fmt: skip
