"""Arithmetic, comparisons and logic, which broadcast."""

from __future__ import annotations

from functools import partial, reduce
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from convdsl.interop.correspondence.row import Read, ReadRule, Row, only_spelled, same
from convdsl.interop.correspondence.wording import PyTorch, Wording, function, infix, torch_dtype
from convdsl.interop.element_types import FROM_ONNX, HALVES, TO_ONNX
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, dtype_of, shape_of
from convdsl.ir.graph import OpNode, Value
from convdsl.tensor import DType

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling


# From ONNX


def _read_add(r: Reading) -> Tensor:
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
    return r.binary("add", r[0], r.aligned())


def _read_div(r: Reading) -> Tensor:
    """Integers divide towards zero."""
    return r.binary("div" if r.dtype(0).is_float else "quotient", r[0], r.aligned())


def negative(r: Reading, x: Tensor) -> Tensor:
    """-x, also of integers, of which the least stays what it is."""
    return r.unary("neg", x) if dtype_of(x).is_float else r.binary("sub", r.like(0, x), x)


def magnitude(r: Reading, x: Tensor) -> Tensor:
    """|x|, also of integers."""
    dtype = dtype_of(x)
    if dtype.is_float:
        return r.unary("abs", x)
    return r.binary("max", x, negative(r, x)) if dtype.lowest < 0 else r.unary("identity", x)


def _read_sign(r: Reading) -> Tensor:
    """-1, 0 or 1, also of integers."""
    x = r[0]
    if dtype_of(x).is_float:
        return r.unary("sign", x)
    below = r.binary("min", x, r.like(1, x))
    return r.binary("max", below, r.like(-1, x)) if dtype_of(x).lowest < 0 else below


def _read_mul(r: Reading) -> Tensor:
    """A product; x * sigmoid(x) is silu."""
    for x, gate in ((r[0], r[1]), (r[1], r[0])):
        node = gate.node if isinstance(gate, Value) else None
        if isinstance(node, OpNode) and node.op.name == "sigmoid" and node.inputs["x"] is x:
            return r.unary("silu", x)
    return r.binary("mul", r[0], r.aligned())


def _read_pow(r: Reading) -> Tensor:
    if r.is_number(1):
        exponent = float(np.asarray(r.array(1)).reshape(-1)[0])
        if exponent == 2.0:
            return r.binary("mul", r[0], r[0])
        if r.dtype(0).is_float or exponent.is_integer():
            return r.binary("pow", r[0], r.like(r.array(1), r[0]))
    if r.dtype(0) is r.dtype(1):
        return r.binary("pow", r[0], r.aligned())
    return _power_of_others(r)


def _power_of_others(r: Reading) -> Tensor:
    """In doubles; the result has the base's dtype, an integer what is left of the point. Results a
    few roundings from an integer are that integer: 5^3 is not 124."""
    a, b = (r.unary("cast", x, dtype="f64") for x in (r[0], r.aligned()))
    result = r.binary("pow", a, b)
    if r.dtype(0) is DType.I64:
        whole = r.unary("round", result)
        apart = r.unary("abs", r.binary("sub", result, whole))
        rounding = r.binary("mul", r.unary("abs", result), r.like(2.0**-50, result))
        is_whole = r.binary("less_equal", apart, rounding)
        result = r.apply("where", {"condition": is_whole, "a": whole, "b": result})
    return r.unary("cast", result, dtype=str(r.dtype(0)))


def _read_mod(r: Reading) -> Tensor:
    """The sign is the divisor's, or with `fmod` the dividend's."""
    return r.binary("fmod" if r.attribute("fmod", 0) else "mod", r[0], r.aligned())


def _folded(op: str, r: Reading) -> Tensor:
    """op over all inputs, from the left."""
    tensors = [r[i] for i in range(len(r.inputs))]
    if len(tensors) == 1:
        return r.unary("identity", tensors[0])
    return reduce(lambda a, b: r.binary(op, a, b), tensors)


def _read_mean(r: Reading) -> Tensor:
    total = _folded("add", r)
    return r.binary("div", total, r.like(len(r.inputs), total))


def _read_is_infinite(r: Reading) -> Tensor:
    signs = [
        r.binary("equal", r[0], r.like(value, r[0]))
        for name, value in (("detect_positive", inf), ("detect_negative", -inf))
        if r.attribute(name, 1)
    ]
    if not signs:
        return r.binary("less", r[0], r.like(-inf, r[0]))  # never
    return reduce(lambda a, b: r.binary("logical_or", a, b), signs)


def _read_cast(r: Reading) -> Tensor:
    """A half is rounded to, and computed with in single precision."""
    to = r.attribute("to")
    dtype = FROM_ONNX.get(to)
    if dtype is None:
        raise ReadError(f"elements of ONNX's type {to} are not supported")
    cast = r.unary("cast", r[0], dtype=str(dtype))
    return r.unary("cast", cast, dtype="f32") if dtype in HALVES else cast


