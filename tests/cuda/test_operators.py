"""Every operator and its gradient in drawn configurations, executed from the CUDA source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from cuda_shim.graphs import OnCard
from cuda_shim.running import ORDERS
from gradients import (
    arrays_of,
    cotangents_of,
    floating,
    gradient_graph,
    in_single,
    of_dtype,
    smooth_case,
)
from graphs import evaluate_graph, evaluate_results
from op_cases import CASES_PER_OPERATOR, draw_case
from op_cases.draw import Array
from weight_updates import drawn, settings, update_model

from convdsl.ir.graph import Graph
from convdsl.ir.opdef import Call, Derived, OpDef, Role, Rule
from convdsl.ir.techniques import OPTIMIZERS
from convdsl.ops import OPERATORS
from convdsl.tensor import DType

SMOOTH = [op for op in OPERATORS if isinstance(op.gradient, Derived | Rule)]
TOLERANCE = 1e-5  # of a tensor's range, in f32

pytestmark = pytest.mark.ladder


CASES = {"source": CASES_PER_OPERATOR, "ptx": 5}
each_way = pytest.mark.parametrize("way", ["source", "ptx"])
"""The CUDA source as it is printed, or what NVRTC makes of it, inline assembly included."""


def side_by_side(
    cases: Sequence[tuple[Call, Mapping[str, Array]]],
) -> tuple[Graph, dict[str, Array]]:
    """A graph of single operators that have nothing to do with each other, and what goes in."""
    graph, arrays = Graph(), {}
    for number, (call, given) in enumerate(cases):
        roles = {operand.name: operand.role for operand in call.op.operands}
        values = {}
        for name, type in call.types.items():
            label = f"{name}_{number}"
            arrays[label] = given[name]
            values[name] = (
                graph.add_input(label, type)
                if roles.get(name, Role.DATA) is Role.DATA
                else graph.add_state(label, type, Role.PARAMETER)
            )
        node = graph.apply(call.op, values, call.attributes, name=f"op_{number}")
        for name, value in zip(call.output_names, node.outputs, strict=True):
            graph.outputs[f"{name}_{number}"] = value
    return graph, arrays


def assert_exact(
    found: Mapping[str, Array], graph: Graph, arrays: Mapping[str, Array], about: Sequence[object]
) -> None:
    """What float64 says, within the tolerance of the range; integers to the last bit. Where the
    oracle itself says something else in f32, as of terms that cancel, within a few times that."""
    expected, rounded = evaluate_graph(graph, arrays), in_single(graph, arrays)
    assert found.keys() == expected.keys()
    for name, array in found.items():
        case = about[int(name.rpartition("_")[2])]
        exact = expected[name]
        if array.dtype.kind != "f":
            np.testing.assert_array_equal(array, rounded[name], f"{name} of {case}")
            continue
        finite = np.isfinite(exact) & np.isfinite(rounded[name])
        np.testing.assert_array_equal(array[~finite], rounded[name][~finite], f"{name} of {case}")
        span = float(np.max(np.abs(exact), initial=0.0, where=finite))
        with np.errstate(all="ignore"):
            lost = float(np.max(np.abs(rounded[name] - exact), initial=0.0, where=finite))
        error = np.abs(array[finite].astype(np.float64) - exact[finite])
        bound = TOLERANCE * span + 8 * lost
        assert float(error.max(initial=0.0)) <= bound, f"{name} of {case}: {error.max()} > {bound}"


@pytest.mark.dear
@each_way
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_forward(op: OpDef, way: str) -> None:
    cases = [draw_case(op.name, seed) for seed in range(CASES[way])]
    graph, arrays = side_by_side([(case.call, case.arrays) for case in cases])
    found, _ = OnCard(graph, ptx=way == "ptx").run_in(ORDERS, arrays)
    assert_exact(found, graph, arrays, cases)


@pytest.mark.dear
@each_way
@pytest.mark.parametrize("op", SMOOTH, ids=lambda op: op.name)
def test_gradients(op: OpDef, way: str) -> None:
    cases = [smooth_case(op.name, number) for number in range(CASES[way])]
    given: list[tuple[Call, dict[str, Array]]] = []
    for number, case in enumerate(cases):
        call = of_dtype(case.call, DType.F32)
        given.append((call, arrays_of(case, call, number)))
    graph, arrays = side_by_side(given)
    dys = {f"d_{k}": dy.astype(np.float32) for k, dy in cotangents_of(graph, 3).items()}
    graph = gradient_graph(graph, floating(graph))
    arrays |= dys
    found, _ = OnCard(graph, ptx=way == "ptx").run_in(ORDERS, arrays)
    assert_exact(found, graph, arrays, cases)


@pytest.mark.dear
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_update(optimizer: str, dtype: DType) -> None:
    """Of matrices, vectors and a single number, by one step."""
    weights, (gradients, *_) = drawn(3, 1)
    graph, start = update_model(settings(optimizer), weights, dtype)
    arrays = {**start, "rate": np.array(0.1)}
    arrays |= {f"g.{name}": array for name, array in gradients.items()}
    arrays = {n: a.astype(dtype.numpy) if a.dtype.kind == "f" else a for n, a in arrays.items()}
    arrays["rate"] = np.array(0.1)
    _, found = OnCard(graph).run_in(ORDERS, arrays)
    eps = float(np.finfo(dtype.numpy).eps)
    for name, truth in evaluate_results(graph, arrays)[1].items():
        scale = float(np.max(np.abs(truth), initial=1.0))
        np.testing.assert_allclose(found[name], truth, rtol=0, atol=64 * eps * scale, err_msg=name)
