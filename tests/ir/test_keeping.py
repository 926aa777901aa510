"""What the backward pass reads of the forward pass: results and statistics, kept where it does."""

from __future__ import annotations

import numpy as np
import pytest
from gradients import check_graph, floating, with_gradients
from graphs import Builder, evaluate_graph, random_arrays, structure

from convdsl.ir.graph import Graph
from convdsl.ir.verify import verify
from convdsl.tensor import DType

F64 = DType.F64


def activated(op: str, **attributes: object) -> Graph:
    b = Builder()
    return b.output(y=b(op, b.input("x", 3, 4, dtype=F64), name="f", **attributes))


@pytest.mark.parametrize(
    ("op", "attributes"),
    [("relu", {}), ("relu6", {}), ("leaky_relu", {"slope": 0.5}), ("leaky_relu", {"slope": 0.0})],
)
def test_where_signs_stay_the_result_is_read(op: str, attributes: dict[str, object]) -> None:
    graph = activated(op, **attributes)
    graph, found = with_gradients(graph, floating(graph))
    assert structure(graph)[1:] == [f"f.dx = {op}.grad(x)(f, d_y)"]
    arrays = random_arrays(graph, 1, 4.0)
    graph.outputs = {"dx": found["x"]}  # type: ignore[dict-item]
    x, dy = arrays["x"], arrays["d_y"]
    below = attributes.get("slope", 0.0)
    inside = (x > 0) & ((x < 6) if op == "relu6" else True)
    expected = np.where(inside, dy, np.where(x <= 0, dy * below, 0.0))
    np.testing.assert_array_equal(evaluate_graph(graph, arrays)["dx"], expected)


def test_where_a_slope_falls_the_operand_is_read() -> None:
    graph = activated("leaky_relu", slope=-0.5)
    graph, _ = with_gradients(graph, floating(graph))
    assert structure(graph)[1:] == ["f.dx = leaky_relu.grad(x)(x, d_y)"]
    check_graph(activated("leaky_relu", slope=-0.5), random_arrays(graph, 2), 2)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [("layer_norm", {}), ("group_norm", {"groups": 2}), ("instance_norm", {"affine": True})],
)
def test_statistics_are_kept_where_a_gradient_is_taken(
    op: str, attributes: dict[str, object]
) -> None:
    b = Builder()
    y = b(op, b.input("x", 2, 4, 3, dtype=F64), name="f", **attributes)
    graph = b.output(y=y)
    assert len(y.node.outputs) == 1
    arrays = random_arrays(graph, 3)
    before = evaluate_graph(graph, arrays)["y"]
    graph, _ = with_gradients(graph, floating(graph))
    verify(graph)
    assert graph.outputs["y"] is y
    assert [value.name for value in y.node.outputs] == ["f:y", "f:mean", "f:scale"]
    arrays |= {"d_y": np.zeros((2, 4, 3))}
    np.testing.assert_array_equal(evaluate_graph(graph, arrays)["y"], before)


@pytest.mark.dear
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("op", "attributes"), [("layer_norm", {}), ("group_norm", {"groups": 2}), ("instance_norm", {})]
)
def test_gradients_of_gradients_through_what_is_kept(
    op: str, attributes: dict[str, object], affine: bool
) -> None:
    b = Builder()
    y = b(op, b.input("x", 2, 4, 3, dtype=F64), name="f", affine=affine, eps=0.1, **attributes)
    graph = b.output(y=b("tanh", y))
    graph, found = with_gradients(graph, floating(graph))
    graph.outputs = {f"g{n}": value for n, value in found.items() if value is not None}
    check_graph(graph, random_arrays(graph, 4), 4)
