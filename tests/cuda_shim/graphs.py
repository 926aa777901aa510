"""Graphs for a card, run on the processor: lowered, printed, and executed as CUDA C or as PTX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from executors import check_kernels
from graphs import Array

from convdsl.backends.cuda.printer import print_module
from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_module import CudaModule
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.lowering.lower import Lowered, lower
from convdsl.schedules.cuda.machine import cuda_machine
from cuda_shim.card import ptx_of
from cuda_shim.modules import Library, compile_ptx
from cuda_shim.programs import library_of, run_launches
from cuda_shim.running import FORWARD, Order

TARGET = CudaTarget()


@dataclass(frozen=True)
class OnCard:
    """A graph as a card's program. `ptx`: what NVRTC makes of the source runs, not the source."""

    graph: Graph
    target: CudaTarget = TARGET
    ptx: bool = False
    noted: bool = True

    @cached_property
    def lowered(self) -> Lowered:
        made = lower(self.graph, cuda_machine(self.target), "test")
        check_kernels(made)
        return made

    @cached_property
    def module(self) -> CudaModule:
        return print_module(self.lowered.program, self.target)

    @cached_property
    def library(self) -> Library:
        if self.ptx:
            return compile_ptx(ptx_of(self.module.source, self.target.arch))
        return library_of(self.module, noted=self.noted)

    def run(
        self, arrays: Mapping[str, Array], order: Order = FORWARD
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Outputs by name, and the states as they are then."""
        program = self.lowered.program
        weights = np.full(program.weight_bytes, 0xFF, np.uint8)
        self.lowered.pack_weights(arrays, weights)
        states = {
            port.name: np.array(arrays[port.name], port.type.dtype.numpy, order="C")
            for port in program.states
        }
        inputs = [
            np.ascontiguousarray(arrays[port.name], port.type.dtype.numpy)
            for port in program.inputs
        ]
        found = run_launches(
            program, self.module, self.library, weights, inputs, list(states.values()), order,
            noted=self.noted,
        )  # fmt: skip
        return {p.name: a for p, a in zip(program.outputs, found, strict=True)}, states

    def run_in(
        self, orders: Mapping[str, Order], arrays: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """The same, alike bit for bit in every order."""
        first, *others = (self.run(arrays, order) for order in orders.values())
        for other in others:
            for a, b in zip(first, other, strict=True):
                for name, array in a.items():
                    np.testing.assert_array_equal(array, b[name], f"{name}: the order shows")
        return first


def for_a_card(graph: Graph, target: CudaTarget = TARGET) -> Lowered:
    """The program of a graph, its kernels held to what is asked of all."""
    return OnCard(graph, target).lowered


def schedules_of(graph: Graph, target: CudaTarget = TARGET) -> list[str]:
    """Of each step, in order."""
    return [choice.schedule for choice in lower(graph, cuda_machine(target), "test").choices]


def run_graph(
    graph: Graph, arrays: Mapping[str, Array], order: Order = FORWARD, target: CudaTarget = TARGET
) -> dict[str, Array]:
    """Outputs by name. `arrays` holds inputs and states by name."""
    return run_step(graph, arrays, order, target)[0]


def run_step(
    graph: Graph, arrays: Mapping[str, Array], order: Order = FORWARD, target: CudaTarget = TARGET
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Outputs, and the states that changed as they are then."""
    return OnCard(graph, target).run(arrays, order)
