"""Graph -> Program: groups become tasks, tasks kernels (tasks.py), values buffers (buffers.py);
buffers share memory (updates.py, sharing.py), and all has its place (assemble.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.ir.graph import Graph
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.program import Program
from convdsl.lowering.assemble import assemble
from convdsl.lowering.buffers import Buffers
from convdsl.lowering.packing import Packing, Shelf, pack_weights
from convdsl.lowering.sharing import Sharing
from convdsl.lowering.tasks import Decision, Tasks
from convdsl.lowering.updates import order_of, replace_states
from convdsl.schedules.machine import Machine

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Lowered:
    """A program and the recipe for its weights."""

    program: Program
    graph: Graph
    packings: tuple[Packing, ...]
    choices: tuple[Decision, ...]

    def pack_weights(self, states: Mapping[str, Array], out: npt.NDArray[np.uint8]) -> None:
        """Evaluate weight-time arithmetic and write all packed weights into `out`."""
        pack_weights(self.graph, self.packings, states, out)


def lower(
    graph: Graph,
    machine: Machine,
    name: str,
    shelf: Shelf | None = None,
    certain: Callable[[Kernel], None] | None = None,
) -> Lowered:
    """The program of a graph whose shapes are all bound (InputError if one is not); with a shelf,
    its weights lie there, beside those of other programs. `certain` is told of kernels that the
    program will have, as soon as they are made: of most, not of all."""
    _check_bound(graph)
    buffers = Buffers(graph, machine)
    tasks = Tasks(machine, buffers, certain)
    tasks.add_graph(graph)
    fixed = buffers.fixed_places()
    sharing = Sharing(tasks.calls, tasks.kernels, buffers.aliases, fixed, tasks.overlays)
    if graph.updates:
        tasks.reorder(order_of(graph, sharing))
    for copy in replace_states(graph, sharing):
        type = graph.states[copy.state].type
        tasks.add_copy(copy.source, copy.into, type, f"update {copy.state}")
    program, packings, sharing = assemble(name, buffers, sharing, machine.alignment, shelf)
    choices = zip(tasks.choices, sharing.calls, strict=True)
    chosen = tuple(replace(choice, kernel=call.kernel) for choice, call in choices if choice)
    return Lowered(program, graph, packings, chosen)


def _check_bound(graph: Graph) -> None:
    for node in graph.nodes():
        for value in node.outputs:
            if value.type.symbols():
                free = ", ".join(sorted(s.name for s in value.type.symbols()))
                raise InputError(f"sizes not given: {free} ({value.name} is {value.type})")
