"""Every operator, its gradient and every optimiser's update on the card, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from cuda.test_operators import SMOOTH, assert_exact, side_by_side
from gpu.running import Array, run_on_card
from gradients import arrays_of, cotangents_of, floating, gradient_graph, of_dtype, smooth_case
from graphs import evaluate_results
from op_cases import CASES_PER_OPERATOR, draw_case
from weight_updates import drawn, settings, update_model

from convdsl.ir.opdef import Call, OpDef
from convdsl.ir.techniques import OPTIMIZERS
from convdsl.ops import OPERATORS
from convdsl.tensor import DType


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_forward(op: OpDef) -> None:
    cases = [draw_case(op.name, seed) for seed in range(CASES_PER_OPERATOR)]
    graph, arrays = side_by_side([(case.call, case.arrays) for case in cases])
    found, _ = run_on_card(graph, arrays)
    assert_exact(found, graph, arrays, cases)


@pytest.mark.parametrize("op", SMOOTH, ids=lambda op: op.name)
def test_gradients(op: OpDef) -> None:
    cases = [smooth_case(op.name, number) for number in range(CASES_PER_OPERATOR)]
    given: list[tuple[Call, dict[str, Array]]] = []
    for number, case in enumerate(cases):
        call = of_dtype(case.call, DType.F32)
        given.append((call, arrays_of(case, call, number)))
    graph, arrays = side_by_side(given)
    dys = {f"d_{k}": dy.astype(np.float32) for k, dy in cotangents_of(graph, 3).items()}
    graph = gradient_graph(graph, floating(graph))
    arrays |= dys
    found, _ = run_on_card(graph, arrays)
    assert_exact(found, graph, arrays, cases)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_update(optimizer: str) -> None:
    weights, (gradients, *_) = drawn(3, 1)
    graph, start = update_model(settings(optimizer), weights, DType.F32)
    arrays = {**start, "rate": np.array(0.1)}
    arrays |= {f"g.{name}": array for name, array in gradients.items()}
    _, found = run_on_card(graph, arrays)
    eps = float(np.finfo(np.float32).eps)
    single = {n: a.astype("f4") if a.dtype.kind == "f" else a for n, a in arrays.items()}
    single["rate"] = np.array(0.1)
    for name, truth in evaluate_results(graph, single)[1].items():
        scale = float(np.max(np.abs(truth), initial=1.0))
        np.testing.assert_allclose(found[name], truth, rtol=0, atol=64 * eps * scale, err_msg=name)
