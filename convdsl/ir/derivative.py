"""Derived gradients as operators: one record for each operator and operand, made once.

`conv.grad(x)` has the attributes of conv, the operands of the forward call that its arithmetic
reads, and the gradients of outputs, `dy`. Sizes of operands that it does not read stand in two more
attributes. Shapes, costs and arithmetic follow from the forward record's; so does its own gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from convdsl.ir.build import Build
from convdsl.ir.graph import OpNode, Value
from convdsl.ir.opdef import (
    REQUIRED,
    Attribute,
    Call,
    Derived,
    Kind,
    OpDef,
    Operand,
    OpError,
    Reach,
    WindowRule,
    contraction,
    no_state,
)
from convdsl.kernel.expr import Read, TensorExpr, TensorVar
from convdsl.kernel.gradient import gradient
from convdsl.tensor import Dim, DType, TensorType


def _own(op: OpDef) -> tuple[str, str]:
    """Names of the attributes that hold operands and their shapes; of gradients of gradients
    `operands2`, `shapes2` and so on."""
    level = sum(attribute.name.startswith("operands") for attribute in op.attributes) + 1
    suffix = "" if level == 1 else str(level)
    return f"operands{suffix}", f"shapes{suffix}"


def describes_forward(attribute: str) -> bool:
    """Whether a gradient's attribute says what the operands of the forward call were."""
    return attribute.rstrip("0123456789") in ("operands", "shapes")


@cache
def gradient_of(op: OpDef, operand: str) -> OpDef:
    """The operator that gives the gradient of one operand, derived from the arithmetic."""
    assert isinstance(op.gradient, Derived)
    if any(o.variadic for o in op.operands):
        raise NotImplementedError(f"{op.name} takes any number of operands and needs a rule")
    how, own = op.gradient, _own(op)

    def forward(call: Call) -> Call:
        return _forward(op, call)

    def resolve(call: Call) -> Mapping[str, Any]:
        return {**op.resolve(forward(call)), **{name: call[name] for name in own}}

    def infer(call: Call) -> tuple[TensorType, ...]:
        given = forward(call)
        for name, type in _cotangents(given).items():
            if call.has(name) and call.type(name) != type:
                raise OpError(f"{name} is {call.type(name)}, not {type}", operands=(name,))
        return (given.type(operand),)

    def kernel(call: Call) -> TensorExpr:
        found = _arithmetic(forward(call), operand, how, tuple(call.types))
        if found is None:
            raise OpError(f"the gradient of {operand} is zero")
        return found

    return OpDef(
        name=f"{op.name}.grad({operand})",
        aliases=(),
        doc=f"The gradient of {op.name} by its operand {operand}, derived from its arithmetic.",
        operands=(
            *(Operand(o.name, optional=True) for o in op.operands),
            *(Operand(f"d{name}", optional=True) for name in op.outputs),
        ),
        attributes=(
            *op.attributes,
            Attribute(own[0], Kind.STRING, REQUIRED, "operands of the forward call"),
            Attribute(own[1], Kind.SHAPE, REQUIRED, "their shapes"),
        ),
        outputs=(f"d{operand}",),
        resolve=resolve,
        state=no_state,
        infer=infer,
        window=_no_field,
        cost=contraction,
        kernel=kernel,
        gradient=Derived(search=True, flat_roots=how.flat_roots),
    )


def derive(build: Build, node: OpNode, dys: Sequence[Value | None], operand: str) -> Value | None:
    """The gradient of one of a node's operands: a new node, or that of an output where they are the
    same; None where it is zero.

    Raises Unsolved where the arithmetic cannot be turned around, and NotImplementedError where
    something on the way has no derivative.
    """
    call, values = node.call, dict(node.inputs)
    assert isinstance(call.op.gradient, Derived)
    if call.op.gradient.at_result(call):
        values[operand] = node.outputs[0]
    named = zip(call.output_names, dys, strict=True)
    given = {f"d{name}": dy for name, dy in named if dy is not None}
    return derive_call(build, call, values, given, operand)


def derive_call(
    build: Build, call: Call, inputs: Mapping[str, Value], dys: Mapping[str, Value], operand: str
) -> Value | None:
    """The same of a call that need not stand in the graph: `inputs` are those of its operands that
    its gradient reads, `dys` the gradients of outputs, named as `dy`."""
    assert isinstance(call.op.gradient, Derived)
    found = _arithmetic(call, operand, call.op.gradient, tuple(dys))
    if found is None:
        return None
    passed = _passed_on(found)
    if passed is not None:
        return dys[passed]
    dtype = next(iter(dys.values())).type.dtype
    values = {**inputs, **dys}
    names, shapes = _own(call.op)
    return build.apply(
        gradient_of(call.op, operand),
        {x.name: values[x.name] for x in found.inputs},
        {
            **call.attributes,
            names: " ".join(_labels(call, dtype)),
            shapes: tuple(type.shape for type in call.types.values()),
        },
        name=f"d{operand}",
    ).output


def _passed_on(found: TensorExpr) -> str | None:
    """The input that an expression gives back as it is."""
    stage = found.stages[-1]
    body = stage.body
    if len(found.stages) > 1 or not isinstance(body, Read) or body.tensor.type != stage.target.type:
        return None
    for place, axis in zip(body.index, stage.axes, strict=True):
        if axis.extent != 1 and place != axis.i:
            return None
    return body.tensor.name


def _no_field(call: Call) -> WindowRule:
    return Reach.UNAVAILABLE


def _arithmetic(call: Call, operand: str, how: Derived, given: Sequence[str]) -> TensorExpr | None:
    """The expression of a gradient, from those gradients of outputs that are given: of arithmetic
    as it is written, so that of halves sums are narrowed, not each of their terms."""
    cotangents = {
        name.removeprefix("d"): TensorVar(name, type)
        for name, type in _cotangents(call).items()
        if name in given
    }
    forward = call.kernel if how.form is None else how.form(call)
    return gradient(forward, operand, cotangents, search=how.search, flat_roots=how.flat_roots)


def _cotangents(call: Call) -> dict[str, TensorType]:
    named = zip(call.output_names, call.outputs, strict=True)
    return {f"d{name}": type for name, type in named if type.dtype.is_float}


# The forward call, in the attributes of its gradients


def _labels(call: Call, dtype: DType) -> list[str]:
    """Names of operands; with their dtype where it is not that of the gradients, as in
    `condition:bool a b`: so that all are of double precision at weight time."""
    return [
        name if type.dtype is dtype else f"{name}:{type.dtype}" for name, type in call.types.items()
    ]


def _forward(op: OpDef, call: Call) -> Call:
    """The call that a call of its gradient belongs to."""
    outputs = {f"d{name.removesuffix('*')}" for name in op.outputs}
    dtype = next(t.dtype for name, t in call.types.items() if _is_cotangent(name, outputs))
    own = _own(op)
    labels: Sequence[str] = call[own[0]].split()
    shapes: Sequence[tuple[Dim, ...]] = call[own[1]]
    types: dict[str, TensorType] = {}
    for label, shape in zip(labels, shapes, strict=True):
        name, _, other = label.partition(":")
        types[name] = TensorType(DType(other) if other else dtype, shape)
    attributes = {n: v for n, v in call.attributes.items() if n not in own}
    return Call(op, types, attributes)


def _is_cotangent(name: str, outputs: set[str]) -> bool:
    return name.rstrip("0123456789") in outputs or name in outputs
