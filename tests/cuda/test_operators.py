"""Every operator, gradient and update of weights, as CUDA C that runs on the processor."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from cuda_shim.graphs import run_graph, run_step
from executors import graph_of
from gradients import assert_as_exact, case_graph, cotangents_of, floating, gradient_graph
from gradients import smooth_case as smooth
from graphs import evaluate_graph, evaluate_results
from op_cases import CASES_PER_OPERATOR, draw_case
from op_cases.closeness import assert_close
from oracles import onnx_says
from weight_updates import drawn, settings, update_model

from convdsl.ir.opdef import Derived, OpDef, Rule
from convdsl.ir.techniques import OPTIMIZERS
from convdsl.ops import OPERATORS
from convdsl.tensor import DType

SMOOTH = [op for op in OPERATORS if isinstance(op.gradient, Derived | Rule)]


def sampled(things: Iterable[OpDef | str]) -> list[ParameterSet]:
    """Every third always, the others where all are asked for: each is compiled by itself."""
    return [
        pytest.param(
            thing,
            id=thing if isinstance(thing, str) else thing.name,
            marks=[] if number % 3 == 0 else [pytest.mark.slow],
        )
        for number, thing in enumerate(things)
    ]


numbers = pytest.mark.parametrize(
    "numbers",
    [
        pytest.param(range(1), id="first"),
        pytest.param(range(1, CASES_PER_OPERATOR), marks=pytest.mark.slow, id="others"),
    ],
)


@numbers
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_forward(op: OpDef, numbers: range) -> None:
    for number in numbers:
        case = draw_case(op.name, number)
        found = run_graph(graph_of(case.call), case.arrays)
        for name, expected in onnx_says(case.call, case.arrays).items():
            assert_close(found[name], expected, case)


@numbers
@pytest.mark.parametrize("op", sampled(SMOOTH))
def test_gradient(op: OpDef, numbers: range) -> None:
    for number in numbers:
        graph, arrays = case_graph(smooth(op.name, number), number, DType.F32)
        given = {f"d_{n}": dy.astype(np.float32) for n, dy in cotangents_of(graph, number).items()}
        graph = gradient_graph(graph, floating(graph))
        if graph.outputs:
            expected = evaluate_graph(graph, arrays | given)
            found = run_graph(graph, arrays | given)
            assert_as_exact(found, expected, graph, arrays | given)


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64])
@pytest.mark.parametrize("optimizer", sampled(OPTIMIZERS))
def test_update(optimizer: str, dtype: DType) -> None:
    """Of matrices, vectors and a single number, by one step."""
    weights, (gradients, *_) = drawn(3, 1)
    graph, start = update_model(settings(optimizer), weights, dtype)
    arrays = {**start, "rate": np.array(0.1)}
    arrays |= {f"g.{name}": array for name, array in gradients.items()}
    arrays = {n: a.astype(dtype.numpy) if a.dtype.kind == "f" else a for n, a in arrays.items()}
    arrays["rate"] = np.array(0.1)
    expected = evaluate_results(graph, arrays)[1]
    found = run_step(graph, arrays)[1]
    eps = float(np.finfo(dtype.numpy).eps)
    for name, truth in expected.items():
        scale = float(np.max(np.abs(truth), initial=1.0))
        np.testing.assert_allclose(found[name], truth, rtol=0, atol=64 * eps * scale, err_msg=name)
