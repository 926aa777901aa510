"""Vectors that are computed together, and what is left of a row beside them."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.special
from executors import machine_code, run_graph
from graphs import Builder, evaluate_graph, random_arrays, rewritten

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


@pytest.mark.dear
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


@pytest.mark.dear
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("length", LENGTHS)
def test_softmax_of_rows(length: int, axis: int) -> None:
    """Rows with a NaN or an infinity are NaN, and no others."""
    x = drawn((3, length) if axis else (length, 3))
    x = np.where(np.abs(x) == np.inf, np.float32(-3e38), x)
    truth = scipy.special.softmax(x.astype(np.float64), axis=axis)
    found = run_graph(alone("softmax", x.shape, axis=axis), {"x": x}, machine_code)["y"]
    np.testing.assert_allclose(found, truth, rtol=8e-6, atol=2e-38)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_that_no_maximum_tells(op: str, axis: int) -> None:
    """A NaN anywhere makes its row NaN, also behind the last whole vector, and so does infinity;
    -inf beside numbers is nothing."""
    length, special = 71, [np.nan, np.inf, -np.inf]
    rows = [np.linspace(-3, 3, length, dtype=np.float32) for _ in range(3 * length + 2)]
    for number, row in enumerate(rows[: 3 * length]):
        row[number % length] = special[number // length]
    rows[-1][:] = -np.inf
    rows[-2][:] = np.nan
    x = np.stack(rows, axis=1 - axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = x.astype(np.float64) - x.max(axis=axis, keepdims=True)
        total = np.exp(shifted).sum(axis=axis, keepdims=True)
        truth = np.exp(shifted) / total if op == "softmax" else shifted - np.log(total)
    found = run_graph(alone(op, x.shape, axis=axis), {"x": x}, machine_code)["y"]
    np.testing.assert_allclose(found, truth, rtol=3e-6, atol=1e-6 if op == "log_softmax" else 0)


@pytest.mark.parametrize(("op", "divisions"), [("softmax", 1), ("log_softmax", 0)])
def test_a_row_is_divided_once(op: str, divisions: int) -> None:
    target = find_target()
    graph = alone(op, (40, 123), axis=1)
    (kernel,) = lower(graph, cpu_machine(target), "t").program.kernels
    lines = [
        line.split(" = ", 1)[1] for line in format_kernel(kernel).splitlines() if " = " in line
    ]
    rows = max(sum("reduce_sum" in line for line in lines), 1)
    assert sum(line.startswith("(1.0 / ") for line in lines) == divisions * rows
    log = sum(" / " in line for line in lines)
    assert log <= rows  # the logarithm's own, once a row


# What is written out behind sums, as NumPy has it.
BEHIND = {
    "gelu": lambda x: x * scipy.special.ndtr(x),
    "silu": lambda x: x * scipy.special.expit(x),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(0, x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
}
HEADS = {
    "direct": {"channels": 19, "kernel": 1},
    "direct, taps": {"channels": 16, "kernel": (1, 3), "pad": (0, 1)},
    "depthwise": {"channels": 19, "kernel": 3, "pad": 1, "groups": 19},
}


def sums_and(activation: str | None, head: str, width: int) -> Graph:
    """activation(conv(x) + skip): the bias is loaded for all vectors, what is added for each."""
    b = Builder()
    groups = HEADS[head].get("groups", 1)
    x = b("relu", b.input("x", 1, groups, 2, width))
    conv = b("conv", x, bias=True, **HEADS[head])
    skip = b.input("skip", 1, HEADS[head]["channels"], 2, width)
    total = b("add", conv, skip)
    return rewritten(b.output(y=total if activation is None else b(activation, total)))


@pytest.mark.dear
@pytest.mark.parametrize(("width", "cpu"), [(1, "native"), (13, "x86-64-v2"), (30, "native")])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("activation", BEHIND)
def test_functions_behind_sums(activation: str, head: str, width: int, cpu: str) -> None:
    """Whatever is summed, the first elements of each row of what is added are special."""
    target = find_target(cpu)
    graph = sums_and(activation, head, width)
    arrays = random_arrays(graph, seed=3)
    given = {name: array.astype(np.float32) for name, array in arrays.items()}
    skip = given["skip"]
    for row in skip.reshape(-1, width):
        row[:] = np.roll(np.resize([*SPECIAL, *(3 * row)], width), row.size // 3)
    linear = sums_and(None, head, width)
    doubles = {name: array.astype(np.float64) for name, array in given.items()}
    sums = evaluate_graph(linear, doubles)["y"].astype(np.float64)
    runner = partial(machine_code, target=target)
    found = run_graph(graph, given, runner, target)["y"]
    with np.errstate(all="ignore"):
        truth = BEHIND[activation](sums)
        size = np.nanmax(np.where(np.isfinite(sums) & (np.abs(sums) < 1e3), np.abs(sums), 0))
    np.testing.assert_allclose(found, truth.astype(np.float32), rtol=2e-6, atol=2e-6 * size)


@pytest.mark.parametrize("head", ["direct", "depthwise"])
def test_sums_are_met_four_at_a_time(head: str) -> None:
    """The divisions of four vectors follow each other."""
    target = find_target("x86-64-v3")
    b = Builder()
    groups = 64 if head == "depthwise" else 1
    conv = b("conv", b("relu", b.input("x", 1, 64, 9, 24)), channels=64, kernel=3, groups=groups)
    graph, machine = rewritten(b.output(y=b("silu", conv))), cpu_machine(target)
    kernels = lower(graph, machine.without("winograd"), "t").program.kernels
    (kernel,) = (kernel for kernel in kernels if "conv" in kernel.name)
    lines = format_kernel(kernel).splitlines()
    divisions = [number for number, line in enumerate(lines) if " / " in line]
    assert len(divisions) >= 4
    assert sum(b - a == 1 for a, b in pairwise(divisions)) >= len(divisions) // 2


def test_four_at_a_time() -> None:
    target = find_target()
    lanes = target.vector_bytes // 4
    (kernel,) = lower(alone("erf", (1, 50 * lanes)), cpu_machine(target), "t").program.kernels
    assert f": {4 * lanes}]" in format_kernel(kernel)
    assert f": {lanes}]" in format_kernel(kernel)
    (kernel,) = lower(alone("relu", (1, 50 * lanes)), cpu_machine(target), "t").program.kernels
    assert f": {4 * lanes}]" not in format_kernel(kernel)
