"""Elementwise mathematics of one or several operands, which broadcast as in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import inf
from typing import Any

from convdsl.ir.maps import (
    Resolve,
    arithmetic,
    infer_broadcast,
    resolve_alike,
    resolve_floating,
    resolve_numeric,
    unary,
)
from convdsl.ir.opdef import (
    DERIVED,
    FLAT,
    MASK,
    REQUIRED,
    Attribute,
    Call,
    Derived,
    Kind,
    NotDifferentiable,
    OpDef,
    Operand,
    OpError,
    Rule,
    float_type,
    no_contraction,
    no_state,
    pointwise,
    resolve_as_given,
    same_type,
)
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.ir.shapes import broadcast_shapes
from convdsl.kernel.expr import (
    Binary,
    Cast,
    Compare,
    Expr,
    Literal,
    Select,
    TensorExpr,
    Unary,
    elementwise,
    maximum,
    minimum,
)
from convdsl.tensor import LANGUAGE_DTYPES, DType, TensorType


def comparison(name: str, op: str, doc: str, resolve: Resolve = resolve_numeric) -> OpDef:
    """The record of y = a <op> b, a bool."""

    def kernel(call: Call) -> TensorExpr:
        return elementwise((call.var("a"), call.var("b")), call.outputs[0], partial(Compare, op))

    return OpDef(
        name=name,
        aliases=(),
        doc=doc,
        operands=(Operand("a"), Operand("b")),
        attributes=(),
        outputs=("y",),
        resolve=resolve,
        state=no_state,
        infer=infer_mask,
        window=pointwise,
        cost=no_contraction,
        kernel=kernel,
        gradient=MASK,
    )


def infer_mask(call: Call) -> tuple[TensorType, ...]:
    """A mask, in the shape that the operands broadcast to. Raises OpError where they do not."""
    return (TensorType(DType.BOOL, broadcast_shapes(call, tuple(call.types))),)


def logic(name: str, op: str, doc: str) -> OpDef:
    """The record of y = a <op> b of masks."""
    return arithmetic(name, op, doc, resolve_masks, gradient=MASK)


def resolve_masks(call: Call) -> Mapping[str, Any]:
    """Every operand a mask; raises OpError for others."""
    for name, type in call.types.items():
        if type.dtype is not DType.BOOL:
            raise OpError(f"{call.op.name} needs masks, not {type.dtype}", operands=(name,))
    return call.attributes


# Records of their own


def resolve_integers(call: Call) -> Mapping[str, Any]:
    """Every operand an integer, all of one dtype; raises OpError for others."""
    for name, type in call.types.items():
        if not type.dtype.is_integer:
            raise OpError(f"{call.op.name} needs integers, not {type.dtype}", operands=(name,))
    return resolve_alike(call)


def kernel_quotient(call: Call) -> TensorExpr:
    """y = floor(a / b), and one more where something remains across zero"""

    def cut_off(a: Expr, b: Expr) -> Expr:
        floor, zero = Binary("div", a, b), Literal(0, a.dtype)
        across = Compare("ne", Compare("lt", a, zero), Compare("lt", b, zero))
        remains = Compare("ne", Binary("mod", a, b), zero)
        return Select(Binary("and", remains, across), floor + 1, floor)

    return elementwise((call.var("a"), call.var("b")), call.outputs[0], cut_off)


QUOTIENT = OpDef(
    name="quotient",
    aliases=(),
    doc="a / b of integers, cut off towards zero; 0 by zero.",
    operands=(Operand("a"), Operand("b")),
    attributes=(),
    outputs=("y",),
    resolve=resolve_integers,
    state=no_state,
    infer=infer_broadcast,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_quotient,
    gradient=NotDifferentiable("it is of integers"),
)


def kernel_fmod(call: Call) -> TensorExpr:
    """y = |a| mod |b| with the sign of a; of integers a mod b, less b where its sign is not a's"""

    def of_floats(a: Expr, b: Expr) -> Expr:
        return Binary("copysign", Binary("mod", Unary("abs", a), Unary("abs", b)), a)

    def of_integers(a: Expr, b: Expr) -> Expr:
        rest, zero = Binary("mod", a, b), Literal(0, a.dtype)
        across = Compare("ne", Compare("lt", a, zero), Compare("lt", rest, zero))
        return Select(Binary("and", Compare("ne", rest, zero), across), rest - b, rest)

    rule = of_floats if call.type("a").dtype.is_float else of_integers
    return elementwise((call.var("a"), call.var("b")), call.outputs[0], rule)


