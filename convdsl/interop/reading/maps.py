"""Elementwise operators, from ONNX."""

from __future__ import annotations

from functools import partial, reduce
from math import inf

import numpy as np

from convdsl.interop.element_types import FROM_ONNX
from convdsl.interop.reading.node import Reading
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, shape_of
from convdsl.interop.reading.windows import Result, Rule
from convdsl.ir.graph import OpNode, Value
from convdsl.tensor import DType

INTEGERS = (2, 3, 4, 5, 6, 12, 13)
"""ONNX's other integer types, held in 64 bits."""


def same(op: str, **attributes: str) -> Rule:
    """y = op(x), attributes by their ONNX names where given."""

    def rule(r: Reading) -> Tensor:
        given = {ours: r.attribute(theirs) for ours, theirs in attributes.items()}
        return r.unary(op, r[0], **{key: v for key, v in given.items() if v is not None})

    return rule


def binary(op: str) -> Rule:
    def rule(r: Reading) -> Tensor:
        return r.binary(op, r[0], aligned(r))

    return rule


def aligned(r: Reading) -> Tensor:
    """The second operand; before opset 7 it may say along which axis it broadcasts."""
    axis = r.attribute("axis")
    if r.opset >= 7 or axis is None or not r.attribute("broadcast", 0):
        return r[1]
    shape = r.shape(1)
    wanted = (*shape, *[1] * (r.rank(0) - axis % r.rank(0) - len(shape)))
    tensor = r[1]
    if isinstance(tensor, Known):
        return Known(tensor.array.reshape([r.extent(size) for size in wanted]), tensor.name)
    return r.reshape(tensor, wanted)


def add(r: Reading) -> Tensor:
    """A sum; the bias of a linear layer right before it joins that layer."""
    for x, bias in ((r[0], r[1]), (r[1], r[0])):
        if not isinstance(x, Value) or not isinstance(bias, Known):
            continue
        layer = x.node
        if (
            isinstance(layer, OpNode)
            and layer.op.name == "linear"
            and "bias" not in layer.inputs
            and shape_of(bias) == (layer.attributes["channels"],)
            and r.scene.is_spent(x)
        ):
            return r.scene.replace_bias(layer, bias)
    return r.binary("add", r[0], aligned(r))


def division(r: Reading) -> Tensor:
    """Integers divide towards zero, in doubles: exact as far as doubles hold integers."""
    if r.dtype(0).is_float:
        return r.binary("div", r[0], aligned(r))
    a, b = (r.unary("cast", x, dtype="f64") for x in (r[0], aligned(r)))
    return r.unary("cast", r.binary("div", a, b), dtype="i64")


def mul(r: Reading) -> Tensor:
    """A product; x * sigmoid(x) is silu."""
    for x, gate in ((r[0], r[1]), (r[1], r[0])):
        node = gate.node if isinstance(gate, Value) else None
        if isinstance(node, OpNode) and node.op.name == "sigmoid" and node.inputs["x"] is x:
            return r.unary("silu", x)
    return r.binary("mul", r[0], aligned(r))


def power(r: Reading) -> Tensor:
    if r.is_number(1) and r.dtype(0).is_float:
        exponent = float(np.asarray(r.array(1)).reshape(-1)[0])
        if exponent == 0.5:
            return r.unary("sqrt", r[0])
        if exponent == 2.0:
            return r.binary("mul", r[0], r[0])
    if r.dtype(0) is r.dtype(1) and r.dtype(0).is_float:
        return r.binary("pow", r[0], aligned(r))
    return _power_of_others(r)


def _power_of_others(r: Reading) -> Tensor:
    """In doubles; the result has the base's dtype."""
    a, b = (r.unary("cast", x, dtype="f64") for x in (r[0], aligned(r)))
    result = r.binary("pow", a, b)
    if r.dtype(0) is DType.I64:
        result = r.unary("round", result)
    return r.unary("cast", result, dtype=str(r.dtype(0)))