def _read_cast_like(r: Reading) -> Tensor:
    return r.unary("cast", r[0], dtype=str(r.dtype(1)))


def _read_whole(op: str) -> ReadRule:
    """Rounding; integers are their own neighbours."""
    return lambda r: r.unary(op if r.dtype(0).is_float else "identity", r[0])


# As ONNX, in PyTorch


def _spell_cast(s: Spelling) -> str:
    return s("Cast", s["x"], to=TO_ONNX[DType(s.call["dtype"])])


def _spell_not_equal(s: Spelling) -> str:
    return s("Not", s("Equal", s["a"], s["b"]))


def _spell_mod(s: Spelling) -> str:
    """ONNX takes floats with the sign of the dividend only: one divisor more where it is not the
    divisor's."""
    a, b = s["a"], s["b"]
    if not s.dtype.is_float:
        return s("Mod", a, b)
    rest, zero = s("Mod", a, b, fmod=1), s.constant(0.0)
    across = s("Xor", s("Less", rest, zero), s("Less", b, zero))
    remains = s("Not", s("Equal", rest, zero))
    return s("Where", s("And", across, remains), s("Add", rest, b), rest)


def _say_cast(w: Wording) -> str:
    return f"{w['x']}.to({torch_dtype(DType(w.call['dtype']))})"


def _say_sign(w: Wording) -> str:
    """PyTorch's sign of a NaN is 0."""
    x = w["x"]
    return f"torch.where(torch.isnan({x}), {x}, torch.sign({x}))"


def _with_numbers(name: str) -> PyTorch:
    return PyTorch(name, function(name).call, numbers=True)


_QUOTIENT = PyTorch(
    "torch.div", lambda w: f'torch.div({w["a"]}, {w["b"]}, rounding_mode="trunc")', numbers=True
)

ROWS = (
    same("add", "Add", infix("+"), read=_read_add),
    same("sub", "Sub", infix("-")),
    same("mul", "Mul", infix("*"), read=_read_mul),
    same("div", "Div", infix("/"), read=_read_div),
    only_spelled("quotient", "Div", _QUOTIENT, lambda s: s("Div", s["a"], s["b"])),
    same("mod", "Mod", _with_numbers("torch.remainder"), read=_read_mod, spell=_spell_mod),
    only_spelled(
        "fmod", "Mod", _with_numbers("torch.fmod"), lambda s: s("Mod", s["a"], s["b"], fmod=1)
    ),
    same("pow", "Pow", _with_numbers("torch.pow"), read=_read_pow),
    same("min", "Min", "torch.minimum", read=partial(_folded, "min")),
    same("max", "Max", "torch.maximum", read=partial(_folded, "max")),
    same("equal", "Equal", infix("==")),
    only_spelled("not_equal", "", infix("!="), _spell_not_equal),
    same("less", "Less", infix("<")),
    same("less_equal", "LessOrEqual", infix("<=")),
    same("greater", "Greater", infix(">")),
    same("greater_equal", "GreaterOrEqual", infix(">=")),
    same("logical_and", "And", infix("&")),
    same("logical_or", "Or", infix("|")),
    same("logical_xor", "Xor", infix("^")),
    same("logical_not", "Not", "torch.logical_not"),
    same("where", "Where", _with_numbers("torch.where")),
    same("isnan", "IsNaN", "torch.isnan"),
    same("neg", "Neg", "torch.neg", read=lambda r: negative(r, r[0])),
    same("abs", "Abs", "torch.abs", read=lambda r: magnitude(r, r[0])),
    same("sqrt", "Sqrt", "torch.sqrt"),
    same("exp", "Exp", "torch.exp"),
    same("log", "Log", "torch.log"),
    same("reciprocal", "Reciprocal", "torch.reciprocal"),
    same("erf", "Erf", "torch.erf"),
    same("floor", "Floor", "torch.floor", read=_read_whole("floor")),
    same("ceil", "Ceil", "torch.ceil", read=_read_whole("ceil")),
    same("round", "Round", "torch.round", read=_read_whole("round")),
    same("sign", "Sign", PyTorch("torch.sign", _say_sign), read=_read_sign),
    *(
        same(name, name.capitalize(), f"torch.{name}")
        for name in (
            "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh",
        )
    ),
    Row("cast", "Cast", PyTorch("Tensor.to", _say_cast), _spell_cast, Read(_read_cast)),
)  # fmt: skip

READING = {
    "Sum": Read(partial(_folded, "add")),
    "Mean": Read(_read_mean),
    "IsInf": Read(_read_is_infinite),
    "CastLike": Read(_read_cast_like),
}
"""Kinds of nodes that are several operators of ours."""
