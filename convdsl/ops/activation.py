"""Activations: maps of one operand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from convdsl.ir.opdef import (
    Attribute,
    Call,
    OpDef,
    Operand,
    float_type,
    no_contraction,
    no_state,
    pointwise,
    same_type,
)
from convdsl.kernel.expr import Expr, TensorExpr, elementwise, maximum, minimum


def resolve_activation(call: Call) -> Mapping[str, Any]:
    float_type(call)
    return call.attributes


def activation(
    name: str,
    rule: Callable[[Call, Expr], Expr],
    doc: str,
    attributes: tuple[Attribute, ...] = (),
    aliases: tuple[str, ...] = (),
) -> OpDef:
    """The record of y = rule(x)."""

    def kernel(call: Call) -> TensorExpr:
        return elementwise((call.var("x"),), call.outputs[0], partial(rule, call))

    return OpDef(
        name=name,
        aliases=aliases,
        doc=doc,
        operands=(Operand("x"),),
        attributes=attributes,
        outputs=("y",),
        resolve=resolve_activation,
        state=no_state,
        infer=same_type,
        window=pointwise,
        cost=no_contraction,
        kernel=kernel,
    )


RELU = activation("relu", lambda call, x: maximum(x, 0.0), "max(x, 0). Nair, Hinton 2010.")
RELU6 = activation(
    "relu6",
    lambda call, x: minimum(maximum(x, 0.0), 6.0),
    "min(max(x, 0), 6). Howard et al. 2017, arXiv:1704.04861.",
)

OPERATORS = (RELU, RELU6)
