"""Operators that pass their input on: identity, stop_gradient, and dropout at inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.ir.opdef import (
    DERIVED,
    Attribute,
    Call,
    Kind,
    OpDef,
    Operand,
    OpError,
    Zero,
    float_type,
    no_contraction,
    no_state,
    pointwise,
    resolve_as_given,
    same_type,
)
from convdsl.kernel.expr import Expr, TensorExpr, elementwise

SHARING = {"element": None, "channel": 2, "sample": 1}
"""How many leading axes have draws of their own; None are all of them."""


_NONE = ("a share from 0 (none) to 1 (all)",)


def resolve_dropout(call: Call) -> Mapping[str, Any]:
    """x floating; raises OpError for a `p` outside of 0..1, and where there are no channels."""
    float_type(call)
    if not 0 <= call["p"] <= 1:
        share = call["p"] / 100
        help = (f"write {share:g} for {call['p']:g} in a hundred",) if 0.02 <= share < 1 else _NONE
        raise OpError(f"{call['p']:g} is no probability", attributes=("p",), help=help)
    rank, own = call.type("x").rank, SHARING[call["per"]]
    if own is not None and rank < own:
        raise OpError(f"a tensor of rank {rank} has no {call['per']}s", attributes=("per",))
    return call.attributes


def _same(x: Expr) -> Expr:
    return x


def kernel_identity(call: Call) -> TensorExpr:
    """y[i..] = x[i..]"""
    return elementwise((call.var("x"),), call.outputs[0], _same)


IDENTITY = OpDef(
    name="identity",
    aliases=(),
    doc="x itself.",
    operands=(Operand("x"),),
    attributes=(),
    outputs=("y",),
    resolve=resolve_as_given,
    state=no_state,
    infer=same_type,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_identity,
    gradient=DERIVED,
)

DROPOUT = OpDef(
    name="dropout",
    aliases=(),
    doc="""Zeroes elements at random when training; at inference x itself.

    Of a branch beside a shortcut, `per = sample` is stochastic depth: a sample goes through the
    branch or past it. Srivastava et al. 2014, JMLR 15; Huang et al. 2016, arXiv:1603.09382.""",
    operands=(Operand("x"),),
    attributes=(
        Attribute("p", Kind.FLOAT, 0.5, "probability of dropping, as PyTorch"),
        Attribute(
            "per",
            Kind.STRING,
            "element",
            "`element`, `channel` or `sample`: what is dropped or kept as a whole",
            choices=tuple(SHARING),
        ),
    ),
    outputs=("y",),
    resolve=resolve_dropout,
    state=no_state,
    infer=same_type,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_identity,
    gradient=DERIVED,
)

STOP_GRADIENT = OpDef(
    name="stop_gradient",
    aliases=("detach",),
    doc="x itself, through which no gradient flows: what made x is not trained by what reads this.",
    operands=(Operand("x"),),
    attributes=(),
    outputs=("y",),
    resolve=resolve_as_given,
    state=no_state,
    infer=same_type,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_identity,
    gradient=Zero("it is there to stop it"),
)

OPERATORS = (IDENTITY, DROPOUT, STOP_GRADIENT)