def folded(op: str, r: Reading) -> Tensor:
    tensors = [r[i] for i in range(len(r.inputs))]
    if len(tensors) == 1:
        return r.unary("identity", tensors[0])
    return reduce(lambda a, b: r.binary(op, a, b), tensors)


def variadic(op: str) -> Rule:
    """op over all inputs, from the left."""

    return partial(folded, op)


def mean(r: Reading) -> Tensor:
    total = folded("add", r)
    return r.binary("div", total, r.like(len(r.inputs), total))


# Activations


def clip(r: Reading) -> Tensor:
    """Bounds are attributes before opset 11, inputs since."""
    x = r[0]
    bounds: list[float] = []
    for index, name, default in ((1, "min", -inf), (2, "max", inf)):
        tensor = r.given(index)
        if tensor is not None and not (isinstance(tensor, Known) and tensor.array.size == 1):
            return _clip_by_tensors(r)
        bounds.append(r.number(index) if tensor is not None else r.attribute(name, default))
    low, high = bounds
    if r.dtype(0).is_float:
        if (low, high) == (0.0, 6.0):
            return r.unary("relu6", x)
        if (low, high) == (0.0, inf):
            return r.unary("relu", x)
        if low <= high:
            return r.unary("clip", x, low=low, high=high)
    return _clip_by_tensors(r)


def _clip_by_tensors(r: Reading) -> Tensor:
    y: Tensor = r[0]
    for index, op in ((1, "max"), (2, "min")):
        if r.has(index):
            y = r.binary(op, y, r[index])
    return r.unary("identity", y) if y is r[0] else y


def relu(r: Reading) -> Tensor:
    if r.dtype(0).is_float:
        return r.unary("relu", r[0])
    return r.binary("max", r[0], r.like(0, r[0]))


def prelu(r: Reading) -> Tensor:
    """One slope, one a channel, or any that broadcasts."""
    slope, x = r[1], r[0]
    shape, rank = shape_of(slope), r.rank(0)
    channels = r.shape(0)[1] if rank > 1 else None
    if isinstance(slope, Known):
        if slope.array.size == 1:
            weight = Known(slope.array.reshape(1), slope.name)
            return r.apply("prelu", {"x": x, "weight": weight}, shared=True)
        if channels is not None and shape in (
            (channels, *[1] * (rank - 2)),
            (1, channels, *[1] * (rank - 2)),
            (channels,) if r.opset < 7 else (channels, *[1] * (rank - 2)),
        ):
            weight = Known(slope.array.reshape(-1), slope.name)
            return r.apply("prelu", {"x": x, "weight": weight}, shared=False)
    below = r.binary("less", x, r.like(0.0, x))
    return r.apply("where", {"condition": below, "a": r.binary("mul", x, slope), "b": x})


def selu(r: Reading) -> Tensor:
    alpha = r.attribute("alpha", 1.67326319217681884765625)
    gamma = r.attribute("gamma", 1.05070102214813232421875)
    if abs(alpha - 1.6732632) < 1e-6 and abs(gamma - 1.050701) < 1e-6:
        return r.unary("selu", r[0])
    return r.binary("mul", r.unary("elu", r[0], alpha=alpha), r.like(gamma, r[0]))


def hard_sigmoid(r: Reading) -> Tensor:
    slope, offset = r.attribute("alpha", 0.2), r.attribute("beta", 0.5)
    return r.unary("hardsigmoid", r[0], slope=slope, offset=offset)


def thresholded_relu(r: Reading) -> Tensor:
    alpha, zero = r.like(r.attribute("alpha", 1.0), r[0]), r.like(0.0, r[0])
    above = r.binary("greater", r[0], alpha)
    return r.apply("where", {"condition": above, "a": r[0], "b": zero})


def swish(r: Reading) -> Tensor:
    alpha = r.attribute("alpha", 1.0)
    if alpha == 1.0:
        return r.unary("silu", r[0])
    scaled = r.binary("mul", r[0], r.like(alpha, r[0]))
    return r.binary("mul", r[0], r.unary("sigmoid", scaled))


