"""Denormal numbers of f64, which no instruction of a card flushes: functions take them for what
they are or for zeros, and for nothing between."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cuda_shim.graphs import OnCard
from executors import machine_code, run_graph
from graphs import Array, Builder, evaluate_graph

from convdsl.tensor import DType

NUMBERS = np.array(
    [5e-324, 1e-310, 2.2e-308, 0.0, 1.0, 3e-308, 1e300, 0.5, 1 / 3, 2.0, 2.5, 1e-160, 700.0, 745.0,
     720.0, math.inf]
)  # fmt: skip
NUMBERS = np.concatenate([NUMBERS, -NUMBERS, [math.nan]])
TINY = float(np.finfo(np.float64).tiny)

UNARY = ("relu", "elu", "selu", "gelu", "mish", "hardswish", "sigmoid", "tanh", "softplus",
         "softsign", "sqrt", "neg", "abs", "exp", "log", "reciprocal", "erf", "floor", "ceil",
         "round", "sign", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh",
         "acosh", "atanh")  # fmt: skip
BINARY = ("add", "sub", "mul", "div", "mod", "fmod", "pow", "min", "max", "less", "equal")


def flushed(x: Array) -> Array:
    return np.where(np.abs(x) < TINY, np.copysign(0.0, x), x)


def near(found: Array, truth: Array) -> Array:
    with np.errstate(all="ignore"):
        same = (found == truth) | (np.isnan(found) & np.isnan(truth))
        return same | (np.abs(found - truth) <= 1e-13 * np.abs(truth) + 4 * TINY)


@pytest.mark.dear
def test_functions() -> None:
    b = Builder()
    a_side, b_side = (side.reshape(-1) for side in np.meshgrid(NUMBERS, NUMBERS))
    x = b.input("x", NUMBERS.size, dtype=DType.F64)
    pair = [b.input(name, a_side.size, dtype=DType.F64) for name in ("a", "b")]
    outputs = {name: b(name, x) for name in UNARY} | {name: b(name, *pair) for name in BINARY}
    graph, given = b.output(**outputs), {"x": NUMBERS, "a": a_side, "b": b_side}
    as_zeros = {name: flushed(array) for name, array in given.items()}
    kept, zeros = evaluate_graph(graph, given), evaluate_graph(graph, as_zeros)
    found, on_cpu = OnCard(graph).run(given)[0], run_graph(graph, given, machine_code)
    for name, array in found.items():
        right = near(array.astype(float), kept[name]) | near(array.astype(float), zeros[name])
        assert right.all(), f"{name} is {array[~right][0]} at {np.flatnonzero(~right)[0]}"
        same = near(on_cpu[name].astype(float), zeros[name])
        assert same.all(), f"{name} is {on_cpu[name][~same][0]} at {np.flatnonzero(~same)[0]}"