def form_fmod(call: Call) -> TensorExpr:
    """y = a - trunc(a / b) b, whose slopes are 1 and -trunc(a / b) at zeros too"""

    def rest(a: Expr, b: Expr) -> Expr:
        ratio = a / b
        return a - Binary("copysign", Unary("floor", Unary("abs", ratio)), ratio) * b

    return elementwise((call.var("a"), call.var("b")), call.outputs[0], rest)


FMOD = OpDef(
    name="fmod",
    aliases=(),
    doc="What division of a by b, cut off towards zero, leaves: the sign is that of a.",
    operands=(Operand("a"), Operand("b")),
    attributes=(),
    outputs=("y",),
    resolve=resolve_numeric,
    state=no_state,
    infer=infer_broadcast,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_fmod,
    gradient=Derived(form=form_fmod),
)


def resolve_where(call: Call) -> Mapping[str, Any]:
    """A mask, and two operands of one dtype; raises OpError otherwise."""
    condition, a, b = (call.type(name) for name in ("condition", "a", "b"))
    if condition.dtype is not DType.BOOL:
        raise OpError(
            f"where needs a mask to choose by, not {condition.dtype}",
            operands=("condition",),
            help=("a mask is what a comparison gives: where(x > 0, x, y)",),
        )
    if a.dtype is not b.dtype:
        raise OpError(f"cannot choose from {a} and {b}: their dtypes differ", operands=("a", "b"))
    return call.attributes


def infer_where(call: Call) -> tuple[TensorType, ...]:
    """y of the dtype of a and b, in the shape that all three broadcast to."""
    return (TensorType(call.type("a").dtype, broadcast_shapes(call, ("condition", "a", "b"))),)


def kernel_where(call: Call) -> TensorExpr:
    """y = select(condition, a, b)"""
    operands = (call.var("condition"), call.var("a"), call.var("b"))
    return elementwise(operands, call.outputs[0], Select)


WHERE = OpDef(
    name="where",
    aliases=(),
    doc="a where the condition holds, else b.",
    operands=(Operand("condition", chooses=True), Operand("a"), Operand("b")),
    attributes=(),
    outputs=("y",),
    resolve=resolve_where,
    state=no_state,
    infer=infer_where,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_where,
    gradient=DERIVED,
)


def resolve_clip(call: Call) -> Mapping[str, Any]:
    """x floating; raises OpError for a lower limit above the upper one."""
    float_type(call)
    if call["low"] > call["high"]:
        low, high = call["low"], call["high"]
        raise OpError(
            f"nothing lies between {low:g} and {high:g}",
            attributes=("low", "high"),
            help=(f"the lower limit comes first: clip({high:g}, {low:g})",),
        )
    return call.attributes


def kernel_clip(call: Call) -> TensorExpr:
    """y = min(max(x, low), high)"""

    def clip(x: Expr) -> Expr:
        if call["low"] > -inf:
            x = maximum(x, call["low"])
        return minimum(x, call["high"]) if call["high"] < inf else x

    return elementwise((call.var("x"),), call.outputs[0], clip)


CLIP = OpDef(
    name="clip",
    aliases=("clamp",),
    doc="x, kept within low..high.",
    operands=(Operand("x"),),
    attributes=(
        Attribute("low", Kind.FLOAT, -inf, "lower limit; none"),
        Attribute("high", Kind.FLOAT, inf, "upper limit; none"),
    ),
    outputs=("y",),
    resolve=resolve_clip,
    state=no_state,
    infer=same_type,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_clip,
    gradient=DERIVED,
)

