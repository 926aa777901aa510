"""Every operator's gradient, in drawn configurations: it is what differences say."""

from __future__ import annotations

import numpy as np
import pytest
from executors import graph_of, machine_code, run_graph
from gradients import (
    assert_as_exact,
    case_graph,
    compare,
    cotangents_of,
    floating,
    gradient_graph,
    of_dtype,
    smooth_case,
    with_gradients,
)
from graphs import evaluate_graph
from op_cases import CASES_PER_OPERATOR, draw_case
from op_cases.draw import type_of

from convdsl.ir.opdef import Derived, NotDifferentiable, OpDef, OpError, Rule, Zero
from convdsl.ir.verify import verify
from convdsl.ops import OPERATORS
from convdsl.tensor import DType

pytestmark = pytest.mark.drawn

SMOOTH = [op for op in OPERATORS if isinstance(op.gradient, Derived | Rule)]
FLAT = [op for op in OPERATORS if isinstance(op.gradient, Zero)]

each_smooth = pytest.mark.parametrize("op", SMOOTH, ids=lambda op: op.name)


def parts(few: int) -> pytest.MarkDecorator:
    """The first configurations always, the others where all are asked for."""
    rest = pytest.param(
        range(few, CASES_PER_OPERATOR), marks=[pytest.mark.slow, pytest.mark.fuzz], id="others"
    )
    return pytest.mark.parametrize("numbers", [pytest.param(range(few), id="first"), rest])


def test_what_has_no_gradient_puts_out_no_floats() -> None:
    for op in OPERATORS:
        if isinstance(op.gradient, NotDifferentiable):
            call = draw_case(op.name, 0).call
            assert not any(type.dtype.is_float for type in call.outputs), op.name


@each_smooth
def test_agrees_with_differences(op: OpDef) -> None:
    agreed = kinks = 0
    for number in range(CASES_PER_OPERATOR):
        found = compare(*case_graph(smooth_case(op.name, number), number), number)
        agreed, kinks = agreed + found.agreed, kinks + found.kinks
    assert agreed > kinks


@each_smooth
def test_of_an_empty_batch(op: OpDef) -> None:
    """Gradients of nothing are nothing, those of weights zeros."""
    for number in range(4):
        case = smooth_case(op.name, number)
        arrays = {name: case.arrays[name] for name in case.call.types}
        data = [o.name for o in op.data_operands if arrays.get(o.name, np.zeros(())).ndim]
        batch = arrays[data[0]].shape[0] if data else 0
        arrays |= {n: arrays[n][:0] for n in data if arrays[n].shape[0] == batch}
        try:
            call = op.call({n: type_of(a) for n, a in arrays.items()}, case.attributes)
            empty = all(type.elements == 0 for type in call.outputs)
        except OpError:
            continue  # a concat or an axis of another extent
        if not data or not empty:
            continue
        call = of_dtype(call, DType.F64)
        arrays = {n: arrays[n].astype(type.dtype.numpy) for n, type in call.types.items()}
        graph = graph_of(call)
        dys = {f"d_{name}": dy for name, dy in cotangents_of(graph, number).items()}
        graph = gradient_graph(graph, floating(graph))
        for name, dx in evaluate_graph(graph, arrays | dys).items():
            np.testing.assert_array_equal(dx, np.zeros_like(arrays[name]), name)


@pytest.mark.parametrize("op", FLAT, ids=lambda op: op.name)
def test_flat_operators_pass_nothing_on(op: OpDef) -> None:
    graph, _ = case_graph(smooth_case(op.name, 0), 0)
    _, found = with_gradients(graph, floating(graph))
    assert set(found.values()) == {None}


@parts(4)
@each_smooth
def test_machine_code_agrees_with_the_oracle(op: OpDef, numbers: range) -> None:
    """In f32, by lowering of whatever the gradient is made of; the graph is well formed."""
    for number in numbers:
        graph, arrays = case_graph(smooth_case(op.name, number), number, DType.F32)
        dys = cotangents_of(graph, number)
        graph = gradient_graph(graph, floating(graph))
        verify(graph)
        if not graph.outputs:
            continue
        given = {f"d_{name}": dy.astype(np.float32) for name, dy in dys.items()}
        expected = evaluate_graph(graph, arrays | given)
        actual = run_graph(graph, arrays | given, machine_code)
        assert_as_exact(actual, expected, graph, arrays | given)
