"""One node of any kind that is read, as an opset defines it, its operands and attributes drawn."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from op_cases.draw import Draw

from interop import drawn_compositions, drawn_positions, drawn_sampling
from interop.drawn_node import Generator, Node, axis_of, floats, image

# One operand


def unary(kind: str, d: Draw, opset: int, low: float = -4, high: float = 4, **how: Any) -> Node:
    x = floats(d, d.shape(d.integer(1, 4), 1, 4), low, high)
    chosen = {name: d.pick(*values) for name, values in how.items() if d.chance(0.7)}
    return Node(kind, {"x": x}, chosen)


def with_special(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(2))
    x = np.where(d.rng.random(x.shape) < 0.5, d.pick(np.inf, -np.inf, np.nan), x).astype("f4")
    chosen = {}
    if kind == "IsInf":
        chosen = {n: d.pick(0, 1) for n in ("detect_negative", "detect_positive") if d.chance()}
    return Node(kind, {"x": x}, chosen)


def masked(kind: str, d: Draw, opset: int) -> Node:
    return Node(kind, {"x": d.rng.random(d.shape(3)) < 0.5}, {})


# Several operands that broadcast


def two(d: Draw, dtype: str, one_way: bool = False) -> tuple[np.ndarray, np.ndarray]:
    shape = d.shape(d.integer(1, 4), 1, 4)
    low, high = (-5, 6) if dtype != "bool" else (0, 2)
    whole = dtype != "f4" and dtype != "f8"
    made = []
    for number in range(2):
        kept = [1 if d.chance(0.2) and (number or not one_way) else e for e in shape]
        kept = kept[d.integer(0, len(kept)) :] if number and d.chance(0.4) else kept
        x = d.rng.integers(low, high, kept) if whole else d.rng.uniform(-3, 3, kept)
        made.append(np.asarray(x).astype(dtype))
    return made[0], made[1]


def binary(kind: str, d: Draw, opset: int, *dtypes: str) -> Node:
    a, b = two(d, d.pick(*dtypes))
    if kind == "Div" and a.dtype.kind == "i":
        b = np.where(b == 0, 3, b).astype(b.dtype)
    if kind == "Pow":
        a = np.abs(a) + a.dtype.type(1) if a.dtype.kind == "f" else a
        b = np.abs(b) % 4 if b.dtype.kind == "i" else b
        if opset >= 12 and d.chance(0.4):
            b = np.round(b).astype(d.pick("i4", "i8", "f4"))
            b = np.abs(b) % 4 if a.dtype.kind == "i" else b
            b = b.astype(b.dtype)
    how: dict[str, Any] = {}
    if kind == "Mod":
        b = np.where(np.abs(b) < 1, 2, b).astype(b.dtype)
        how = {"fmod": 1} if a.dtype.kind == "f" or d.chance() else {}
    known = d.pick((), (), ("b",))
    return Node(kind, {"a": np.asarray(a), "b": np.asarray(b)}, how, known)


def of_types(*dtypes: str) -> Generator:
    return lambda kind, d, opset: binary(kind, d, opset, *dtypes)


def compared(kind: str, d: Draw, opset: int) -> Node:
    whole = ("i8", "i4") if opset >= 9 or kind == "Equal" else ()
    real = ("f4",) if kind != "Equal" or opset >= 11 else ()
    return binary(kind, d, opset, *whole, *real, *(("bool",) if kind == "Equal" else ()))


def variadic(kind: str, d: Draw, opset: int) -> Node:
    a, b = two(d, "f4")
    if opset < 8:
        b = floats(d, a.shape)
    whole = kind in ("Min", "Max") and opset >= 12 and d.chance(0.3)
    operands = {"a": a, "b": b}
    if d.chance():
        operands["c"] = floats(d, a.shape)
    if d.chance(0.1):
        operands = {"a": a}
    return Node(kind, {k: x.astype("i8") if whole else x for k, x in operands.items()}, {})


def where(kind: str, d: Draw, opset: int) -> Node:
    a, b = two(d, d.pick("f4", "i8"))
    condition, _ = two(d, "bool")
    try:
        np.broadcast_shapes(a.shape, b.shape, condition.shape)
    except ValueError:
        condition = np.array([True])
    return Node(kind, {"c": condition, "a": a, "b": b}, {})


# Views


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


def cast(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(2)).astype(d.pick("f4", "f8", "i8", "bool", "i4", "i1"))
    to = d.pick(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL,
                TensorProto.INT32, TensorProto.INT8)  # fmt: skip
    if kind == "CastLike":
        like = np.zeros(1, helper.tensor_dtype_to_np_dtype(to))
        return Node(kind, {"x": x, "l": like}, {}, d.pick((), ("l",)))
    return Node(kind, {"x": x}, {"to": to})


# Layers


def padding(d: Draw, rank: int, most: int) -> dict[str, Any]:
    if d.chance(0.3):
        return {"auto_pad": d.pick("SAME_UPPER", "SAME_LOWER", "VALID")}
    return {"pads": [d.integer(0, most) for _ in range(2 * rank)]} if d.chance(0.7) else {}


def conv(kind: str, d: Draw, opset: int) -> Node:
    rank, groups = d.integer(1, 2), d.pick(1, 1, 2)
    c, k = groups * d.integer(1, 3), groups * d.integer(1, 3)
    kernel = [d.integer(1, 3) for _ in range(rank)]
    x = floats(d, (d.integer(1, 2), c, *(d.integer(5, 8) for _ in range(rank))))
    shape = (c, k // groups, *kernel) if kind == "ConvTranspose" else (k, c // groups, *kernel)
    how: dict[str, Any] = {"group": groups, **padding(d, rank, 1)}
    if d.chance():
        how["strides"] = [d.integer(1, 2) for _ in range(rank)]
    if d.chance(0.3) and "auto_pad" not in how:
        how["dilations"] = [d.integer(1, 2) for _ in range(rank)]
    if kind == "ConvTranspose" and how.get("auto_pad"):
        del how["auto_pad"]
    operands = {"x": x, "w": floats(d, shape, -1, 1)}
    if d.chance(0.6):
        operands["b"] = floats(d, (k,))
    return Node(kind, operands, how, tuple(operands)[1:])


def pool(kind: str, d: Draw, opset: int) -> Node:
    rank = d.integer(1, 2)
    kernel = [d.integer(2, 3) for _ in range(rank)]
    how: dict[str, Any] = {"kernel_shape": kernel, **padding(d, rank, 1)}
    if d.chance(0.7):
        how["strides"] = [d.integer(1, 3) for _ in range(rank)]
    if "auto_pad" in how:  # windows apart, of the same size, ask for negative padding elsewhere
        how["strides"] = [
            min(s, k) for s, k in zip(how.get("strides", kernel), kernel, strict=True)
        ]
    since = {"MaxPool": 10, "AveragePool": 10, "LpPool": 18}[kind]
    if opset >= since and d.chance(0.4) and "auto_pad" not in how:
        how["ceil_mode"] = 1
    dilated = {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}[kind]
    if opset >= dilated and d.chance(0.3) and "auto_pad" not in how:
        how["dilations"] = [d.integer(1, 2) for _ in range(rank)]
    if kind == "AveragePool" and d.chance():
        how["count_include_pad"] = 1
    if kind == "LpPool" and d.chance():
        how["p"] = d.integer(1, 3)
    positions = kind == "MaxPool" and opset >= 8 and rank == 2 and d.chance(0.2)
    return Node(kind, {"x": image(d, rank, 6)}, how, (), 2 if positions else 1)


def unpool(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, (1, 1, 2, 2))
    i = np.int64([[[[0, 3], [12, 10]]]]) + 4 * np.int64([[[[d.integer(0, 1), 1], [0, 1]]]])
    return Node(kind, {"x": x, "i": i}, {"kernel_shape": [2, 2], "strides": [2, 2]})


def everywhere(kind: str, d: Draw, opset: int) -> Node:
    how = {"p": d.integer(1, 3)} if kind == "GlobalLpPool" and d.chance() else {}
    return Node(kind, {"x": image(d)}, how)


def norm(kind: str, d: Draw, opset: int) -> Node:
    x = image(d, 2)
    c = x.shape[1]
    eps = {"epsilon": d.pick(1e-3, 0.1)} if d.chance() else {}
    if kind == "LRN":
        how = {n: v for n, v in (("alpha", 0.02), ("beta", 0.5), ("bias", 2.0)) if d.chance()}
        return Node(kind, {"x": x}, {"size": d.pick(1, 3, 5), **how})
    if kind == "LayerNormalization":
        axis = d.pick(-1, 1, 2, -2)
        shape = x.shape[axis:]
        operands = {"x": x, "s": floats(d, shape)} | ({"b": floats(d, shape)} if d.chance() else {})
        return Node(kind, operands, {"axis": axis, **eps})
    if kind == "GroupNormalization":
        groups = d.pick(*(g for g in range(1, c + 1) if c % g == 0))
        each = (groups if opset < 21 else c,)
        operands = {"x": x, "s": floats(d, each), "b": floats(d, each)}
        return Node(kind, operands, {"num_groups": groups, **eps}, ("s", "b"))
    operands = {"x": x, "s": floats(d, (c,)), "b": floats(d, (c,))}
    if kind == "BatchNormalization":
        operands |= {"m": floats(d, (c,)), "v": floats(d, (c,), 0.2, 2)}
        if opset < 9 and d.chance(0.3):
            eps |= {"spatial": 1}
    return Node(kind, operands, eps, tuple(operands)[1:])


def gemm(kind: str, d: Draw, opset: int) -> Node:
    m, k, n = (d.integer(1, 5) for _ in range(3))
    how: dict[str, Any] = {t: 1 for t in ("transA", "transB") if d.chance()}
    how |= {t: d.pick(0.5, 2.0) for t in ("alpha", "beta") if d.chance(0.4)}
    a = floats(d, (k, m) if "transA" in how else (m, k))
    b = floats(d, (n, k) if "transB" in how else (k, n))
    operands = {"a": a, "b": b}
    if opset < 11 or d.chance(0.8):
        operands["c"] = floats(d, d.pick((n,), (m, n), (1, n), (m, 1), (1,)))
    return Node(kind, operands, how, d.pick((), ("b",), tuple(operands)[1:]))


def matmul(kind: str, d: Draw, opset: int) -> Node:
    m, k, n, b = (d.integer(1, 4) for _ in range(4))
    left, right = d.pick(
        ((m, k), (k, n)), ((b, m, k), (k, n)), ((b, m, k), (b, k, n)), ((k,), (k, n)),
        ((m, k), (k,)), ((2, 1, m, k), (b, k, n)),
    )  # fmt: skip
    return Node(kind, {"a": floats(d, left), "b": floats(d, right)}, {}, d.pick((), ("b",)))


def softmax(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(d.integer(2, 4), 1, 4))
    how = {"axis": axis_of(d, x.ndim, opset, 11)} if d.chance(0.8) else {}
    return Node(kind, {"x": x}, how)


def clip(kind: str, d: Draw, opset: int) -> Node:
    low, high = d.pick((-1.0, 1.0), (0.0, 6.0), (None, 0.5), (0.0, None), (1.0, -1.0), (None, None))
    x = floats(d, d.shape(3))
    if opset < 11:
        how = {"min": low, "max": high}
        return Node(kind, {"x": x}, {name: v for name, v in how.items() if v is not None})
    whole = opset >= 12 and d.chance(0.3)
    dtype = "i8" if whole else "f4"
    limits = {"low": low, "high": high}
    made = {n: None if v is None else np.asarray(round(v), dtype) for n, v in limits.items()}
    made = (
        made
        if whole
        else {n: None if v is None else np.asarray(v, "f4") for n, v in limits.items()}
    )
    while made and list(made.values())[-1] is None:
        made.popitem()
    known = tuple(name for name, v in made.items() if v is not None) if d.chance(0.8) else ()
    return Node(kind, {"x": (x * 3).astype(dtype), **made}, {}, known)


def prelu(kind: str, d: Draw, opset: int) -> Node:
    x = image(d, 2)
    c, w = x.shape[1], x.shape[3]
    slope = floats(d, d.pick((c, 1, 1), (1,), (1, c, 1, 1), (w,), x.shape))
    return Node(kind, {"x": x, "s": slope}, {}, d.pick((), ("s",)))


def dropout(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(3))
    outputs = d.pick(1, 1, 2)
    if opset < 12:  # onnxruntime has a mask of zeros there, whatever is kept
        return Node(kind, {"x": x}, {"ratio": 0.3} if d.chance() else {})
    ratio = {"r": np.float32(0.3)} if d.chance() else {}
    return Node(kind, {"x": x, **ratio}, {}, tuple(ratio), outputs)


def resize(kind: str, d: Draw, opset: int) -> Node:
    x = image(d, 2, 2)
    mode = d.pick("nearest", "linear")
    factors = np.float32([1, 1, d.pick(1, 2, 3, 0.5, 1.5), d.pick(1, 2, 0.5, 4)])
    if kind == "Upsample" or opset == 10:
        factors = np.maximum(factors, 1) if kind == "Upsample" else factors
        if kind == "Upsample" and opset < 9:
            return Node(kind, {"x": x}, {"scales": factors.tolist(), "mode": mode})
        return Node(kind, {"x": x, "s": factors}, {"mode": mode}, ("s",))
    words = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
    words += ["half_pixel_symmetric"] if opset >= 19 else []
    how: dict[str, Any] = {"mode": d.pick(mode, "cubic")}
    how["coordinate_transformation_mode"] = d.pick(*words)
    if how["mode"] == "nearest":
        how["nearest_mode"] = d.pick("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    if how["mode"] == "cubic" and d.chance():
        how["exclude_outside"] = 1
    if opset >= 18 and how["mode"] != "nearest" and d.chance(0.3):
        how["antialias"] = 1
    roi = np.zeros(0, "f4") if opset < 13 else None
    whole = how["coordinate_transformation_mode"] == "align_corners"
    if d.chance() or whole:
        sizes = np.int64([*x.shape[:2], d.integer(2, 9), d.integer(2, 9)])
        scales = np.zeros(0, "f4") if opset < 13 else None
        operands = {"x": x, "r": roi, "s": scales, "z": sizes}
        if opset >= 18 and d.chance(0.4):
            operands["z"], how["axes"] = sizes[2:], [2, 3]
    else:
        operands = {"x": x, "r": roi, "s": factors}
        if opset >= 18 and d.chance(0.4):
            operands["s"], how["axes"] = factors[2:], [2, 3]
    return Node(kind, operands, how, tuple(n for n in "rsz" if operands.get(n) is not None))


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


def quantised(kind: str, d: Draw, opset: int) -> Node:
    along = opset >= 13 and d.chance()
    shape, dtype = (2, 4, 3), d.pick("u1", "i1")
    scale = floats(d, (4,) if along else (), 0.1, 0.5)
    zero = d.rng.integers(0, 9, scale.shape).astype(dtype)
    x = floats(d, shape, -30, 30)
    x = x if kind == "QuantizeLinear" else np.abs(x).astype(dtype)
    how = {"axis": d.pick(1, -2)} if along else {}
    operands: dict[str, Any] = {"x": x, "s": np.asarray(scale), "z": np.asarray(zero)}
    return Node(kind, operands, how, ("s", "z"))


SLOPES = {"alpha": (0.25, 1.5, 0.01)}
GENERATORS: dict[str, Generator] = {
    **dict.fromkeys(
        ("Abs", "Neg", "Exp", "Ceil", "Floor", "Round", "Sign", "Erf", "Sigmoid", "Tanh",
         "Softplus", "Softsign", "Relu", "HardSwish", "Mish", "Identity"), unary),
    "Log": partial(unary, low=0.1), "Sqrt": partial(unary, low=0.0),
    "Reciprocal": partial(unary, low=0.2),
    "Selu": partial(unary, gamma=(1.0, 2.0), **SLOPES), "Elu": partial(unary, **SLOPES),
    "LeakyRelu": partial(unary, **SLOPES), "Celu": partial(unary, alpha=(0.5, 2.0)),
    "ThresholdedRelu": partial(unary, **SLOPES),
    "HardSigmoid": partial(unary, beta=(0.2, 0.6), **SLOPES),
    "Gelu": partial(unary, approximate=("none", "tanh")),
    "IsNaN": with_special, "IsInf": with_special, "Not": masked,
    **drawn_compositions.GENERATORS,
    **drawn_positions.GENERATORS,
    **drawn_sampling.GENERATORS,
    **dict.fromkeys(("Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Asinh"), unary),
    **dict.fromkeys(("Asin", "Acos", "Atanh"), partial(unary, low=-0.99, high=0.99)),
    "Acosh": partial(unary, low=1.01), "Mod": of_types("f4", "f8", "i8", "i4"),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow"), of_types("f4", "f8", "i8", "i4")),
    **dict.fromkeys(("And", "Or", "Xor"), of_types("bool")),
    **dict.fromkeys(("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"), compared),
    **dict.fromkeys(("Min", "Max", "Sum", "Mean"), variadic),
    "Where": where, "Reshape": reshape, "Squeeze": with_axes, "Unsqueeze": with_axes,
    "Flatten": flatten, "Transpose": transpose, "Expand": expand, "Tile": tile,
    "Concat": concat, "Split": split, "Slice": slices, "Gather": gather, "Pad": pad,
    "DepthToSpace": depth, "SpaceToDepth": depth, "Shape": shape_of, "Size": shape_of,
    "ConstantOfShape": constant_of_shape, "Constant": constant, "Cast": cast, "CastLike": cast,
    "Conv": conv, "ConvTranspose": conv, "MaxUnpool": unpool,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), pool),
    **dict.fromkeys(("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"), everywhere),
    **dict.fromkeys(
        ("BatchNormalization", "InstanceNormalization", "GroupNormalization",
         "LayerNormalization", "LRN"), norm),
    "Gemm": gemm, "MatMul": matmul, "Softmax": softmax, "LogSoftmax": softmax, "Clip": clip,
    "PRelu": prelu, "Dropout": dropout, "Resize": resize, "Upsample": resize,
    **dict.fromkeys(
        ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1",
         "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"), reduction),
    "ArgMax": selection, "ArgMin": selection, "TopK": top_k,
    "QuantizeLinear": quantised, "DequantizeLinear": quantised,
}  # fmt: skip
"""How nodes of each kind are drawn."""


def draw_node(kind: str, opset: int, seed: int) -> Node:
    """Node number `seed` of a kind as an opset defines it; the same on every run and machine."""
    return GENERATORS[kind](kind, Draw(seed, opset, *kind.encode()), opset)
