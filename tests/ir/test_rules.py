"""Answers of rules are remembered by signature, and told apart exactly."""

from __future__ import annotations

import pytest

from convdsl.ir.graph import Graph
from convdsl.ir.opdef import Call, OpError
from convdsl.ir.rules import Rules, numbered
from convdsl.ops import SPELLINGS
from convdsl.tensor import DType, TensorType, symbol

CONV, CLIP = SPELLINGS["conv"], SPELLINGS["clip"]
X = {"x": TensorType(DType.F32, (symbol("N"), 4, 8, 8))}


def test_equal_signatures_are_asked_once() -> None:
    rules = Rules()
    first = rules.apply(CONV, X, {"channels": 8, "kernel": 3})
    assert rules.apply(CONV, dict(X), {"channels": 8, "kernel": 3}) is first
    assert [spec.name for spec in first.states] == ["weight", "bias"]
    assert first.outputs[0].shape == (symbol("N"), 8, 8, 8)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"channels": 8, "kernel": 3}, {"channels": 8, "kernel": 5}),
        ({"channels": 8, "kernel": (3, 3)}, {"channels": 8, "kernel": (3, 1)}),
        ({"channels": 8, "kernel": 3, "bias": True}, {"channels": 8, "kernel": 3, "bias": False}),
    ],
)
def test_other_attributes_are_another_signature(one: dict, other: dict) -> None:
    rules = Rules()
    assert rules.apply(CONV, X, one) is not rules.apply(CONV, X, other)


def test_what_python_holds_equal_is_told_apart() -> None:
    rules = Rules()
    made = [rules.apply(CLIP, X, {"low": low, "high": 1.0}) for low in (0.0, -0.0)]
    assert [str(a.attributes["low"]) for a in made] == ["0.0", "-0.0"]


def test_symbols_with_other_bounds_are_other_types() -> None:
    rules = Rules()
    wide, narrow = (
        {"x": TensorType(DType.F32, (1, 4, symbol("H", maximum=most), 8))} for most in (9, 4)
    )
    window = {"channels": 8, "kernel": 5, "pad": "valid"}
    assert rules.apply(CONV, wide, window).outputs
    with pytest.raises(OpError, match="does not fit"):
        rules.apply(CONV, narrow, window)


def test_equal_calls_have_one_number() -> None:
    """Whether their types and attributes are the same objects or not."""
    types = [{"x": TensorType(DType.F32, (symbol("N"), 4, 8, 8))} for _ in range(2)]
    lows = (0.5, float("0.5"), -0.0, 0.0, 1, 1.0, True)
    calls = [Call(CLIP, types[i % 2], {"low": low, "high": 2.0}) for i, low in enumerate(lows)]
    assert numbered(iter([*calls, *calls])) == [0, 0, 1, 2, 3, 4, 5] * 2
    odd = Call(CLIP, types[0], {"low": [0.5], "high": 2.0})  # has no hash
    assert numbered([odd, calls[0], odd]) == [0, 1, 0]


def test_attributes_without_a_hash() -> None:
    made = Rules().apply(CONV, X, {"channels": 8, "kernel": [3, 1]})
    assert made.attributes["kernel"] == (3, 1)


def test_nodes_do_not_share_attributes() -> None:
    graph = Graph()
    x = graph.add_input("x", X["x"])
    first = graph.apply(CONV, {"x": x}, {"channels": 4, "kernel": 3}, name="a")
    second = graph.apply(CONV, {"x": first.output}, {"channels": 4, "kernel": 3}, name="b")
    first.attributes["stride"] = (2, 2)
    assert second.attributes["stride"] == (1, 1)
