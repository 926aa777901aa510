"""Arithmetic over weights: rounded once, whichever way it is evaluated, and let go of early."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from graphs import random_arrays

import convdsl
from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ir.timing import bound_nodes
from convdsl.ir.weight_time import run_in_double, weight_time_values
from convdsl.passes import run

TEXTS = {
    "folded": "x -> conv(24, 3) as conv -> bn as bn -> relu -> conv(6, 1) -> bn as b2 -> output y",
    "into the consumer": "x -> bn as bn -> conv(8, 1) as conv -> output y",
    "transposed": "x -> conv_transpose(8, 3, stride = 2, groups = 2) as up -> bn as bn -> output y",
    "alone": "x -> bn as bn -> relu -> output y",
    "turned": "w = parameter([5, 16, 8])\n matmul(x, w -> transpose([1, 2, 0])) -> output y",
    "turned twice": "w = parameter([8, 5, 16]) -> transpose([2, 1, 0]) -> transpose([0, 2, 1])\n"
    " matmul(x, 2 * w) -> output y",
    "shared": "let f = conv(16, 3)\n x -> f -> bn as one -> f -> bn as two -> output y",
}


def folded(text: str) -> Graph:
    model = convdsl.parse(f"model m {{\n input x: f32[N, 16, 8, 8]\n {text}\n}}\n")
    return run(model.graph.bind({"N": 1}))


def weights(graph: Graph) -> dict[str, Any]:
    arrays = random_arrays(graph)
    return {name: arrays[name].astype(np.float32) for name in graph.states if name in arrays}


def one_by_one(graph: Graph, states: dict[str, Any]) -> dict[Value, Any]:
    """Everything in double precision, all of it kept, rounded at the end."""
    exact: dict[Value, Any] = {}
    for node in graph.nodes():
        if isinstance(node, StateNode):
            exact[node.output] = states[node.name] if node.data is None else node.data
        elif isinstance(node, OpNode) and node.id in bound_nodes(graph):
            operands = {name: exact[value] for name, value in node.inputs.items()}
            exact.update(zip(node.outputs, run_in_double(node, operands), strict=True))
    with np.errstate(over="ignore"):
        return {value: array.astype(value.type.dtype.numpy) for value, array in exact.items()}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_value_is_rounded_once(text: str) -> None:
    graph = folded(text)
    states = weights(graph)
    expected = one_by_one(graph, states)
    assert any(isinstance(value.node, OpNode) for value in expected)
    found = dict(weight_time_values(graph, states, expected.keys()))
    assert found.keys() == expected.keys()
    for value, array in expected.items():
        assert found[value].dtype == array.dtype
        np.testing.assert_array_equal(found[value], array, err_msg=value.name)


def test_only_what_is_wanted() -> None:
    graph = folded(TEXTS["folded"])
    (wanted,) = (v for v in one_by_one(graph, weights(graph)) if v.name == "conv.weight_folded")
    found = list(weight_time_values(graph, weights(graph), {wanted}))
    assert [value for value, _ in found] == [wanted]


def test_infinities_and_nans_pass_quietly() -> None:
    graph = folded(TEXTS["folded"])
    states = weights(graph)
    states["conv.weight"][0, 0, 0, :] = [np.inf, np.nan, 3e38]
    states["bn.weight"][0] = 3e38
    expected = one_by_one(graph, states)
    for value, array in weight_time_values(graph, states, expected.keys()):
        np.testing.assert_array_equal(array, expected[value])


def test_memory_is_that_of_one_layer() -> None:
    layers = " -> ".join(f"conv(256, 3) as c{i} -> bn as b{i}" for i in range(6))
    graph = folded(f"x -> {layers} -> output y")
    states = weights(graph)
    largest = max(array.nbytes for array in states.values())
    wanted = set(one_by_one(graph, states))
    tracemalloc.start()
    for _ in weight_time_values(graph, states, wanted):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * largest
