"""Graphs that compute the same are alike, whatever their nodes are called; others are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from graphs import Builder

from convdsl.ir.alike import outputs_differ
from convdsl.ir.graph import Graph


def scaled(data: object = 3.0, op: str = "mul", key: str = "w", name: str = "a") -> Graph:
    """y = op(conv(x, w), data), and its neighbour."""
    b = Builder()
    x = b.input("x", 2, 3, 4, 4)
    weight = b.parameter(key, 5, 3, 1, 1)
    h = b("conv", x, states={"weight": weight}, channels=5, kernel=1, bias=False, name=name)
    return b.output(y=b(op, h, b.constant("c", data)), z=b("relu", h))


ALIKE: dict[str, Callable[[], Graph]] = {
    "itself": scaled,
    "other names": lambda: scaled(name="b"),
    "a number of another rank": lambda: scaled([[[[3.0]]]]),
}
DIFFERENT: dict[str, Callable[[], Graph]] = {
    "another number": lambda: scaled(4.0),
    "the other sign": lambda: scaled(-3.0),
    "another operator": lambda: scaled(op="add"),
    "another weight": lambda: scaled(key="v"),
    "one number a column": lambda: scaled([3.0, 3.0, 3.0, 3.0]),
}


@pytest.mark.parametrize("other", ALIKE.values(), ids=ALIKE)
def test_alike(other: Callable[[], Graph]) -> None:
    assert outputs_differ(scaled(), other()) is None


@pytest.mark.parametrize("other", DIFFERENT.values(), ids=DIFFERENT)
def test_different(other: Callable[[], Graph]) -> None:
    assert outputs_differ(scaled(), other()) is not None


def test_outputs_have_an_order() -> None:
    other = scaled()
    other.outputs = dict(reversed(other.outputs.items()))
    assert "became" in str(outputs_differ(scaled(), other))
