"""Weight time: arithmetic over states alone, done once, in double precision."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ir.opdef import Call
from convdsl.ir.rules import kernel_of
from convdsl.ir.timing import Timing
from convdsl.kernel.evaluate import Counter, evaluate
from convdsl.kernel.expr import Binary, Expr, Read, Stage
from convdsl.tensor import DType, TensorType
from convdsl.tensor.conversion import convert, of_numpy

Array: TypeAlias = "np.ndarray[Any, Any]"

_PRODUCTS_AND_SUMS = {"mul": np.multiply, "add": np.add, "sub": np.subtract}


def double(type: TensorType) -> TensorType:
    """The same shape in f64, if it computes at all."""
    return TensorType(DType.F64, type.shape) if type.dtype.is_float else type


def run_in_double(
    node: OpNode, operands: Mapping[str, Array], counter: Counter | None = None
) -> tuple[Array, ...]:
    """The outputs of one operator in f64, by the oracle of tensor expressions."""
    types = {name: double(value.type) for name, value in node.inputs.items()}
    call = Call(node.op, types, node.attributes)
    arrays = {name: _as(np.asarray(operands[name]), types[name].dtype) for name in types}
    results = evaluate(kernel_of(call), arrays, counter)
    return tuple(results[name] for name in call.output_names)


def weight_time_values(
    graph: Graph, states: Mapping[str, Array], wanted: Collection[Value]
) -> Iterator[tuple[Value, Array]]:
    """Those of the `wanted` values that are known once weights are bound, in the dtypes that the
    graph declares, one after the other: what nothing needs any more is not kept.

    `states` holds parameters and buffers by key; constants come from the graph. Operators
    hand each other doubles; rounding happens once, at the end.
    """
    timing = Timing(graph)
    nodes = [
        node
        for node in graph.nodes()
        if isinstance(node, (StateNode, OpNode)) and timing.is_bound(node)
    ]
    inputs = {n.id: list(n.inputs.values()) if isinstance(n, OpNode) else [] for n in nodes}
    readers = Counts(value for values in inputs.values() for value in values)
    exact: dict[Value, Array] = {}
    for node in nodes:
        results = _run(node, states, exact, rounded=not any(readers[v] for v in node.outputs))
        for value in inputs[node.id]:
            readers[value] -= 1
            if not readers[value]:
                exact.pop(value, None)
        for value, array in zip(node.outputs, results, strict=True):
            if readers[value]:
                exact[value] = array
            if value in wanted:
                yield value, _rounded(array, value.type.dtype)


def _run(
    node: StateNode | OpNode,
    states: Mapping[str, Array],
    exact: Mapping[Value, Array],
    *,
    rounded: bool,
) -> tuple[Array, ...]:
    """The outputs of a node; of the declared dtypes right away where `rounded` allows it."""
    if isinstance(node, StateNode):
        return (np.asarray(states[node.name] if node.data is None else node.data),)
    operands = {name: exact[value] for name, value in node.inputs.items()}
    moved = _turned(node, operands)
    if moved is not None:
        return (moved,)
    if rounded and len(node.outputs) == 1:
        array = _run_in_one_pass(node, operands)
        if array is not None:
            return (array,)
    return run_in_double(node, operands)


def _rounded(array: Array, dtype: DType) -> Array:
    return _as(array, dtype)


def _as(array: Array, dtype: DType) -> Array:
    return convert(array, of_numpy(array.dtype), dtype)


def _turned(node: OpNode, operands: Mapping[str, Array]) -> Array | None:
    """A transpose as a view of its operand, of whatever type this is kept in; None where the
    operator computes anything, or reads anything but a permutation of its axes."""
    stage, *more = kernel_of(node.call).stages
    body = stage.body
    if more or not isinstance(body, Read):
        return None
    axes = {axis.i: number for number, axis in enumerate(stage.axes)}
    order = [axes[at] for at in body.index if at in axes]
    array = operands[body.tensor.name]
    if len(order) != array.ndim or sorted(order) != list(range(len(axes))):
        return None
    if array.shape != tuple(stage.axes[number].extent for number in order):
        return None
    return array.transpose(np.argsort(order))


def _run_in_one_pass(node: OpNode, operands: Mapping[str, Array]) -> Array | None:
    """A product or sum of two operands in place (NumPy broadcasts extents of 1), computed in
    double precision and rounded on the way, without arrays of doubles of the same size; None
    where the operator is none."""
    stages = kernel_of(node.call).stages
    body = stages[0].body
    if len(stages) != 1 or not isinstance(body, Binary) or body.op not in _PRODUCTS_AND_SUMS:
        return None
    a, b = (_operand_in_place(x, stages[0]) for x in (body.a, body.b))
    dtype = node.output.type.dtype
    stored = (dtype, *(value.type.dtype for value in node.inputs.values()))
    if a is None or b is None or not dtype.is_float or not all(d.computes for d in stored):
        return None
    out = np.empty(node.output.type.sizes, dtype.numpy)
    with np.errstate(all="ignore"):
        function = _PRODUCTS_AND_SUMS[body.op]
        function(operands[a], operands[b], out=out, dtype=np.float64, casting="same_kind")
    return out


def _operand_in_place(e: Expr, stage: Stage) -> str | None:
    """The operand that `e` reads at the output's own position, like x[i, j, 0] where the extent
    of its last axis is 1; None for anything else."""
    if not isinstance(e, Read) or e.outside is not None or len(e.index) != len(stage.axes):
        return None
    for at, axis, extent in zip(e.index, stage.axes, e.tensor.type.shape, strict=True):
        if not ((at == axis.i and extent == axis.extent) or (at == 0 and extent == 1)):
            return None
    return e.tensor.name
