"""Second derivatives: gradients of every operator's gradients are what differences of these say."""

from __future__ import annotations

import pytest
from gradients import (
    Compared,
    case_graph,
    compare,
    cotangents_of,
    floating,
    gradient_graph,
    smooth_case,
)

from convdsl.ir.opdef import Derived, OpDef, Rule
from convdsl.ops import OPERATORS

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
