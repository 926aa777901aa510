"""One operator, or one graph, run by the loop interpreter and by machine code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.backends.llvm import module as llvm_module
from convdsl.backends.llvm import objects as llvm
from convdsl.ir.graph import Graph
from convdsl.ir.opdef import Call, Role
from convdsl.kernel.independence import check_bounds, check_independent
from convdsl.kernel.interpret import interpret_program
from convdsl.kernel.target import Target
from convdsl.kernel.verify import verify_kernel
from convdsl.lowering.lower import Lowered, lower
from convdsl.runtime.code import Code
from convdsl.runtime.cpu.code import LoadedCode, aligned
from convdsl.runtime.cpu.processor import refusal
from convdsl.schedules.cpu.machine import cpu_machine

Array = npt.NDArray[Any]
Runner = Callable[[Lowered, npt.NDArray[np.uint8], Sequence[Array]], list[Array]]


Calls = Callable[[Sequence[Array], Sequence[Array]], list[Array]]
"""Calls of one program: inputs and states in, outputs out; the states change."""


def runs_here(target: Target) -> bool:
    """Whether this processor has all that code for the target may use."""
    return not refusal(target)


def check_kernels(lowered: Lowered) -> None:
    """Well formed, iterations independent, every access inside its buffer."""
    for kernel in lowered.program.kernels:
        verify_kernel(kernel)
        check_independent(kernel)
        check_bounds(kernel)


def interpreting(lowered: Lowered, weights: npt.NDArray[np.uint8]) -> Calls:
    """By the loop interpreter. Every kernel is held to what is asked of all kernels."""
    check_kernels(lowered)
    return lambda inputs, states: interpret_program(lowered.program, weights, inputs, states)


def executing(
    lowered: Lowered, weights: npt.NDArray[np.uint8], target: Target | None = None
) -> Calls:
    """By one thread, by two and by three, in memory that starts out as NaN."""
    target = target or llvm.find_target()
    program = lowered.program
    object_code = llvm.emit_object(llvm_module.print_module(program, target), target)
    loaded = LoadedCode(Code.of(program, object_code), weights)
    scratch = aligned(loaded.code.scratch_bytes(3))
    scratch[:] = 0xFF
    loaded._give_arena(scratch)

    def call(inputs: Sequence[Array], states: Sequence[Array]) -> list[Array]:
        before = [state.copy() for state in states]
        one = loaded.run(inputs, 1, states)
        for threads in (2, 3):
            others = [state.copy() for state in before]
            found = loaded.run(inputs, threads, others)
            for a, b in zip((*one, *states), (*found, *others), strict=True):
                np.testing.assert_array_equal(a, b, f"one thread and {threads} differ")
        return one

    return call


def interpreted(lowered: Lowered, weights: npt.NDArray[np.uint8], inputs: Any) -> list[Array]:
    return interpreting(lowered, weights)(inputs, ())


def machine_code(
    lowered: Lowered,
    weights: npt.NDArray[np.uint8],
    inputs: Any,
    target: Target | None = None,
) -> list[Array]:
    return executing(lowered, weights, target)(inputs, ())


def graph_of(call: Call) -> Graph:
    """A graph of one operator; its weights are states, its data operands inputs."""
    graph = Graph()
    roles = {operand.name: operand.role for operand in call.op.operands}
    values = {
        name: graph.add_input(name, type)
        if roles.get(name, Role.DATA) is Role.DATA
        else graph.add_state(name, type, Role.PARAMETER)
        for name, type in call.types.items()
    }
    node = graph.apply(call.op, values, call.attributes, name="op")
    graph.outputs = dict(zip(call.output_names, node.outputs, strict=True))
    return graph


def run_graph(
    graph: Graph, arrays: Mapping[str, Array], runner: Runner, target: Target | None = None
) -> dict[str, Array]:
    """Outputs by name. `arrays` holds inputs and states by name."""
    lowered = lower(graph, cpu_machine(target or llvm.find_target()), "test")
    weights = _packed(lowered, arrays)
    inputs = [np.ascontiguousarray(arrays[port.name]) for port in lowered.program.inputs]
    outputs = runner(lowered, weights, inputs)
    return {p.name: a for p, a in zip(lowered.program.outputs, outputs, strict=True)}


def _packed(lowered: Lowered, arrays: Mapping[str, Array]) -> npt.NDArray[np.uint8]:
    weights = aligned(lowered.program.weight_bytes)
    weights[:] = 0xFF
    lowered.pack_weights(arrays, weights)
    return weights


def run_session(
    graph: Graph,
    arrays: Mapping[str, Array],
    inputs: Sequence[Mapping[str, Array]],
    way: Callable[[Lowered, npt.NDArray[np.uint8]], Calls],
    target: Target | None = None,
) -> list[tuple[dict[str, Array], dict[str, Array]]]:
    """Calls in a row, one for each of `inputs`: the outputs, and the states as they are then."""
    lowered = lower(graph, cpu_machine(target or llvm.find_target()), "test")
    program, call = lowered.program, way(lowered, _packed(lowered, arrays))
    states = {port.name: np.array(arrays[port.name], order="C") for port in program.states}
    session: list[tuple[dict[str, Array], dict[str, Array]]] = []
    for given in inputs:
        ordered = [np.ascontiguousarray(given[port.name]) for port in program.inputs]
        results = call(ordered, list(states.values()))
        outputs = {p.name: a for p, a in zip(program.outputs, results, strict=True)}
        session.append((outputs, {key: array.copy() for key, array in states.items()}))
    return session


def run_loops(call: Call, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return run_graph(graph_of(call), arrays, interpreted)


def run_llvm(call: Call, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return run_graph(graph_of(call), arrays, machine_code)
