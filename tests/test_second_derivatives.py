"""Second derivatives: gradients of every operator's gradients are what differences of these say."""

from __future__ import annotations

import numpy as np
import pytest
from gradients import (
    Compared,
    case_graph,
    compare,
    cotangents_of,
    differences,
    floating,
    gradient_graph,
    smooth_case,
)
from graphs import evaluate_graph, random_arrays

import convdsl
from convdsl.ir.opdef import Derived, OpDef, Rule
from convdsl.ops import OPERATORS

pytestmark = pytest.mark.drawn

CASES = 12
SMOOTH = [op for op in OPERATORS if isinstance(op.gradient, Derived | Rule)]


def parts(few: int) -> pytest.MarkDecorator:
    """The first configurations always, the others where all are asked for."""
    rest = [pytest.mark.slow, pytest.mark.fuzz]
    numbers = [
        pytest.param(range(few), id="first"),
        pytest.param(range(few, CASES), marks=rest, id="others"),
    ]
    return pytest.mark.parametrize("numbers", numbers)


def second(op: OpDef, number: int) -> Compared | None:
    """By all operands and by the gradients of outputs; None where the gradient is of nothing."""
    graph, arrays = case_graph(smooth_case(op.name, number), number)
    arrays |= {f"d_{name}": dy for name, dy in cotangents_of(graph, number).items()}
    graph = gradient_graph(graph, floating(graph))
    return compare(graph, arrays, number, places=3) if graph.outputs else None


@parts(4)
@pytest.mark.parametrize("op", SMOOTH, ids=lambda op: op.name)
def test_agree_with_differences_of_gradients(op: OpDef, numbers: range) -> None:
    found = [c for c in (second(op, number) for number in numbers) if c is not None]
    assert sum(c.agreed for c in found) > sum(c.kinks for c in found)


def test_of_a_model() -> None:
    """How the slope of the loss by the image changes with the weights, and with the image."""
    model = convdsl.parse(
        "model m {\n    input x: f32[2, 3, 6, 6]\n    output y = x -> conv(4, 3x3) as c -> silu"
        " -> max_pool(2) -> flatten -> linear(3) as l -> log_softmax\n}\n"
    )
    slope = convdsl.gradient(model, wrt="x")
    found = convdsl.gradient(slope, "dx", ["x", "*.weight"]).graph
    arrays = random_arrays(found, 4)
    results = evaluate_graph(found, arrays)
    dys = {"dx": np.ones((2, 3, 6, 6)), "y": np.zeros((2, 3))}
    for name in ("x", "c.weight", "l.weight"):
        places = [0, 5, 11]
        expected = differences(slope.graph, arrays, dys, name, places)
        np.testing.assert_allclose(results[f"d{name}"].flat[places], expected, 1e-3, 1e-5)
