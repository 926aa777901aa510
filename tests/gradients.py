"""Gradients held against differences, in double precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from executors import graph_of
from graphs import evaluate_graph
from op_cases.draw import Case

from convdsl.autodiff import gradients
from convdsl.ir.build import Build, Names
from convdsl.ir.graph import Graph, Value
from convdsl.ir.opdef import Call
from convdsl.ops import BY_NAME
from convdsl.tensor import DType, TensorType

Array = np.ndarray[Any, Any]

EPS, ATOL, RTOL = 1e-6, 1e-5, 1e-3

POSITIVE = {"log", "sqrt", "pow"}
"""Operators that are defined, or smooth, for positive operands only."""


def of_dtype(call: Call, dtype: DType) -> Call:
    """The call with all its floating operands of one dtype."""
    types = {
        name: TensorType(dtype, type.shape) if type.dtype.is_float else type
        for name, type in call.types.items()
    }
    attributes = dict(call.attributes)
    if "dtype" in attributes and DType(attributes["dtype"]).is_float:
        attributes["dtype"] = str(dtype)
    return Call(call.op, types, attributes)


def smooth_arrays(case: Case, call: Call, seed: int) -> dict[str, Array]:
    """Operands away from kinks: no two values alike or nearly so, none near 0, all of order 1."""
    random = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for number, (name, type) in enumerate(call.types.items()):
        given = case.arrays[name]
        if not type.dtype.is_float:
            arrays[name] = given
            continue
        count = given.size
        values = 0.137 + 1.7 * (random.permutation(count) + 0.1 * number + 0.31) / max(count, 1)
        positive = call.op.name in POSITIVE or name == "running_var"
        signs = 1 if positive else random.choice((-1, 1), count)
        arrays[name] = (values * signs).reshape(given.shape).astype(type.dtype.numpy)
    return arrays


def with_gradients(
    graph: Graph, wrt: Mapping[str, Value], verify: bool = True
) -> tuple[Graph, dict[str, Value | None]]:
    """The graph with inputs `d<output>` added, and the gradients that follow from these."""
    build = Build(graph, BY_NAME, Names(node.name for node in graph.nodes()))
    cotangents = {
        value: build.input(f"d_{name}", value.type)
        for name, value in graph.outputs.items()
        if value.type.dtype.is_float
    }
    found = gradients(graph, cotangents, list(wrt.values()), build)
    return graph, dict(zip(wrt, found, strict=True))


def floating(graph: Graph) -> dict[str, Value]:
    """Inputs and weights that may have gradients, by name."""
    weights = {name: node.output for name, node in graph.states.items() if node.data is None}
    values = graph.inputs | weights
    return {name: value for name, value in values.items() if value.type.dtype.is_float}


def differences(
    graph: Graph, arrays: Mapping[str, Array], dys: Mapping[str, Array], name: str, places: Any
) -> Array:
    """By how much the sum of outputs times `dys` changes with elements of one input or weight."""

    def total(place: int, step: float) -> float:
        moved = arrays[name].copy()
        moved.reshape(-1)[place] += step
        outputs = evaluate_graph(graph, {**arrays, name: moved})
        return sum(float(np.sum(outputs[key] * dy)) for key, dy in dys.items())

    return np.array([(total(p, EPS) - total(p, -EPS)) / (2 * EPS) for p in places])


def check_graph(graph: Graph, arrays: Mapping[str, Array], seed: int, places: int = 6) -> int:
    """Gradients of all inputs and weights agree with differences; how many there are."""
    random = np.random.default_rng(seed)
    wrt = floating(graph)
    forward = graph.copy()
    outputs = {n: v for n, v in graph.outputs.items() if v.type.dtype.is_float}
    dys = {name: random.standard_normal(value.type.sizes) for name, value in outputs.items()}
    graph, found = with_gradients(graph, wrt)
    graph.outputs = {name: value for name, value in found.items() if value is not None}
    results = evaluate_graph(graph, {**arrays, **{f"d_{name}": dy for name, dy in dys.items()}})
    for name, value in wrt.items():
        size = int(np.prod(value.type.sizes))
        chosen = random.permutation(size)[:places]
        expected = differences(forward, arrays, dys, name, chosen)
        actual = results.get(name, np.zeros(value.type.sizes))
        assert actual.shape == value.type.sizes
        np.testing.assert_allclose(
            actual.reshape(-1)[chosen], expected, RTOL, ATOL, err_msg=f"gradient of {name}"
        )
    return len(results)


def case_graph(case: Case, seed: int, dtype: DType = DType.F64) -> tuple[Graph, dict[str, Array]]:
    """A graph of one operator, and operands away from kinks."""
    call = of_dtype(case.call, dtype)
    return graph_of(call), smooth_arrays(case, call, seed)
