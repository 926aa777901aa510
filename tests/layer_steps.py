"""Steps down a gradient of single layers, for the tests of schedules: made, run, and compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from executors import run_session
from graphs import Builder, evaluate_results, random_arrays

from convdsl.autodiff import gradients
from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.target import Target
from convdsl.lowering.lower import lower
from convdsl.passes import run as run_passes
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

NATIVE = find_target()

EPSILON = {DType.F32: float(np.finfo("f4").eps), DType.F64: float(np.finfo("f8").eps)}


def step_graph(
    op: str, shape: tuple[int, ...], attributes: Mapping[str, Any], dtype: DType = DType.F32
) -> Graph:
    """x -> relu -> layer, and one step down the sum of the squares of what that makes: as in
    training, values on both sides lie as kernels make them, and weights change."""
    b = Builder()
    x = b("relu", b.input("x", *shape, dtype=dtype))
    y = b(op, x, name="layer", **attributes)
    weights = {key: state.output for key, state in b.graph.states.items()}
    dx, *dws = gradients(b.graph, {y: y}, [x, *weights.values()], b.build)
    for weight, dw in zip(weights.values(), dws, strict=True):
        assert dw is not None
        rate = b.constant("rate", 1e-2, dtype)
        b.update(weight, b("sub", weight, b("mul", dw, rate)))
    assert dx is not None
    return run_passes(b.output(y=y, dx=b("mul", dx, dx)))


def schedules(graph: Graph, cpu: str = "native") -> dict[str, set[str]]:
    """Of every node of the backward pass, and the layer itself, the schedules that run it."""
    found: dict[str, set[str]] = {}
    for choice in lower(graph, cpu_machine(find_target(cpu)), "step").choices:
        found.setdefault(choice.nodes[0], set()).add(choice.schedule)
    return found


def check(graph: Graph, way: Any, dtype: DType = DType.F32, target: Target | None = None) -> None:
    """One step, by machine code or by loops, against double precision: outputs and new weights."""
    arrays = {name: a.astype(dtype.numpy) for name, a in random_arrays(graph, seed=3).items()}
    doubles = {name: a.astype(np.float64) for name, a in arrays.items()}
    expected = evaluate_results(graph, doubles)
    ((outputs, states),) = run_session(graph, arrays, [arrays], way, target)
    for found, truth in ((outputs, expected[0]), (states, expected[1])):
        assert found.keys() == truth.keys()
        for name, array in found.items():
            span = float(np.max(np.abs(truth[name]), initial=1.0))
            atol = 512 * EPSILON[dtype] * span
            np.testing.assert_allclose(array, truth[name], rtol=0, atol=atol, err_msg=name)
