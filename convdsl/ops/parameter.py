"""Weights that stand on their own: position codes, learned gains, tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.ir.opdef import (
    DERIVED,
    REQUIRED,
    Attribute,
    Call,
    Kind,
    OpDef,
    Operand,
    OpError,
    Role,
    StateSpec,
    derived,
    no_contraction,
)
from convdsl.kernel.expr import Read, Stage, TensorExpr, TensorVar, axes_over
from convdsl.tensor import LANGUAGE_DTYPES, DType, TensorType, format_shape

_OPEN = (
    "its sizes are known when the file is loaded: for the batch, and others, write 1; of a longer"
    " table the first are parameter([512, 64]) -> slice([0], stop = T)"
)


def resolve_parameter(call: Call) -> Mapping[str, Any]:
    """A shape of positive numbers; raises OpError for free or empty extents."""
    shape = tuple(call["shape"])
    if not all(isinstance(extent, int) and extent > 0 for extent in shape):
        known = all(isinstance(extent, int) for extent in shape)
        raise OpError(
            f"a weight cannot have the shape {format_shape(shape)}",
            attributes=("shape",),
            help=("every size is 1 or more" if known else _OPEN,),
        )
    return {**call.attributes, "shape": shape}


def infer_parameter(call: Call) -> tuple[TensorType, ...]:
    """As the weight, which is wider than declared at weight time."""
    return (call.type("weight") if call.has("weight") else _declared(call),)


def _declared(call: Call) -> TensorType:
    return TensorType(DType(call["dtype"]), call["shape"])


def state_parameter(call: Call) -> tuple[StateSpec, ...]:
    """weight[shape..], trained where it is floating, else a buffer."""
    type = _declared(call)
    role = Role.PARAMETER if type.dtype.is_float else Role.BUFFER
    return (StateSpec("weight", type, role, _start(type), call["bare"]),)


def _start(type: TensorType) -> str:
    """Rows that begin as each other would stay so: codes, tables, queries."""
    is_table = type.dtype.is_float and sum(extent != 1 for extent in type.shape) > 1
    return "kaiming_uniform" if is_table else "ones"


def kernel_parameter(call: Call) -> TensorExpr:
    """y[i..] = weight[i..]"""
    (out,) = call.outputs
    axes = axes_over(out.shape)
    weight = TensorVar("weight", out)
    body = Read(weight, tuple(axis.i for axis in axes))
    return TensorExpr((weight,), (Stage(TensorVar("y", out), axes, body),), ("y",))


PARAMETER = OpDef(
    name="parameter",
    aliases=(),
    doc="""A trained weight by itself, for arithmetic with tensors: `x * parameter([64, 1, 1])`.

    It takes no tensor. With `weight = [...]` it is a constant. Trained, it starts from 1 where one
    axis at most is longer than 1 (gains; for shifts say `weight = zeros`), else as weights of
    layers do (tables, codes, queries: rows that begin as each other would stay so).""",
    operands=(Operand("weight", Role.PARAMETER),),
    attributes=(
        Attribute("shape", Kind.SHAPE, REQUIRED, "extents, the batch included where it has one"),
        Attribute(
            "dtype",
            Kind.STRING,
            "f32",
            "element type; f32, what networks compute in",
            choices=tuple(map(str, LANGUAGE_DTYPES)),
        ),
        Attribute(
            "bare",
            Kind.BOOL,
            False,
            "the key is the layer's name alone, without `.weight`, as of PyTorch's nn.Parameter",
            keyword_only=True,
        ),
    ),
    outputs=("y",),
    resolve=resolve_parameter,
    state=state_parameter,
    infer=infer_parameter,
    window=derived,
    cost=no_contraction,
    kernel=kernel_parameter,
    gradient=DERIVED,
)

OPERATORS = (PARAMETER,)
