"""Elementwise mathematics of one or several operands, which broadcast as in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from convdsl.ir.opdef import (
    Call,
    OpDef,
    Operand,
    OpError,
    float_type,
    no_contraction,
    no_state,
    pointwise,
    same_type,
)
from convdsl.ir.shapes import broadcast_shapes
from convdsl.kernel.expr import Binary, Expr, TensorExpr, Unary, elementwise
from convdsl.tensor import DType, TensorType


def resolve_floating(call: Call) -> Mapping[str, Any]:
    """Every operand floating, all of one dtype."""
    for name in call.types:
        float_type(call, name)
    return resolve_alike(call)


def resolve_numeric(call: Call) -> Mapping[str, Any]:
    """Every operand a number, all of one dtype."""
    for name, type in call.types.items():
        if type.dtype is DType.BOOL:
            raise OpError(f"{call.op.name} needs numbers, not {type.dtype}", operands=(name,))
    return resolve_alike(call)


def resolve_alike(call: Call) -> Mapping[str, Any]:
    first, *others = call.types.items()
    for name, type in others:
        if type.dtype is not first[1].dtype:
            raise OpError(
                f"cannot {call.op.name} {first[1]} and {type}: their dtypes differ",
                operands=(first[0], name),
            )
    return call.attributes


def infer_broadcast(call: Call) -> tuple[TensorType, ...]:
    dtype = next(iter(call.types.values())).dtype
    return (TensorType(dtype, broadcast_shapes(call, tuple(call.types))),)


def arithmetic(
    name: str,
    op: str,
    doc: str,
    resolve: Callable[[Call], Mapping[str, Any]] = resolve_numeric,
) -> OpDef:
    """The record of y = a <op> b."""

    def kernel(call: Call) -> TensorExpr:
        return elementwise((call.var("a"), call.var("b")), call.outputs[0], partial(Binary, op))

    return OpDef(
        name=name,
        aliases=(),
        doc=doc,
        operands=(Operand("a"), Operand("b")),
        attributes=(),
        outputs=("y",),
        resolve=resolve,
        state=no_state,
        infer=infer_broadcast,
        window=pointwise,
        cost=no_contraction,
        kernel=kernel,
    )


def function(name: str, rule: Callable[[Expr], Expr], doc: str) -> OpDef:
    """The record of y = rule(x), x floating."""

    def kernel(call: Call) -> TensorExpr:
        return elementwise((call.var("x"),), call.outputs[0], rule)

    return OpDef(
        name=name,
        aliases=(),
        doc=doc,
        operands=(Operand("x"),),
        attributes=(),
        outputs=("y",),
        resolve=resolve_floating,
        state=no_state,
        infer=same_type,
        window=pointwise,
        cost=no_contraction,
        kernel=kernel,
    )


ADD = arithmetic("add", "add", "a + b.")
SUB = arithmetic("sub", "sub", "a - b.")
MUL = arithmetic("mul", "mul", "a * b.")
DIV = arithmetic("div", "div", "a / b, of floating-point operands.", resolve_floating)
SQRT = function("sqrt", lambda x: Unary("sqrt", x), "The square root; NaN below zero.")

OPERATORS = (ADD, SUB, MUL, DIV, SQRT)
