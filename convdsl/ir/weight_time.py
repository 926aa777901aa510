"""Weight time: arithmetic over states alone, done once, in double precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from convdsl.ir.classify import weight_time_nodes
from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ir.opdef import Call
from convdsl.kernel.evaluate import Counter, evaluate
from convdsl.tensor import DType, TensorType

Array: TypeAlias = "np.ndarray[Any, Any]"


def double(type: TensorType) -> TensorType:
    """The same shape in f64, if it computes at all."""
    return TensorType(DType.F64, type.shape) if type.dtype.is_float else type


def run_in_double(
    node: OpNode, operands: Mapping[str, Array], counter: Counter | None = None
) -> tuple[Array, ...]:
    """The outputs of one operator in f64, by the oracle of tensor expressions."""
    types = {name: double(value.type) for name, value in node.inputs.items()}
    call = Call(node.op, types, node.attributes)
    arrays = {name: np.asarray(operands[name], types[name].dtype.numpy) for name in types}
    results = evaluate(call.kernel, arrays, counter)
    return tuple(results[name] for name in call.output_names)


def evaluate_weight_time(graph: Graph, states: Mapping[str, Array]) -> dict[Value, Array]:
    """Every weight-time value, and every state, in the dtypes that the graph declares.

    `states` holds parameters and buffers by key; constants come from the graph. Operators
    hand each other doubles; rounding happens once, at the end.
    """
    exact: dict[Value, Array] = {}
    constant = weight_time_nodes(graph)
    for node in graph.nodes():
        if isinstance(node, StateNode):
            exact[node.output] = np.asarray(states[node.name] if node.data is None else node.data)
        elif isinstance(node, OpNode) and node.id in constant:
            operands = {name: exact[value] for name, value in node.inputs.items()}
            exact.update(zip(node.outputs, run_in_double(node, operands), strict=True))
    return {v: array.astype(v.type.dtype.numpy, copy=False) for v, array in exact.items()}
