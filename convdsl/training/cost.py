"""What training costs, before anything runs.

    parts         forward (with the losses), backward and update: multiply-accumulates and FLOPs,
                  counted as `report` counts them
    states        bytes of weights, of running statistics and of what the optimiser keeps
    memory        for each batch: the arena (activations kept, gradients, scratch) as it is planned,
                  packed copies of constants, and with the states the whole that a step allocates

Arithmetic is of the graph as it is written; memory is that of the compiled step, to the byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convdsl.analysis.cost import CONVENTIONS, Figure, costs, known_sum
from convdsl.analysis.report import dim_to_json
from convdsl.compilation import Plan
from convdsl.diagnostics import InputError
from convdsl.ir.graph import StateNode
from convdsl.ir.model import Model
from convdsl.ir.opdef import Role
from convdsl.ir.training import Training
from convdsl.kernel.signature import batch_symbol
from convdsl.toolchain import find_toolchain
from convdsl.training.step import Step, training_step
from convdsl.training.updates import PREFIX

PARTS = ("forward", "backward", "update")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one step: of the arena, of packed constants, of all states."""

    batch: int
    arena: int
    packed: int
    states: int

    @property
    def total(self) -> int:
        return self.arena + self.packed + self.states


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """Figures of a step. Sizes that are not bound stay symbols."""

    model: str
    count: str
    parameters: int  # elements of all weights
    trained: int  # of those that change
    optimiser: str
    arithmetic: Mapping[str, tuple[Figure, Figure]]  # macs and flops of each part
    weight_bytes: int
    statistics_bytes: int
    optimiser_bytes: int
    memory: tuple[Memory, ...]

    def to_json(self) -> dict[str, Any]:
        """The figures under the keys that other programs rely on."""
        return {
            "model": self.model,
            "count": self.count,
            "convention": CONVENTIONS[self.count],
            "params": self.parameters,
            "trained_params": self.trained,
            "optimizer": self.optimiser,
            "weight_bytes": self.weight_bytes,
            "statistics_bytes": self.statistics_bytes,
            "optimizer_bytes": self.optimiser_bytes,
            "parts": {
                name: {"macs": dim_to_json(macs), "flops": dim_to_json(flops)}
                for name, (macs, flops) in self.arithmetic.items()
            },
            "memory": [
                {
                    "batch": m.batch,
                    "arena_bytes": m.arena,
                    "packed_bytes": m.packed,
                    "state_bytes": m.states,
                    "total_bytes": m.total,
                }
                for m in self.memory
            ],
        }


def training_cost(
    model: Model,
    training: Training,
    count: str = "all",
    binding: Mapping[str, int] | None = None,
    batches: Sequence[int] = (),
    target: str = "cpu",
) -> TrainingCost:
    """The cost of a step with complete settings; memory for each batch size N, where nothing else
    is left open. Raises InputError as training_step does."""
    if count not in CONVENTIONS:
        raise InputError(f"no counting convention {count}: there are {', '.join(CONVENTIONS)}")
    step = training_step(model, training)
    states = [n for n in step.model.graph.states.values() if n.data is None]
    own = [n for n in states if not n.name.startswith(f"{PREFIX}.")]
    added = [n for n in states if n.name.startswith(f"{PREFIX}.")]
    assert training.optimizer is not None
    return TrainingCost(
        model=model.name,
        count=count,
        parameters=_elements([n for n in own if n.role is Role.PARAMETER]),
        trained=_elements([n for n in own if n.name in step.trained]),
        optimiser=training.optimizer.name,
        arithmetic=_arithmetic(step, count, binding or {}),
        weight_bytes=_bytes([n for n in own if n.role is Role.PARAMETER]),
        statistics_bytes=_bytes([n for n in own if n.role is not Role.PARAMETER]),
        optimiser_bytes=_bytes(added),
        memory=tuple(_memory(step, binding or {}, n, target) for n in batches),
    )


def _arithmetic(
    step: Step, count: str, binding: Mapping[str, int]
) -> dict[str, tuple[Figure, Figure]]:
    graph = step.model.graph.bind(binding) if binding else step.model.graph
    found = [(step.part(node), cost) for node, cost in costs(graph, count).items()]
    return {
        part: (
            known_sum(cost.macs for where, cost in found if where == part),
            known_sum(cost.flops for where, cost in found if where == part),
        )
        for part in PARTS
    }


def _memory(step: Step, binding: Mapping[str, int], batch: int, target: str) -> Memory:
    samples = batch_symbol(symbol.name for symbol in step.model.symbols)
    sizes = binding if samples is None else {**binding, samples: batch}
    program = Plan(step.model, find_toolchain(target)).lower(sizes).program
    states = sum(_whole(port.type.bytes) for port in program.states)
    return Memory(batch, program.scratch_bytes(1), program.weight_bytes, states)


def _elements(states: Sequence[StateNode]) -> int:
    return sum(_whole(node.type.elements) for node in states)


def _bytes(states: Sequence[StateNode]) -> int:
    return sum(_whole(node.type.elements) * node.type.dtype.bytes for node in states)


def _whole(extent: object) -> int:
    assert isinstance(extent, int), "the shapes of weights are known"
    return extent
