"""The verifier accepts what the API builds and names what is wrong otherwise."""

from __future__ import annotations

import pytest
from graphs import Builder, rewritten

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.verify import GraphError, verify
from convdsl.tensor import DType, TensorType, symbol


def network() -> Graph:
    b = Builder()
    x = b.input("x", symbol("N"), 4, 8, 8)
    h = b("relu", b("conv", x, channels=4, kernel=3))
    return b.output(y=b("relu", b("add", h, b("conv", h, channels=4, kernel=3))))


def node(graph: Graph, name: str) -> OpNode:
    return next(n for n in graph.op_nodes() if n.name == name)


def test_a_sound_graph_passes() -> None:
    verify(network())


def called_as_its_layer() -> Graph:
    b = Builder()
    gain = b("parameter", name="gain", shape=(4, 1, 1), bare=True)
    return b.output(y=b("mul", b.input("x", 1, 4, 8, 8), gain))


def test_a_weight_called_as_its_layer_passes() -> None:
    graph = called_as_its_layer()
    assert node(graph, "gain").inputs["weight"].node is graph.states["gain"]
    verify(graph)
    rewritten(graph)


def test_a_weight_called_as_another_layer_is_refused() -> None:
    graph = called_as_its_layer()
    node(graph, "mul1").name, node(graph, "gain").name = "gain", "other"
    with pytest.raises(GraphError, match="several nodes are called gain"):
        verify(graph)


def rename(graph: Graph) -> None:
    node(graph, "conv2").name = "conv1"


def misplace_output(graph: Graph) -> None:
    graph.outputs["y"] = Value(node(graph, "relu2"), 0, graph.outputs["y"].type)


def foreign_output(graph: Graph) -> None:
    graph.outputs["y"] = network().outputs["y"]


def make_cycle(graph: Graph) -> None:
    graph.set_input(node(graph, "relu1"), "x", node(graph, "add1").output)


def lose_operand(graph: Graph) -> None:
    del node(graph, "add1").inputs["b"]


def gain_operand(graph: Graph) -> None:
    add = node(graph, "add1")
    add.inputs["c"] = add.inputs["a"]


def rewire_without_edge(graph: Graph) -> None:
    assert graph.users(node(graph, "relu1").output)  # edges exist once they were asked for
    node(graph, "add1").inputs["a"] = node(graph, "conv1").output


def change_type(graph: Graph) -> None:
    node(graph, "relu1").output.type = TensorType(DType.F32, (1, 4, 8, 8))


def change_weight_type(graph: Graph) -> None:
    graph.states["conv1.weight"].output.type = TensorType(DType.F32, (4, 4, 5, 5))


def unresolve(graph: Graph) -> None:
    node(graph, "conv1").attributes["stride"] = 1


def drop_attribute(graph: Graph) -> None:
    del node(graph, "conv1").attributes["flip"]


def contradict_bias(graph: Graph) -> None:
    node(graph, "conv1").attributes["bias"] = False


def group_with_another_root(graph: Graph) -> None:
    node(graph, "relu1").group = node(graph, "conv2").group = 1


def group_of_strangers(graph: Graph) -> None:
    node(graph, "conv1").group = node(graph, "relu2").group = 1


def groups_in_a_circle(graph: Graph) -> None:
    """The sum reads the first convolution's values and what the second one made of them."""
    for name in ("conv1", "relu1", "add1"):
        node(graph, name).group = 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rename, "several nodes are called conv1"),
        (misplace_output, "a value that relu2 does not put out"),
        (foreign_output, "not in the graph"),
        (make_cycle, "cycle"),
        (lose_operand, "add1 lacks its operand b"),
        (gain_operand, "no operand c"),
        (rewire_without_edge, "edges and operands disagree"),
        (change_type, "puts out"),
        (change_weight_type, r"conv1.weight is not f32\[4, 4, 3, 3\]"),
        (unresolve, "unresolved"),
        (drop_attribute, "has attributes"),
        (contradict_bias, "has weights"),
        (group_with_another_root, "conv2 stands in group 1 and is no map"),
        (group_of_strangers, "relu2 stands in group 1 and reads nothing of it"),
        (groups_in_a_circle, "wait for each other: conv1, conv2"),
    ],
    ids=lambda case: case.__name__ if callable(case) else None,
)
def test_damage_is_named(damage, message: str) -> None:
    graph = network()
    damage(graph)
    with pytest.raises(GraphError, match=message):
        verify(graph)
