"""Every operator's gradient, in drawn configurations: it is what differences say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from executors import machine_code, run_graph
from gradients import case_graph, check_graph, floating, with_gradients
from graphs import evaluate_graph
from op_cases import draw_case

from convdsl.ir.opdef import Derived, Missing, NotDifferentiable, OpDef, Rule, Zero
from convdsl.ir.verify import verify
from convdsl.ops import OPERATORS
from convdsl.tensor import DType

SEEDS = 5
SMOOTH = [op for op in OPERATORS if isinstance(op.gradient, Derived | Rule)]

each_smooth = pytest.mark.parametrize("op", SMOOTH, ids=lambda op: op.name)


def test_how_many_there_are_of_each() -> None:
    """What is missing only becomes less; a rule where the arithmetic would do needs a reason."""
    counts = Counter(type(op.gradient) for op in OPERATORS)
    assert counts[Missing] == 0
    assert counts[Rule] <= 15
    assert counts[Zero] == 5
    reasons = [op.gradient.why for op in OPERATORS if isinstance(op.gradient, Rule)]
    assert all(reasons)


def test_what_has_no_gradient_puts_out_no_floats() -> None:
    for op in OPERATORS:
        if isinstance(op.gradient, NotDifferentiable):
            call = draw_case(op.name, 0).call
            assert not any(type.dtype.is_float for type in call.outputs), op.name


@each_smooth
def test_agrees_with_differences(op: OpDef) -> None:
    for seed in range(SEEDS):
        case = draw_case(op.name, seed)
        graph, arrays = case_graph(case, seed)
        if any(value.type.dtype.is_float for value in graph.outputs.values()):
            check_graph(graph, arrays, seed)


@pytest.mark.parametrize("op", [op for op in OPERATORS if isinstance(op.gradient, Zero)])
def test_flat_operators_pass_nothing_on(op: OpDef) -> None:
    graph, _ = case_graph(draw_case(op.name, 0), 0)
    _, found = with_gradients(graph, floating(graph))
    assert set(found.values()) == {None}


@each_smooth
def test_machine_code_agrees_with_the_oracle(op: OpDef) -> None:
    """In f32, by lowering of whatever the gradient is made of; the graph is well formed."""
    for seed in range(2):
        graph, arrays = case_graph(draw_case(op.name, seed), seed, DType.F32)
        outputs = [v for v in graph.outputs.values() if v.type.dtype.is_float]
        wrt = floating(graph)
        graph, found = with_gradients(graph, wrt)
        graph.outputs = {f"d{n}": value for n, value in found.items() if value is not None}
        if not outputs or not graph.outputs:
            continue
        verify(graph)
        random = np.random.default_rng(seed)
        for name, value in graph.inputs.items():
            if name not in arrays:
                arrays[name] = random.standard_normal(value.type.sizes).astype(np.float32)
        expected = evaluate_graph(graph, arrays)
        actual = run_graph(graph, arrays, machine_code)
        for name, array in expected.items():
            span = float(np.max(np.abs(array), initial=1.0))
            assert actual[name].dtype == np.float32
            np.testing.assert_allclose(actual[name], array, rtol=0, atol=1e-4 * span, err_msg=name)
