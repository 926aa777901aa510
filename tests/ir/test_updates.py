"""Graphs whose states change: what replaces a state is kept by everything that rewrites."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Builder, assert_same_numbers, rewritten, structure

from convdsl.analysis.memory import peak_activation_bytes
from convdsl.ir.canonical import canonical_text
from convdsl.ir.graph import Graph, Value
from convdsl.ir.groups import kernels_of, leaving
from convdsl.ir.text import format_graph
from convdsl.ir.verify import GraphError, verify
from convdsl.passes.common_subexpressions import CommonSubexpressions
from convdsl.passes.eliminate_dead_code import EliminateDeadCode
from convdsl.passes.fold_batchnorm import FoldBatchNorm
from convdsl.passes.fuse_elementwise import FuseElementwise
from convdsl.tensor import DType, TensorType


def counter() -> Graph:
    """count <- count + 1, beside y = x + count."""
    b = Builder()
    x, count = b.input("x", 2, 3), b.parameter("count", 3)
    b.update(count, b("add", count, b.constant("one", 1.0), name="next"))
    return b.output(y=b("add", x, count, name="sum"))


def test_a_graph_with_an_update_is_sound() -> None:
    graph = counter()
    verify(graph)
    assert [value.name for value in graph.results] == ["sum", "next"]
    assert graph.is_result(graph.updates["count"])
    assert not graph.is_output(graph.updates["count"])


def unknown(graph: Graph) -> None:
    graph.updates["other"] = graph.updates["count"]


def of_an_input(graph: Graph) -> None:
    graph.updates["x"] = graph.inputs["x"]


def of_a_constant(graph: Graph) -> None:
    graph.updates["one"] = graph.states["one"].output


def of_another_type(graph: Graph) -> None:
    graph.updates["count"] = graph.outputs["y"]


def of_another_dtype(graph: Graph) -> None:
    b = Builder()
    b.graph = graph
    graph.updates["count"] = b.parameter("wide", 3, dtype=DType.F64)


def by_a_foreign_value(graph: Graph) -> None:
    graph.updates["count"] = counter().updates["count"]


def by_a_value_that_is_not_put_out(graph: Graph) -> None:
    old = graph.updates["count"]
    graph.updates["count"] = Value(old.node, 1, old.type)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unknown, "there is no state other"),
        (of_an_input, "there is no state x"),
        (of_a_constant, "the constant one is updated"),
        (of_another_type, r"count: f32\[3\] is updated by sum: f32\[2, 3\]"),
        (of_another_dtype, r"count: f32\[3\] is updated by wide: f64\[3\]"),
        (by_a_foreign_value, "which is not in the graph"),
        (by_a_value_that_is_not_put_out, "does not put out"),
    ],
)
def test_what_an_update_must_hold(change, message: str) -> None:
    graph = counter()
    change(graph)
    with pytest.raises(GraphError, match=message):
        verify(graph)


def test_both_texts_say_it() -> None:
    graph = counter()
    assert "\n  update count = next\n" in format_graph(graph)
    assert "once, when weights are bound" not in format_graph(graph)
    with_update = canonical_text(graph)
    assert with_update.endswith("\nupdate 'count' 3.0")
    graph.updates["count"] = graph.states["count"].output
    assert canonical_text(graph) != with_update
    del graph.updates["count"]
    assert "update" not in canonical_text(graph)


def test_copies_and_uses_follow() -> None:
    graph = counter()
    bound = graph.copy()
    assert bound.updates.keys() == {"count"}
    assert bound.updates["count"] is not graph.updates["count"]
    assert canonical_text(bound) == canonical_text(graph)
    old, new = graph.updates["count"], graph.states["count"].output
    graph.replace_uses(old, new)
    assert graph.updates["count"] is new
    assert graph.to_networkx().nodes["count"]["update"] == "count"


def test_what_an_update_needs_cannot_be_removed() -> None:
    b = Builder()
    x, kept = b.input("x", 3), b.parameter("kept", 3)
    b.update(kept, b("sqrt", x, name="root"))
    graph = b.output(y=x)
    for node in (graph.updates["kept"].node, graph.states["kept"]):
        assert graph.is_used(node)
        with pytest.raises(ValueError, match="still used"):
            graph.remove(node)


def test_dead_code_keeps_states_and_what_replaces_them() -> None:
    b = Builder()
    x, kept, lost = b.input("x", 3), b.parameter("kept", 3), b.parameter("lost", 3)
    b.update(kept, b("sqrt", x, name="root"))
    b("mul", lost, x, name="product")
    after = rewritten(b.output(y=x), EliminateDeadCode())
    assert structure(after) == ["root = sqrt(x)"]
    assert list(after.states) == ["kept"]


def test_equal_updates_may_become_one_value() -> None:
    b = Builder()
    x, p, q = b.input("x", 3), b.parameter("p", 3), b.parameter("q", 3)
    b.update(p, b("exp", x))
    b.update(q, b("exp", x))
    graph = b.output(y=b("add", p, q))
    after = rewritten(graph, CommonSubexpressions())
    assert structure(after) == ["exp1 = exp(x)", "add1 = add(p, q)"]
    assert set(after.updates.values()) == {after.op_nodes()[0].output}
    assert_same_numbers(graph, after)


def normalised(update: str | None) -> Graph:
    """conv -> batch_norm -> relu; one state of the two layers may change."""
    b = Builder()
    h = b("conv", b.input("x", 1, 4, 6, 6), channels=4, kernel=3, name="conv")
    graph = b.output(y=b("relu", b("batch_norm", h, name="bn")))
    if update is not None:
        state = graph.states[update].output
        half = b.constant("half", 0.5)
        b.update(state, b("mul", state, half, name="changed"))
    return graph


@pytest.mark.parametrize("key", ["bn.running_mean", "bn.running_var", "bn.weight", "bn.bias"])
def test_statistics_that_change_are_not_folded(key: str) -> None:
    graph = normalised(key)
    after = rewritten(graph)
    assert [node.op.name for node in after.op_nodes()].count("batch_norm") == 1
    assert_same_numbers(graph, after)


def test_a_weight_that_changes_absorbs_nothing() -> None:
    """The layer is left as it is, and batch_norm becomes a product and a sum behind it."""
    graph = normalised("conv.weight")
    after = rewritten(graph, FoldBatchNorm())
    conv = next(node for node in after.op_nodes() if node.op.name == "conv")
    assert conv.inputs["weight"] is after.states["conv.weight"].output
    assert_same_numbers(graph, after)
    absorbed = rewritten(normalised(None), FoldBatchNorm())
    conv = next(node for node in absorbed.op_nodes() if node.name == "conv")
    assert conv.inputs["weight"].name == "conv.weight_folded"


def test_what_replaces_a_state_leaves_its_group_and_may_be_read_there() -> None:
    b = Builder()
    x, s = b.input("x", 3), b.parameter("s", 3)
    middle = b("sqrt", b("add", x, s))
    b.update(s, middle)
    graph = b.output(y=b("relu", middle))
    after = rewritten(graph, FuseElementwise())
    groups = {node.name: node.group for node in after.op_nodes()}
    assert groups["add1"] == groups["sqrt1"] == groups["relu1"] is not None
    (kernel,) = kernels_of(after)
    assert leaving(after, kernel) == [after.updates["s"], after.outputs["y"]]


def test_what_replaces_a_state_lives_to_the_end() -> None:
    """Three values of 400 bytes at the last operator: its operand, its output, the new state."""
    b = Builder()
    x, s = b.input("x", 100), b.parameter("s", 100)
    b.update(s, b("add", x, s))
    graph = b.output(y=b("sqrt", b("relu", x)))
    assert peak_activation_bytes(graph).bytes == 1200
    graph.updates.clear()
    graph = rewritten(graph, EliminateDeadCode())
    assert peak_activation_bytes(graph).bytes == 800


def test_sizes_that_are_open_cannot_be_kept() -> None:
    from convdsl.ir.opdef import Role
    from convdsl.tensor import symbol

    graph = Graph()
    type = TensorType(DType.F32, (symbol("N"), 3))
    graph.outputs["y"] = graph.add_input("x", type)
    graph.updates["s"] = graph.add_state("s", type, Role.BUFFER)
    with pytest.raises(GraphError, match="no fixed size"):
        verify(graph)
    verify(graph.bind({"N": 2}))
    np.testing.assert_equal(list(graph.updates), ["s"])
