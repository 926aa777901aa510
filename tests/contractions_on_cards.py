"""Graphs run from their CUDA source on a processor, contractions by their own schedules."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from cuda_shim.card import ptx_of
from cuda_shim.modules import compile_ptx
from cuda_shim.programs import run_launches, run_on_cpu
from cuda_shim.running import ORDERS
from graphs import evaluate_results, random_arrays
from lowering.test_second_target import packed

from convdsl.backends.cuda.printer import print_module
from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_module import CudaModule
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.interpret import interpret_program
from convdsl.kernel.program import Program
from convdsl.kernel.verify import verify_kernel
from convdsl.lowering.lower import Lowered, lower
from convdsl.schedules.cuda.machine import cuda_machine
from convdsl.schedules.machine import Machine
from convdsl.schedules.task import Schedule, Task
from convdsl.tensor import DType
from convdsl.tensor.conversion import convert

Array = np.ndarray[Any, Any]

TOLERANCES = {"highest": 1e-5, "high": 1e-3, "medium": 1e-2, "float16": 1e-3}
"""The largest error that a precision may make, over the range of a result."""

OWN = ("implicit_gemm", "phases")


def preferring(machine: Machine, *names: str) -> Machine:
    """The machine whose contractions run by these schedules wherever they apply, whatever small
    shapes would really be run by."""

    def preferred(schedule: Schedule) -> Schedule:
        if schedule.name not in names:
            return schedule

        def cost(task: Task) -> float | None:
            found = schedule.cost(task)
            return None if found is None else found * 1e-9

        return replace(schedule, cost=cost)

    return replace(machine, schedules=tuple(map(preferred, machine.schedules)))


def lowered_for(graph: Graph, target: CudaTarget, *names: str) -> Lowered:
    lowered = lower(graph, preferring(cuda_machine(target), *(names or OWN)), "test")
    for kernel in lowered.program.kernels:
        verify_kernel(kernel)
    return lowered


def schedules_of(lowered: Lowered) -> list[str]:
    return [choice.schedule for choice in lowered.choices]


def check(
    graph: Graph,
    target: CudaTarget,
    order: str = "forward",
    *names: str,
    interpreted: bool = False,
    tolerance: float | None = None,
    exact: Graph | None = None,
    scale: float = 1.0,
    ptx: bool = False,
) -> list[str]:
    """Run one call, compare outputs and new states with double precision, and give the schedules
    that it ran by. `exact`: the same graph in types that round less. `scale`: of the inputs.
    `ptx`: run what NVRTC makes of the source."""
    lowered = lowered_for(graph, target, *names)
    types = {name: value.type.dtype for name, value in graph.inputs.items()}
    types |= {name: state.type.dtype for name, state in graph.states.items()}
    arrays = {
        name: convert(a, DType.F64, types[name]) if a.dtype == np.float64 else a
        for name, a in random_arrays(graph, 5, scale).items()
    }
    program, weights = lowered.program, packed(lowered, arrays)
    inputs = [np.ascontiguousarray(arrays[port.name]) for port in program.inputs]
    states = {port.name: np.array(arrays[port.name], order="C") for port in program.states}
    if interpreted:
        found = interpret_program(program, weights, inputs, list(states.values()))
    else:
        module = print_module(program, target)
        run = partial(run_as_ptx, target) if ptx else run_on_cpu
        found = run(program, module, weights, inputs, list(states.values()), ORDERS[order])
    doubles = {n: as_double(a, types[n]) for n, a in arrays.items()}
    truth, new = evaluate_results(graph if exact is None else exact, doubles)
    most = TOLERANCES[target.precision] if tolerance is None else tolerance
    for port, array in zip(program.outputs, found, strict=True):
        close(as_double(array, port.type.dtype), truth[port.name], most, port.name)
    for name, array in states.items():
        close(as_double(array, types[name]), new[name], most, name)
    return schedules_of(lowered)


def as_double(array: Array, dtype: DType) -> Array:
    """Floats in double precision, anything else as it is."""
    return convert(array, dtype, DType.F64) if dtype.is_float else array


def run_as_ptx(
    target: CudaTarget, program: Program, module: CudaModule, weights: Array, *arguments: Any
) -> list[Array]:
    """What NVRTC makes of a module, executed like its source."""
    library = compile_ptx(ptx_of(module.source, target.arch))
    return run_launches(program, module, library, weights, *arguments)


def close(found: Array, truth: Array, most: float, name: str) -> None:
    span = max(float(np.max(np.abs(truth), initial=0.0)), 1e-30)
    error = float(np.max(np.abs(found - truth), initial=0.0)) / span
    assert np.array_equal(np.isnan(found), np.isnan(truth)), name
    assert error <= most, f"{name}: {error:.2e} of its range"
