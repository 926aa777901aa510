"""Layers whose weights are tensors of the graph: inputs, so that every way of running is given the
same ones."""

from __future__ import annotations

from collections.abc import Mapping

from op_cases.draw import Case

from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.ir.opdef import Role
from convdsl.ops import OPERATORS
from convdsl.tensor import DType, TensorType

WEIGHTED = [
    op.name
    for op in OPERATORS
    if op.data_operands and any(operand.role is Role.PARAMETER for operand in op.operands)
]
"""Operators that take weights for data."""


def computed(case: Case, dtype: DType | None = None) -> Model:
    """A network of just the call, whose trained weights are inputs; running statistics stay
    weights."""
    graph = Graph()
    specs = {spec.name: spec for spec in case.op.state(case.call)}
    inputs = {}
    for name, type in case.call.types.items():
        if dtype is not None and type.dtype.is_float:
            type = TensorType(dtype, type.shape)
        if name in specs and specs[name].role is not Role.PARAMETER:
            inputs[name] = graph.add_state(f"layer.{name}", type, specs[name].role, "zeros")
        else:
            inputs[name] = graph.add_input(name, type)
    node = graph.apply(case.op, inputs, case.attributes, name="layer")
    graph.outputs = dict(zip(case.call.output_names, node.outputs, strict=True))
    return Model("one", graph)


def statistics(model: Model, arrays: Mapping[str, object]) -> dict[str, object]:
    """The weights that remain, of a case's arrays."""
    return {key: arrays[key.removeprefix("layer.")] for key in model.graph.states}
