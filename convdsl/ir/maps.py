"""Records of maps: what elementwise operators of one and of two operands have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from convdsl.ir.opdef import (
    DERIVED,
    Call,
    Gradient,
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
from convdsl.kernel.expr import Binary, TensorExpr, Unary, elementwise
from convdsl.tensor import DType, TensorType

Resolve = Callable[[Call], Mapping[str, Any]]


def resolve_floating(call: Call) -> Mapping[str, Any]:
    """Every operand floating, all of one dtype."""
    for name in call.types:
        float_type(call, name)
    return resolve_alike(call)


def resolve_numeric(call: Call) -> Mapping[str, Any]:
    """Every operand a number, all of one dtype."""
    for name, type in call.types.items():
        if type.dtype is DType.BOOL:
            text = f"{call.op.name} needs numbers, not {type.dtype}"
            help = ("a mask chooses: where(mask, a, b)",)
            raise OpError(text, operands=(name,), help=help)
    return resolve_alike(call)


def resolve_alike(call: Call) -> Mapping[str, Any]:
    """Operands of one dtype; raises OpError for different ones."""
    first, *others = call.types.items()
    for name, type in others:
        if type.dtype is not first[1].dtype:
            raise OpError(
                f"cannot {call.op.name} {first[1]} and {type}: their dtypes differ",
                operands=(first[0], name),
            )
    return call.attributes


def infer_broadcast(call: Call) -> tuple[TensorType, ...]:
    """y of the operands' dtype, in the shape that they broadcast to. Raises OpError where they do
    not."""
    dtype = next(iter(call.types.values())).dtype
    return (TensorType(dtype, broadcast_shapes(call, tuple(call.types))),)


def arithmetic(
    name: str,
    op: str,
    doc: str,
    resolve: Resolve = resolve_numeric,
    aliases: tuple[str, ...] = (),
    gradient: Gradient = DERIVED,
) -> OpDef:
    """The record of y = a <op> b."""

    def kernel(call: Call) -> TensorExpr:
        return elementwise((call.var("a"), call.var("b")), call.outputs[0], partial(Binary, op))

    return OpDef(
        name=name,
        aliases=aliases,
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
        gradient=gradient,
    )


def unary(
    name: str,
    doc: str,
    op: str | None = None,
    resolve: Resolve = resolve_floating,
    infer: Callable[[Call], tuple[TensorType, ...]] = same_type,
    gradient: Gradient = DERIVED,
) -> OpDef:
    """The record of y = op(x)."""

    def kernel(call: Call) -> TensorExpr:
        return elementwise((call.var("x"),), call.outputs[0], partial(Unary, op or name))

    return OpDef(
        name=name,
        aliases=(),
        doc=doc,
        operands=(Operand("x"),),
        attributes=(),
        outputs=("y",),
        resolve=resolve,
        state=no_state,
        infer=infer,
        window=pointwise,
        cost=no_contraction,
        kernel=kernel,
        gradient=gradient,
    )