def dropout(r: Reading) -> Result:
    if r.has(2) and bool(np.any(r.array(2))) and (not r.has(1) or r.number(1) != 0.0):
        raise ReadError("dropout in training mode is not supported")
    ratio = r.number(1) if r.has(1) else r.attribute("ratio", 0.5)
    y = r.unary("dropout", r[0], p=ratio)
    if not r.wants(1):
        return y
    masked = r.unary("isnan", r[0]) if r.dtype(0).is_float else r.binary("equal", r[0], r[0])
    return [y, r.binary("logical_or", masked, r.unary("logical_not", masked))]


def is_infinite(r: Reading) -> Tensor:
    signs = [
        r.binary("equal", r[0], r.like(value, r[0]))
        for name, value in (("detect_positive", inf), ("detect_negative", -inf))
        if r.attribute(name, 1)
    ]
    if not signs:
        return r.binary("less", r[0], r.like(-inf, r[0]))  # never
    return reduce(lambda a, b: r.binary("logical_or", a, b), signs)


def cast(r: Reading) -> Tensor:
    to = r.attribute("to")
    dtype = FROM_ONNX.get(to) or (DType.I64 if to in INTEGERS else None)
    if dtype is None:
        raise ReadError(f"elements of ONNX's type {to} are not supported")
    return r.unary("cast", r[0], dtype=str(dtype))


def cast_like(r: Reading) -> Tensor:
    return r.unary("cast", r[0], dtype=str(r.dtype(1)))


def where(r: Reading) -> Tensor:
    return r.apply("where", {"condition": r[0], "a": r[1], "b": r[2]})


def integer_safe(op: str) -> Rule:
    """Of integers, whose neighbours are themselves."""

    def rule(r: Reading) -> Tensor:
        return r.unary(op if r.dtype(0).is_float else "identity", r[0])

    return rule


_UNARY = {
    "Abs": "abs", "Erf": "erf", "Exp": "exp", "HardSwish": "hardswish",
    "IsNaN": "isnan", "Log": "log", "Mish": "mish", "Neg": "neg",
    "Not": "logical_not", "Reciprocal": "reciprocal", "Sigmoid": "sigmoid", "Sign": "sign",
    "Softplus": "softplus", "Softsign": "softsign", "Sqrt": "sqrt", "Tanh": "tanh",
}  # fmt: skip
_BINARY = {
    "Sub": "sub", "Equal": "equal", "Less": "less", "LessOrEqual": "less_equal",
    "Greater": "greater", "GreaterOrEqual": "greater_equal", "And": "logical_and",
    "Or": "logical_or", "Xor": "logical_xor",
}  # fmt: skip

RULES: dict[str, Rule] = {
    **{kind: same(op) for kind, op in _UNARY.items()},
    **{kind: binary(op) for kind, op in _BINARY.items()},
    "Identity": lambda r: r[0],
    "Add": add,
    "Mul": mul,
    "Div": division,
    "Pow": power,
    "Max": variadic("max"),
    "Min": variadic("min"),
    "Sum": variadic("add"),
    "Mean": mean,
    "Ceil": integer_safe("ceil"),
    "Floor": integer_safe("floor"),
    "Round": integer_safe("round"),
    "Relu": relu,
    "LeakyRelu": same("leaky_relu", slope="alpha"),
    "PRelu": prelu,
    "Elu": same("elu", alpha="alpha"),
    "Celu": same("celu", alpha="alpha"),
    "Selu": selu,
    "Gelu": same("gelu", approximate="approximate"),
    "HardSigmoid": hard_sigmoid,
    "ThresholdedRelu": thresholded_relu,
    "Swish": swish,
    "Clip": clip,
    "Dropout": dropout,
    "IsInf": is_infinite,
    "Cast": cast,
    "CastLike": cast_like,
    "Where": where,
}
