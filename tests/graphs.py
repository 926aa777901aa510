"""Graphs for tests: building them in a line, and running them in double precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from convdsl.ir.build import Build, Names
from convdsl.ir.graph import Graph, InputNode, OpNode, StateNode, Value
from convdsl.ir.opdef import Role
from convdsl.ir.weight_time import run_in_double
from convdsl.kernel.evaluate import Counter
from convdsl.ops import BY_NAME
from convdsl.passes import PASSES, Pass, run
from convdsl.tensor import Dim, DType, TensorType

Array = np.ndarray[Any, Any]


class Builder:
    """`b = Builder(); x = b.input("x", 1, 3, 8, 8); y = b("conv", x, channels=4, kernel=3)`."""

    def __init__(self) -> None:
        self.graph = Graph()
        self._names = Names()
        self._counts: dict[str, int] = {}

    @property
    def build(self) -> Build:
        return Build(self.graph, BY_NAME, self._names)

    def input(self, name: str, *shape: Dim, dtype: DType = DType.F32) -> Value:
        return self.build.input(name, TensorType(dtype, shape))

    def constant(self, name: str, data: Any, dtype: DType = DType.F32) -> Value:
        return self.build.constant(data, dtype, name=name)

    def parameter(self, name: str, *shape: int, dtype: DType = DType.F32) -> Value:
        return self.build.state(name, TensorType(dtype, shape))

    def __call__(
        self,
        op: str,
        *operands: Value,
        name: str | None = None,
        states: Mapping[str, Value] | None = None,
        **attributes: Any,
    ) -> Value:
        """Apply an operator to data operands in order; layers are named `conv1`, `conv2` ..."""
        self._counts[op] = self._counts.get(op, 0) + 1
        label = name or f"{op}{self._counts[op]}"
        return self.build(op, *operands, name=label, states=states, **attributes)

    def update(self, state: Value, value: Value) -> None:
        """`value` replaces `state` after a call."""
        self.graph.updates[state.name] = value

    def output(self, **values: Value) -> Graph:
        self.graph.outputs |= values
        return self.graph


def random_arrays(graph: Graph, seed: int = 0, scale: float = 1.0) -> dict[str, Array]:
    """Inputs, parameters and buffers by name; variances positive."""
    random = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for name, value in graph.inputs.items():
        arrays[name] = _draw(random, value.type) * scale
    for name, state in graph.states.items():
        if state.role is Role.CONSTANT:
            continue
        array = _draw(random, state.type)
        arrays[name] = np.abs(array) + 0.5 if name.endswith("running_var") else array * 0.5
    return arrays


def _draw(random: np.random.Generator, type: TensorType) -> Array:
    shape = tuple(int(str(extent)) for extent in type.shape)
    if type.dtype is DType.BOOL:
        return random.integers(0, 2, shape).astype(bool)
    if type.dtype is DType.I64:
        return random.integers(-5, 6, shape)
    return random.standard_normal(shape)


def evaluate_graph(
    graph: Graph, arrays: Mapping[str, Array], counter: Counter | None = None
) -> dict[str, Array]:
    """The model outputs in double precision, node by node, by the oracle."""
    return evaluate_results(graph, arrays, counter)[0]


def evaluate_results(
    graph: Graph, arrays: Mapping[str, Array], counter: Counter | None = None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The same, and what replaces states, by key."""
    values: dict[Value, Array] = {}
    for node in graph.nodes():
        if isinstance(node, InputNode):
            values[node.output] = arrays[node.name]
        elif isinstance(node, StateNode):
            values[node.output] = arrays[node.name] if node.data is None else node.data
        elif isinstance(node, OpNode):
            operands = {key: values[value] for key, value in node.inputs.items()}
            outputs = run_in_double(node, operands, counter)
            values.update(zip(node.outputs, outputs, strict=True))
    outputs = {name: values[value] for name, value in graph.outputs.items()}
    return outputs, {key: values[value] for key, value in graph.updates.items()}


def assert_same_numbers(
    before: Graph, after: Graph, seed: int = 0, tolerance: float = 1e-6
) -> None:
    """Both graphs compute the same outputs and updates from the same random inputs and weights.

    Constants that a rewrite rounds to f32 bound the tolerance.
    """
    arrays = random_arrays(before, seed)
    both = (evaluate_results(graph, arrays) for graph in (before, after))
    for expected, actual in zip(*both, strict=True):
        assert list(expected) == list(actual)
        for name, array in expected.items():
            assert actual[name].shape == array.shape
            span = float(np.max(np.abs(array), initial=1.0))
            np.testing.assert_allclose(actual[name], array, rtol=0, atol=tolerance * span)


def rewritten(graph: Graph, *passes: Pass) -> Graph:
    """The graph after passes (all of them if none is given), verified throughout."""
    return run(graph, passes or PASSES, verify=True)


def structure(graph: Graph) -> list[str]:
    """`name = op(operands)` per operator in order, to compare at a glance."""
    return [
        f"{node.name} = {node.op.name}({', '.join(v.name for v in node.inputs.values())})"
        for node in graph.op_nodes()
    ]
