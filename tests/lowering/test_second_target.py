"""Whole networks on the tiny target, from graph to result, equal to the oracle."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from executors import check_kernels
from graphs import Array, Builder, evaluate_graph, random_arrays, rewritten
from grids import ORDERS, tiled_matmul
from kernels import program_of, row_sums
from tiny_target.machine import TINY, TINY_GRID
from tiny_target.printer import print_program, run_program

import convdsl
from convdsl.ir.graph import Graph
from convdsl.kernel.interpret import interpret_program
from convdsl.kernel.nodes import Barrier, walk_statements
from convdsl.kernel.verify import KernelError
from convdsl.lowering.lower import Lowered, lower


def lenet() -> Graph:
    return convdsl.load("lenet5").graph.bind({"N": 1})


def residual() -> Graph:
    """A residual block, pooled two ways, joined, and a distribution over what is left."""
    b = Builder()
    x = b.input("x", 1, 2, 9, 8)
    stem = b("relu", b("batch_norm", b("conv", x, channels=4, kernel=3, stride=2, bias=False)))
    body = b("batch_norm", b("conv", stem, channels=4, kernel=3, groups=2))
    h = b("relu", b("add", body, stem))
    pooled = [b("max_pool", h, kernel=3, stride=2, pad=1), b("avg_pool", h, kernel=2, stride=2)]
    cut = [b("slice", p, axes=(2, 3), start=(0, 0), stop=(2, 2)) for p in pooled]
    joined = b("concat", *cut, axis=1)
    logits = b("linear", b("flatten", b("silu", joined)), channels=5)
    return b.output(map=h, probabilities=b("softmax", logits, axis=1))


def attention() -> Graph:
    """Two heads over six positions, with weights given at run time as well as known ones."""
    b = Builder()
    x = b.input("x", 1, 6, 8)
    heads = []
    for _ in range(3):
        projected = b("reshape", b("linear", x, channels=8), shape=(1, 6, 2, 4))
        heads.append(b("transpose", projected, axes=(0, 2, 1, 3)))
    q, k, v = heads
    scores = b("matmul", q, b("transpose", k, axes=(0, 1, 3, 2)))
    weights = b("softmax", scores, axis=3)
    mixed = b("transpose", b("matmul", weights, v), axes=(0, 2, 1, 3))
    y = b("linear", b("reshape", mixed, shape=(1, 6, 8)), channels=8)
    return b.output(y=b("gelu", b("layer_norm", b("add", y, x))))


NETWORKS: dict[str, Callable[[], Graph]] = {
    "lenet": lenet,
    "residual": residual,
    "attention": attention,
}


def packed(lowered: Lowered, arrays: Mapping[str, Array]) -> np.ndarray[Any, Any]:
    weights = np.full(lowered.program.weight_bytes, 0xFF, np.uint8)
    lowered.pack_weights(arrays, weights)
    return weights


def inputs_of(lowered: Lowered, arrays: Mapping[str, Array]) -> list[Array]:
    return [
        np.ascontiguousarray(arrays[port.name], port.type.dtype.numpy)
        for port in lowered.program.inputs
    ]


def assert_close(found: list[Array], lowered: Lowered, expected: Mapping[str, Array]) -> None:
    for port, array in zip(lowered.program.outputs, found, strict=True):
        scale = float(np.abs(expected[port.name]).max())
        np.testing.assert_allclose(array, expected[port.name], rtol=0, atol=2e-6 * scale)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("passes", [True, False], ids=["passes", "no passes"])
@pytest.mark.parametrize("name", NETWORKS)
def test_loops_as_python(name: str, passes: bool) -> None:
    graph = NETWORKS[name]()
    arrays = random_arrays(graph)
    lowered = lower(rewritten(graph) if passes else graph, TINY, name)
    check_kernels(lowered)
    program = lowered.program
    outputs = run_program(
        program,
        [bytes(array) for array in inputs_of(lowered, arrays)],
        bytearray(packed(lowered, arrays)),
        [port.type.elements * port.type.dtype.bytes for port in program.outputs],
    )
    found = [
        np.frombuffer(data, port.type.dtype.numpy).reshape(port.type.sizes)
        for data, port in zip(outputs, program.outputs, strict=True)
    ]
    assert_close(found, lowered, evaluate_graph(graph, arrays))


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["residual", "attention"])
def test_grids_by_the_interpreter(name: str, order: str) -> None:
    """Blocks of threads that reduce through shared memory: the same results in every order."""
    graph = NETWORKS[name]()
    arrays = random_arrays(graph)
    lowered = lower(rewritten(graph), TINY_GRID, name)
    check_kernels(lowered)
    assert any(
        isinstance(s, Barrier) for k in lowered.program.kernels for s in walk_statements(k.body)
    )
    found = interpret_program(
        lowered.program, packed(lowered, arrays), inputs_of(lowered, arrays), order=ORDERS[order]
    )
    assert_close(found, lowered, evaluate_graph(graph, arrays))


ALONE = """
import sys
from graphs import Builder
from tiny_target.machine import TINY
from tiny_target.printer import print_program
from convdsl.lowering.lower import lower

b = Builder()
graph = b.output(y=b("relu", b("conv", b.input("x", 1, 2, 4, 4), channels=3, kernel=3)))
print_program(lower(graph, TINY, "alone").program)
rooms = ("convdsl.schedules.cpu", "convdsl.backends", "convdsl.runtime", "llvmlite")
sys.exit(", ".join(name for name in sys.modules if name.startswith(rooms)) or 0)
"""


@pytest.mark.dear
def test_nothing_of_the_cpu_is_needed() -> None:
    """Lowered and printed in a process that loads no other target's rooms."""
    paths = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", ALONE]
    found = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True)
    assert found.returncode == 0, found.stderr.decode()


def test_what_the_target_has_not_is_refused_by_name() -> None:
    for kernel, what in (
        (tiled_matmul(4, 4, 4), "Blocks in a program of loops"),
        (row_sums(), "f32x4: the tiny target has no vectors"),
    ):
        with pytest.raises(KernelError, match=what):
            print_program(program_of(kernel))
