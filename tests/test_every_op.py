"""Every operator, in drawn configurations: all executions agree, and all rules with each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from executors import run_llvm, run_loops
from op_cases import CASES_PER_OPERATOR, GENERATORS, ONE_PASS, draw_case
from op_cases.closeness import assert_close
from op_cases.draw import Array, type_of
from oracles import onnx_says

from convdsl.interop.correspondence import ROWS
from convdsl.ir.opdef import Call
from convdsl.kernel.evaluate import Counter, evaluate
from convdsl.kernel.expr import flops
from convdsl.ops import BY_NAME, OPERATORS
from convdsl.tensor import DType, TensorType, substitute


def run_expression(call: Call, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return evaluate(call.kernel, arrays)


BACKENDS: dict[str, Callable[[Call, Mapping[str, Array]], dict[str, Array]]] = {
    "expression": run_expression,
    "loops": run_loops,
    "llvm": run_llvm,
}
"""Every way to execute an operator. All must agree with ONNX."""

CASES = pytest.mark.parametrize(
    ("name", "seed"),
    [(op.name, seed) for op in OPERATORS for seed in range(CASES_PER_OPERATOR)],
)


def each_case(test: Callable[..., None]) -> Callable[..., None]:
    """Of all operators; each commit draws its configurations."""
    return pytest.mark.drawn(CASES(test))


def test_no_operator_is_forgotten() -> None:
    assert {op.name for op in OPERATORS} == set(GENERATORS) == set(ROWS)


@pytest.mark.parametrize("backend", BACKENDS)
@each_case
def test_agrees_with_onnx(name: str, seed: int, backend: str) -> None:
    case = draw_case(name, seed)
    call = case.call
    found = BACKENDS[backend](call, case.arrays)
    expected = onnx_says(call, case.arrays)
    assert list(found) == list(call.output_names) == list(expected)
    for output, type in zip(call.output_names, call.outputs, strict=True):
        assert type_of(found[output]) == type, case
        assert_close(found[output], expected[output], case)


@each_case
def test_cost_is_what_is_executed(name: str, seed: int) -> None:
    case = draw_case(name, seed)
    counter = Counter()
    evaluate(case.call.kernel, case.arrays, counter)
    assert counter.operations == flops(case.call.kernel)
    counted = case.op.cost(case.call).flops
    if name in ONE_PASS:
        assert counted <= counter.operations
    else:
        assert counted == counter.operations


def test_cost_of_one_pass() -> None:
    """5 - 1 additions a line; 5 of 1,000 are three binary digits of comparisons each."""
    x = TensorType(DType.F32, (2, 3, 5))
    assert BY_NAME["cumsum"].cost(BY_NAME["cumsum"].call({"x": x}, {"axis": 2})).flops == 24
    x = TensorType(DType.F32, (2, 1000))
    assert BY_NAME["top_k"].cost(BY_NAME["top_k"].call({"x": x}, {"k": 5})).flops == 6000


@each_case
def test_resolved_attributes_resolve_to_themselves(name: str, seed: int) -> None:
    call = draw_case(name, seed).call
    assert BY_NAME[name].call(call.types, call.attributes).attributes == call.attributes


@each_case
def test_symbols_bind_to_what_numbers_give(name: str, seed: int) -> None:
    case = draw_case(name, seed)
    call, symbolic = case.call, case.symbolic_call
    bound = tuple(type.bind(case.bindings) for type in symbolic.outputs)
    assert bound == call.outputs, case
    known, unknown = case.op.cost(call), case.op.cost(symbolic)
    assert substitute(unknown.macs, case.bindings) == known.macs
    assert substitute(unknown.flops, case.bindings) == known.flops
    if known.macs_by_input is not None and unknown.macs_by_input is not None:
        assert substitute(unknown.macs_by_input, case.bindings) == known.macs_by_input
