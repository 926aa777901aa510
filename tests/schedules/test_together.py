"""Vectors that are computed together, and what is left of a row beside them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.special
from executors import machine_code, run_graph
from graphs import Builder, rewritten

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.text import format_kernel
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine

# Less than a vector, whole ones, four of them and a rest, for 4 to 16 lanes.
LENGTHS = (3, 8, 31, 33, 64, 71, 128, 203, 257)
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38, -3e38, 88.0, -88.0, 1e-30)


def alone(op: str, shape: tuple[int, ...], **attributes: Any) -> Graph:
    b = Builder()
    return rewritten(b.output(y=b(op, b.input("x", *shape), **attributes)))


def drawn(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Numbers of either sign, and those at which functions end."""
    random = np.random.default_rng(sum(shape))
    x = (4 * random.standard_normal(shape)).astype(np.float32)
    x.flat[: len(SPECIAL)] = SPECIAL[: x.size]
    return random.permutation(x, axis=-1)


@pytest.mark.parametrize("cpu", ["native", "x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize("length", LENGTHS)
def test_functions_of_rows(length: int, cpu: str) -> None:
    target = find_target(cpu)
    runner = partial(machine_code, target=target)
    x = drawn((3, length))
    truths = {
        "exp": np.exp(np.minimum(x.astype(np.float64), 200.0)),
        "erf": scipy.special.erf(x.astype(np.float64)),
        "tanh": np.tanh(x.astype(np.float64)),
        "sigmoid": scipy.special.expit(x.astype(np.float64)),
    }
    for op, truth in truths.items():
        found = run_graph(alone(op, x.shape), {"x": x}, runner, target)["y"]
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(found, truth.astype(np.float32), rtol=4e-7, atol=2e-38)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("length", LENGTHS)
def test_softmax_of_rows(length: int, axis: int) -> None:
    """Rows with a NaN or an infinity are NaN, and no others."""
    x = drawn((3, length) if axis else (length, 3))
    x = np.where(np.abs(x) == np.inf, np.float32(-3e38), x)
    truth = scipy.special.softmax(x.astype(np.float64), axis=axis)
    found = run_graph(alone("softmax", x.shape, axis=axis), {"x": x}, machine_code)["y"]
    np.testing.assert_allclose(found, truth, rtol=8e-6, atol=2e-38)


def test_four_at_a_time() -> None:
    target = find_target()
    lanes = target.vector_bytes // 4
    (kernel,) = lower(alone("erf", (1, 50 * lanes)), cpu_machine(target), "t").program.kernels
    assert f": {4 * lanes}]" in format_kernel(kernel)
    assert f": {lanes}]" in format_kernel(kernel)
    (kernel,) = lower(alone("relu", (1, 50 * lanes)), cpu_machine(target), "t").program.kernels
    assert f": {4 * lanes}]" not in format_kernel(kernel)
