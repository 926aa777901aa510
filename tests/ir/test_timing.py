"""Every value has a time: text, bind, step, run."""

from __future__ import annotations

import time
from random import Random

import numpy as np
import pytest
from graphs import Builder
from random_graphs import random_graph

from convdsl.ir.graph import Graph, InputNode, Node, OpNode, StateNode, Value
from convdsl.ir.opdef import Role
from convdsl.ir.timing import Time, Timing, bound_nodes
from convdsl.passes.rewrite import Rewriter


def times(graph: Graph) -> dict[str, Time]:
    timing = Timing(graph)
    return {node.name: timing.of_node(node) for node in graph.nodes()}


def test_a_value_is_as_late_as_its_latest_operand() -> None:
    b = Builder()
    x, p, s = b.input("x", 2, 3), b.parameter("p", 3), b.parameter("s", 3)
    two = b.constant("two", np.full(3, 2.0))
    text = b("sqrt", two, name="text")
    bind = b("mul", p, text, name="bind")
    step = b("add", s, bind, name="step")
    b.output(y=b("mul", x, step, name="run"))
    b.update(s, step)
    assert times(b.graph) == {
        "x": Time.RUN,
        "p": Time.BIND,
        "s": Time.STEP,
        "two": Time.TEXT,
        "text": Time.TEXT,
        "bind": Time.BIND,
        "step": Time.STEP,
        "run": Time.RUN,
    }
    assert bound_nodes(b.graph) == {text.node.id, bind.node.id}
    assert Time.TEXT < Time.BIND < Time.STEP < Time.RUN


def test_without_the_update_the_state_is_a_weight() -> None:
    b = Builder()
    s = b.parameter("s", 3)
    b.output(y=b("sqrt", s))
    assert set(times(b.graph).values()) == {Time.BIND}
    b.update(s, b.graph.outputs["y"])
    assert set(times(b.graph).values()) == {Time.STEP}


def by_definition(graph: Graph, node: Node) -> Time:
    """Straight from the definition, for graphs that are small enough."""
    if isinstance(node, InputNode):
        return Time.RUN
    if isinstance(node, StateNode):
        if node.role is Role.CONSTANT:
            return Time.TEXT
        return Time.STEP if node.name in graph.updates else Time.BIND
    assert isinstance(node, OpNode)
    operands = [by_definition(graph, value.node) for value in node.inputs.values()]
    return max(operands, default=Time.TEXT)


@pytest.mark.parametrize("seed", range(30))
def test_in_any_order_the_answer_is_that_of_the_definition(seed: int) -> None:
    graph, random = random_graph(seed), Random(seed)
    for key, state in graph.states.items():
        if state.role is not Role.CONSTANT and random.random() < 0.3:
            graph.updates[key] = state.output
    nodes = graph.nodes()
    random.shuffle(nodes)
    timing = Timing(graph)
    for node in nodes:
        assert timing.of_node(node) is by_definition(graph, node)


def test_a_rewriter_knows_of_nodes_that_it_made() -> None:
    b = Builder()
    x, p, s = b.input("x", 2, 3), b.parameter("p", 2, 3), b.parameter("s", 2, 3)
    y = b("add", x, p)
    b.update(s, b("sqrt", s))
    b.output(y=y)
    rewriter = Rewriter(b.graph)
    assert not rewriter.is_bound(y)

    def doubled(value: Value) -> Value:
        return rewriter.at(y.node)("add", value, value, name="doubled")

    assert [rewriter.is_bound(doubled(value)) for value in (p, s, x)] == [True, False, False]


def long_chain(length: int) -> Graph:
    """A chain whose every operator reads its predecessor and the first, and one that reads all."""
    b = Builder()
    first = h = b.input("x", 1, 2)
    made = [h]
    for _ in range(length):
        h = b("add", h, first)
        made.append(h)
    rows = [b("concat", *made[i : i + 100]) for i in range(0, len(made), 100)]
    return b.output(y=b("concat", *rows))


def test_asking_for_everything_takes_linear_time() -> None:
    """Backwards, where nothing is known yet and the deepest comes first."""

    def seconds(length: int) -> float:
        nodes = long_chain(length).nodes()[::-1]
        best = float("inf")
        for _ in range(3):
            timing, start = Timing(Graph()), time.process_time()
            for node in nodes:
                timing.of_node(node)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(4000) < 24 * seconds(500)  # 8 where it is linear, 64 where it is quadratic
