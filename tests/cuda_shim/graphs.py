"""Graphs as CUDA C for a card, run on the processor from their source."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from executors import check_kernels
from graphs import Array

from convdsl.backends.cuda.printer import print_module
from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.lowering.lower import Lowered, lower
from convdsl.schedules.cuda.machine import cuda_machine
from cuda_shim.programs import run_on_cpu
from cuda_shim.running import FORWARD, Order

TARGET = CudaTarget()


def for_a_card(graph: Graph, target: CudaTarget = TARGET) -> Lowered:
    """The program of a graph, its kernels held to what is asked of all."""
    lowered = lower(graph, cuda_machine(target), "test")
    check_kernels(lowered)
    return lowered


def schedules_of(graph: Graph) -> list[str]:
    """Of each step, in order."""
    return [choice.schedule for choice in lower(graph, cuda_machine(TARGET), "test").choices]


def run_graph(
    graph: Graph, arrays: Mapping[str, Array], order: Order = FORWARD, target: CudaTarget = TARGET
) -> dict[str, Array]:
    """Outputs by name. `arrays` holds inputs and states by name."""
    return run_step(graph, arrays, order, target)[0]


def run_step(
    graph: Graph, arrays: Mapping[str, Array], order: Order = FORWARD, target: CudaTarget = TARGET
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Outputs, and the states that changed as they are then."""
    lowered = for_a_card(graph, target)
    program = lowered.program
    weights = np.full(program.weight_bytes, 0xFF, np.uint8)
    lowered.pack_weights(arrays, weights)
    inputs = [
        np.ascontiguousarray(arrays[port.name], port.type.dtype.numpy) for port in program.inputs
    ]
    states = {
        port.name: np.array(arrays[port.name], port.type.dtype.numpy, order="C")
        for port in program.states
    }
    module = print_module(program, target)
    found = run_on_cpu(program, module, weights, inputs, list(states.values()), order)
    return {p.name: a for p, a in zip(program.outputs, found, strict=True)}, states
