"""Graphs as text."""

from __future__ import annotations

from graphs import Builder

from convdsl.diagnostics import SourceFile
from convdsl.ir.text import format_attribute, format_graph
from convdsl.tensor import symbol


def test_one_line_per_operator_with_weights_as_operands() -> None:
    b = Builder()
    x = b.input("x", symbol("N"), 3, 8, 8)
    h = b("conv", x, channels=4, kernel=3, stride=2, pad=((0, 1), (0, 1)), bias=False)
    p = b("sqrt", b.parameter("p", 4, 1, 1))
    b.output(y=b("mul", b("max_pool", h, kernel=2), p))
    for node in b.graph.op_nodes()[-2:]:
        node.group = 7
    assert format_graph(b.graph) == (
        "graph\n"
        "  input x: f32[N, 3, 8, 8]\n"
        "  conv1 = conv(x, weight=conv1.weight: f32[4, 3, 3, 3]) channels=4 kernel=3 stride=2"
        " pad=(0,1) bias=false: f32[N, 4, 4, 4]\n"
        "  max_pool1 = max_pool(conv1) kernel=2: f32[N, 4, 2, 2]  # group 7\n"
        "  mul1 = mul(max_pool1, sqrt1): f32[N, 4, 2, 2]  # group 7\n"
        "  output y = mul1\n"
        "  # before, once, when weights are bound\n"
        "  sqrt1 = sqrt(x=p: f32[4, 1, 1]): f32[4, 1, 1]\n"
    )


def test_locations_on_request() -> None:
    b = Builder()
    source = SourceFile("net.cnn", "a\nrelu\n")
    x = b.input("x", 1, 2)
    node = b.graph.apply(b("relu", x).node.op, {"x": x}, name="r", span=source.span(2, 6))
    b.output(y=node.output)
    assert "r = relu(x): f32[1, 2]  # net.cnn:2\n" in format_graph(b.graph, locations=True)
    assert "net.cnn" not in format_graph(b.graph)


def test_attributes_read_as_they_are_written() -> None:
    assert format_attribute((3, 3)) == "3"
    assert format_attribute((3, 1)) == "3x1"
    assert format_attribute(((0, 1), (1, 1))) == "(0,1)x1"
    assert format_attribute(()) == "()"
    assert format_attribute(False) == "false"
    assert format_attribute("same") == "same"
    assert format_attribute(symbol("H") + 1) == "H+1"
