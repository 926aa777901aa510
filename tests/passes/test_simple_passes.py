"""Dead code, canonical forms, constants: structure and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradients import floating, with_gradients
from graphs import Builder, assert_same_numbers, rewritten, structure
from random_graphs import random_graph

from convdsl.ir.opdef import Role
from convdsl.passes import run
from convdsl.passes.canonicalise import Canonicalise
from convdsl.passes.eliminate_dead_code import EliminateDeadCode
from convdsl.passes.fold_constants import FoldConstants
from convdsl.tensor import symbol


def test_dead_code_goes_with_its_weights_and_inputs_stay() -> None:
    b = Builder()
    x = b.input("x", 2, 4, 6, 6)
    b.input("unused", 1, 2)
    h = b("conv", x, channels=4, kernel=3)
    b("relu", b("conv", h, channels=2, kernel=1))
    graph = b.output(y=b("relu", h))
    after = rewritten(graph, EliminateDeadCode())
    assert structure(after) == ["conv1 = conv(x, conv1.weight, conv1.bias)", "relu2 = relu(conv1)"]
    assert list(after.states) == ["conv1.weight", "conv1.bias"]
    assert list(after.inputs) == ["x", "unused"]
    assert_same_numbers(graph, after)


def test_copies_go() -> None:
    b = Builder()
    x = b.input("x", symbol("N"), 6)
    h = b("dropout", b("linear", b("flatten", b("identity", x)), channels=6), p=0.2)
    graph = b.output(y=b("relu", b("reshape", b("concat", h), shape=(-1, 6))))
    after = rewritten(graph, Canonicalise())
    assert structure(after) == [
        "linear1 = linear(x, linear1.weight, linear1.bias)",
        "relu1 = relu(linear1)",
    ]
    assert_same_numbers(graph.bind({"N": 2}), after.bind({"N": 2}))


def test_model_outputs_stay_computed_and_distinct() -> None:
    b = Builder()
    x = b.input("x", 2, 6)
    h = b("relu", x)
    graph = b.output(h=h, a=b("dropout", h), b=b("dropout", x))
    after = rewritten(graph, Canonicalise())
    assert structure(after) == structure(graph)
    b = Builder()
    graph = b.output(y=b("dropout", b("relu", b.input("x", 2, 6))))
    after = rewritten(graph, Canonicalise())
    assert structure(after) == ["relu1 = relu(x)"]
    assert_same_numbers(graph, after)


def test_commutative_operands_stand_in_order() -> None:
    b = Builder()
    x, p = b.input("x", 2, 6), b.parameter("p", 6)
    early, late = b("relu", x), b("relu6", x)
    graph = b.output(
        sum=b("add", p, late), product=b("mul", late, early), difference=b("sub", late, early)
    )
    after = rewritten(graph, Canonicalise())
    assert structure(after)[2:] == [
        "add1 = add(relu61, p)",
        "mul1 = mul(relu1, relu61)",
        "sub1 = sub(relu61, relu1)",
    ]
    assert_same_numbers(graph, after)


def test_constants_fold_in_double_precision() -> None:
    b = Builder()
    x = b.input("x", 2, 3)
    third = b("div", b.constant("one", 1.0), b.constant("three", [3.0, 7.0, 9.0]))
    graph = b.output(y=b("mul", x, b("sqrt", third)))
    after = rewritten(graph, FoldConstants())
    assert structure(after) == ["mul1 = mul(x, sqrt1.value)"]
    (state,) = after.states.values()
    assert state.role is Role.CONSTANT
    expected = np.sqrt(1 / np.array([3.0, 7.0, 9.0])).astype(np.float32)
    np.testing.assert_allclose(state.data, expected, rtol=1.2e-7)
    assert state.data.dtype == np.float32
    assert_same_numbers(graph, after)


def test_parameters_and_large_results_are_not_constants() -> None:
    b = Builder()
    x = b.input("x", 4, 3)
    wide = b("add", b.constant("column", np.ones((4, 1))), b.constant("row", np.ones((1, 3))))
    graph = b.output(y=b("mul", x, b("mul", wide, b("sqrt", b.parameter("p", 3)))))
    assert structure(rewritten(graph, FoldConstants(limit=11))) == structure(graph)
    after = rewritten(graph, FoldConstants(limit=12))
    assert structure(after)[0] == "sqrt1 = sqrt(p)"
    assert len(after.op_nodes()) == len(graph.op_nodes()) - 1
    assert_same_numbers(graph, after)


@pytest.mark.parametrize("op", ["slice", "pad"])
def test_constants_wait_for_amounts_that_are_open(op: str) -> None:
    """Of a part that starts at H % 2, and of a border before and after, the size alone is known."""
    b = Builder()
    odd = symbol("H") % 2
    amounts: dict[str, dict[str, Any]] = {
        "slice": {"axes": 0, "start": odd, "stop": odd + 2},
        "pad": {"pad": ((odd, 1 - odd),), "axes": 0},
    }
    x = b.input("x", symbol("H"), 1)
    graph = b.output(y=b("add", x, b(op, b.constant("c", [1.0, 2.0, 3.0]), **amounts[op])))
    after = rewritten(graph, FoldConstants())
    assert structure(after) == structure(graph)
    for h in (4, 5):
        bound = graph.bind({"H": h})
        folded = rewritten(bound, FoldConstants())
        assert len(folded.op_nodes()) == 1
        assert_same_numbers(bound, folded)


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("seed", range(12))
def test_gradients_keep_the_operands_that_they_were_made_for(seed: int) -> None:
    """`mul.grad(b)` multiplies, and yet its operands have places: dy has the output's shape."""
    graph = random_graph(seed)
    graph, found = with_gradients(graph, floating(graph))
    graph.outputs = {f"d_of_{n}": value for n, value in found.items() if value is not None}
    after = run(graph, verify=True)
    assert after.outputs.keys() == graph.outputs.keys()
