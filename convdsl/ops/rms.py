"""Normalisation by the root of the mean square: nothing is subtracted."""

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
    Role,
    StateSpec,
    WindowRule,
    float_type,
    no_contraction,
    same_type,
)
from convdsl.ir.shapes import known_size, resolve_axis, whole_along
from convdsl.kernel.expr import (
    Axis,
    IndexValue,
    Read,
    Reduce,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
    axes_over,
    positions_of,
)
from convdsl.tensor import TensorType


def resolve_rms_norm(call: Call) -> Mapping[str, Any]:
    """x floating, of known sizes from the axis on, which is counted from 0."""
    float_type(call)
    axis = resolve_axis(call)
    for other in range(axis, call.type("x").rank):
        known_size(call, "x", other)
    return {**call.attributes, "axis": axis}


def state_rms_norm(call: Call) -> tuple[StateSpec, ...]:
    """With `affine` a weight for every normalised position."""
    x = call.type("x")
    type = TensorType(x.dtype, x.shape[call["axis"] :])
    return (StateSpec("weight", type, Role.PARAMETER, "ones"),) if call["affine"] else ()


def field_rms_norm(call: Call) -> WindowRule:
    """Along the normalised axes all is seen."""
    x = call.type("x")
    return whole_along(x.shape, tuple(range(call["axis"], x.rank)))


def kernel_rms_norm(call: Call) -> TensorExpr:
    """scale[i..] = 1 / sqrt(sum over j.. of x[i.., j..]^2 / count + eps)
    y[i.., j..] = x[i.., j..] * scale[i..] * weight[j..]"""
    x, (out,), first = call.var("x"), call.outputs, call["axis"]
    axes = axes_over(out.shape)
    at = tuple(axis.i for axis in axes)
    terms = tuple(Axis(f"j{k}", axis.extent) for k, axis in enumerate(axes[first:]))
    value = Read(x, (*at[:first], *(term.i for term in terms)))
    count = IndexValue(positions_of(terms), out.dtype)
    mean = Reduce("sum", terms, value * value) / count
    scale = TensorVar("scale", TensorType(out.dtype, out.shape[:first]))
    root = 1.0 / Unary("sqrt", mean + call["eps"])
    body = Read(x, at) * Read(scale, at[:first])
    inputs = [x]
    if call.has("weight"):
        weight = call.var("weight")
        body = body * Read(weight, at[first:])
        inputs.append(weight)
    stages = (Stage(scale, axes[:first], root), Stage(TensorVar("y", out), axes, body))
    return TensorExpr(tuple(inputs), stages, ("y",))


RMS_NORM = OpDef(
    name="rms_norm",
    aliases=(),
    doc="""x over the root of its mean square. Zhang, Sennrich 2019, arXiv:1910.07467.""",
    operands=(Operand("x"), Operand("weight", Role.PARAMETER, optional=True)),
    attributes=(
        Attribute("axis", Kind.INT, -1, "first normalised axis; the last alone"),
        Attribute("eps", Kind.FLOAT, 1e-5, "added to the mean square; as layer_norm"),
        Attribute("affine", Kind.BOOL, True, "a weight for every normalised position"),
    ),
    outputs=("y",),
    resolve=resolve_rms_norm,
    state=state_rms_norm,
    infer=same_type,
    window=field_rms_norm,
    cost=no_contraction,
    kernel=kernel_rms_norm,
    gradient=DERIVED,
)

OPERATORS = (RMS_NORM,)
