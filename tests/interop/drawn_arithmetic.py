"""Nodes of elementwise arithmetic: one operand, or several that broadcast."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from op_cases.draw import Draw

from interop.drawn_node import Generator, Node, floats, image


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


def cast(kind: str, d: Draw, opset: int) -> Node:
    x = floats(d, d.shape(2)).astype(d.pick("f4", "f8", "i8", "bool", "i4", "i1"))
    to = d.pick(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL,
                TensorProto.INT32, TensorProto.INT8)  # fmt: skip
    if kind == "CastLike":
        like = np.zeros(1, helper.tensor_dtype_to_np_dtype(to))
        return Node(kind, {"x": x, "l": like}, {}, d.pick((), ("l",)))
    return Node(kind, {"x": x}, {"to": to})


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
         "Softplus", "Softsign", "Relu", "HardSwish", "Mish", "Identity",
         "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Asinh"), unary),
    **dict.fromkeys(("Asin", "Acos", "Atanh"), partial(unary, low=-0.99, high=0.99)),
    "Log": partial(unary, low=0.1), "Sqrt": partial(unary, low=0.0),
    "Reciprocal": partial(unary, low=0.2), "Acosh": partial(unary, low=1.01),
    "Selu": partial(unary, gamma=(1.0, 2.0), **SLOPES), "Elu": partial(unary, **SLOPES),
    "LeakyRelu": partial(unary, **SLOPES), "Celu": partial(unary, alpha=(0.5, 2.0)),
    "ThresholdedRelu": partial(unary, **SLOPES),
    "HardSigmoid": partial(unary, beta=(0.2, 0.6), **SLOPES),
    "Gelu": partial(unary, approximate=("none", "tanh")),
    "IsNaN": with_special, "IsInf": with_special, "Not": masked,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Mod"), of_types("f4", "f8", "i8", "i4")),
    **dict.fromkeys(("And", "Or", "Xor"), of_types("bool")),
    **dict.fromkeys(("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"), compared),
    **dict.fromkeys(("Min", "Max", "Sum", "Mean"), variadic),
    "Where": where, "Clip": clip, "PRelu": prelu, "Cast": cast, "CastLike": cast,
    "QuantizeLinear": quantised, "DequantizeLinear": quantised,
}  # fmt: skip
