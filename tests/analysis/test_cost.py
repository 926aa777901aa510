"""Costs: conventions, sharing, symbols, gaps."""

from __future__ import annotations

import dataclasses

import pytest
from graphs import Builder, evaluate_graph, random_arrays

from convdsl.analysis.cost import costs, weight_bytes
from convdsl.analysis.report import analyse
from convdsl.diagnostics import InputError
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.ir.opdef import Cost
from convdsl.kernel.evaluate import Counter
from convdsl.ops import BY_NAME
from convdsl.tensor import DType, symbol


def network(n=2, size=8) -> Graph:
    b = Builder()
    x = b.input("x", n, 4, size, size)
    h = b("relu", b("batch_norm", b("conv", x, channels=6, kernel=3, stride=2)))
    p = b("avg_pool", h, kernel="global")
    return b.output(y=b("softmax", b("linear", b("flatten", p), channels=5)))


def test_every_figure_of_a_small_network_by_hand() -> None:
    rows = {node.name: cost for node, cost in costs(network()).items()}
    conv = rows["conv1"]
    outputs = 2 * 6 * 4 * 4
    assert conv.params == 6 * 4 * 9 + 6
    assert conv.macs == outputs * 36
    assert conv.flops == outputs * (36 + 35 + 1)  # products, sums, bias
    assert conv.neurons == 6 * 4 * 4
    assert conv.activations == outputs
    norm = rows["batch_norm1"]
    assert (norm.params, norm.macs, norm.neurons) == (12, 0, 0)
    assert norm.flops == outputs * 2 + 6 * (3 + 2)  # map; scale: add sqrt div; shift: mul sub
    assert rows["relu1"].flops == outputs
    assert rows["avg_pool1"].flops == 2 * 6 * (15 + 1)
    assert rows["flatten1"].flops == 0
    linear = rows["linear1"]
    assert (linear.params, linear.macs, linear.neurons) == (35, 60, 5)
    assert linear.flops == 10 * (6 + 5 + 1)
    assert rows["softmax1"].flops == 2 * (4 + 5 * 2 + 4 + 5)


def test_torchvision_counts_contractions_alone() -> None:
    rows = costs(network(), "torchvision")
    assert {n.name: c.flops for n, c in rows.items() if c.flops} == {
        "conv1": 2 * 2 * 6 * 16 * 36,
        "linear1": 2 * 60,
    }


def test_flops_are_the_arithmetic_executed() -> None:
    graph, counter = network(), Counter()
    evaluate_graph(graph, random_arrays(graph), counter)
    assert counter.operations == sum(cost.flops for cost in costs(graph).values())


def test_shared_weights_count_once() -> None:
    b = Builder()
    x = b.input("x", 1, 4, 6, 6)
    first = b("conv", x, channels=4, kernel=3)
    states = {k: b.graph.states[f"conv1.{k}"].output for k in ("weight", "bias")}
    b.output(y=b("conv", first, channels=4, kernel=3, states=states))
    assert [c.params for c in costs(b.graph).values()] == [148, 0]
    assert weight_bytes(b.graph) == 148 * 4


def test_free_parameters_count_where_they_are_used_and_constants_never() -> None:
    b = Builder()
    x = b.input("x", 1, 4)
    y = b("mul", x, b.parameter("gain", 4, dtype=DType.F32))
    b.output(y=b("add", y, b.constant("one", [1.0, 1, 1, 1])))
    assert [c.params for c in costs(b.graph).values()] == [4, 0]
    assert weight_bytes(b.graph) == 16


def test_buffers_weigh_and_are_no_parameters() -> None:
    b = Builder()
    b.output(y=b("batch_norm", b.input("x", 1, 4, dtype=DType.F64)))
    assert [c.params for c in costs(b.graph).values()] == [8]
    assert weight_bytes(b.graph) == 16 * 8


def test_symbols_stay_until_bound() -> None:
    graph = network(symbol("N"), symbol("H", minimum=2, divisor=2))
    model = Model("m", graph)
    total = analyse(model).to_json()["total"]
    assert total["macs"] == "54*N*H**2 + 30*N"
    assert total["params"] == 222 + 12 + 35
    bound = analyse(model, bindings={"N": 2, "H": 8}).to_json()["total"]
    assert bound == analyse(Model("m", network())).to_json()["total"]


def test_a_gap_makes_a_total_a_lower_bound() -> None:
    unknown = dataclasses.replace(
        BY_NAME["relu"], name="sort_of_relu", cost=lambda call: Cost(macs=0, flops=None)
    )
    b = Builder()
    x = b.input("x", 1, 4)
    node = b.graph.apply(unknown, {"x": b("relu", x)}, name="mystery")
    report = analyse(Model("m", b.output(y=node.output)))
    data = report.to_json()
    assert data["layers"][1]["flops"] is None
    assert data["total"]["flops"] == 4
    assert data["lower_bounds"] == ["flops"]


def test_unknown_conventions_are_misuse() -> None:
    with pytest.raises(InputError, match="all, torchvision"):
        analyse(Model("m", network()), "mine")