_DTYPES = tuple(map(str, LANGUAGE_DTYPES))


def infer_cast(call: Call) -> tuple[TensorType, ...]:
    """x in the dtype asked for."""
    return (TensorType(DType(call["dtype"]), call.type("x").shape),)


def kernel_cast(call: Call) -> TensorExpr:
    """y = dtype(x)"""

    def cast(x: Expr) -> Expr:
        return Cast(x, DType(call["dtype"]))

    return elementwise((call.var("x"),), call.outputs[0], cast)


def gradient_cast(p: Pullback) -> Gradients:
    """dx = dy in the dtype of x"""
    dtype = str(p.operand("x").type.dtype)
    return {"x": p.build("cast", p.dy, dtype=dtype, name="dx")}


CAST = OpDef(
    name="cast",
    aliases=(),
    doc="x in another dtype: integers cut off fractions, bool is whether x differs from zero.",
    operands=(Operand("x"),),
    attributes=(Attribute("dtype", Kind.STRING, REQUIRED, "the new dtype", choices=_DTYPES),),
    outputs=("y",),
    resolve=resolve_as_given,
    state=no_state,
    infer=infer_cast,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_cast,
    gradient=Rule(gradient_cast, "the inverse is a cast"),
)


def infer_isnan(call: Call) -> tuple[TensorType, ...]:
    """A mask of the shape of x."""
    return (TensorType(DType.BOOL, call.type("x").shape),)


ADD = arithmetic("add", "add", "a + b.")
SUB = arithmetic("sub", "sub", "a - b.")
MUL = arithmetic("mul", "mul", "a * b.")
DIV = arithmetic("div", "div", "a / b, of floating-point operands.", resolve_floating)
SQRT = unary("sqrt", "The square root; NaN below zero.")

SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
"""How the language writes these between two operands."""

COMPARED = {
    "==": "equal",
    "!=": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}
"""What compares the elements of tensors, by the sign that compares numbers in the language."""

OPERATORS = (
    ADD,
    SUB,
    MUL,
    DIV,
    SQRT,
    QUOTIENT,
    arithmetic(
        "mod", "mod", "What a / b, rounded down, leaves: the sign is that of b, as Python's."
    ),
    FMOD,
    arithmetic("pow", "pow", "a to the power of b; of integers with products that wrap."),
    arithmetic("min", "min", "The smaller of a and b; NaN if one is.", aliases=("minimum",)),
    arithmetic("max", "max", "The larger of a and b; NaN if one is.", aliases=("maximum",)),
    comparison("equal", "eq", "Whether a == b.", resolve_alike),
    comparison("not_equal", "ne", "Whether a != b.", resolve_alike),
    comparison("less", "lt", "Whether a < b."),
    comparison("less_equal", "le", "Whether a <= b."),
    comparison("greater", "gt", "Whether a > b."),
    comparison("greater_equal", "ge", "Whether a >= b."),
    logic("logical_and", "and", "Whether both masks hold."),
    logic("logical_or", "or", "Whether a mask holds."),
    logic("logical_xor", "xor", "Whether exactly one mask holds."),
    unary("logical_not", "Whether the mask does not hold.", "not", resolve_masks, gradient=MASK),
    unary("isnan", "Whether x is no number.", infer=infer_isnan, gradient=MASK),
    unary("neg", "-x."),
    unary("abs", "The magnitude."),
    unary("exp", "e to the power of x."),
    unary("log", "The natural logarithm; NaN below zero."),
    unary("reciprocal", "1 / x."),
    unary("erf", "The error function."),
    unary("floor", "The integer at or below.", gradient=FLAT),
    unary("ceil", "The integer at or above.", gradient=FLAT),
    unary("round", "The nearest integer, halves to the even one.", gradient=FLAT),
    unary("sign", "-1, 0 or 1.", gradient=FLAT),
    WHERE,
    CLIP,
    CAST,
)
