"""The roofline: how fast a machine can run each kernel at best, and what holds it back.

Williams, Waterman, Patterson 2009, "Roofline: An Insightful Visual Performance Model":
attainable speed = min(peak, intensity x bandwidth), intensity = operations / bytes moved.

A kernel is a fusion group, or an operator outside of any. It moves what enters it from outside
and what leaves it, each once and whole; an operator that merely moves data reads no more than
it writes. What happens once, at weight time, costs nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from convdsl.analysis.cost import known_sum
from convdsl.analysis.machine import Machine
from convdsl.diagnostics import InputError
from convdsl.ir.classify import OpClass, classify
from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.groups import kernels_of, leaving
from convdsl.ir.opdef import Cost
from convdsl.ir.rules import Answers, arithmetic_of
from convdsl.tensor import Dim, symbols_of


@dataclass(frozen=True, slots=True)
class KernelBound:
    """One kernel under the roof of a machine."""

    name: str  # of its last operator
    ops: tuple[str, ...]
    flops: int
    bytes: int
    machine: Machine

    @property
    def intensity(self) -> float:
        """Operations per byte moved."""
        return self.flops / self.bytes if self.bytes else float("inf")

    @property
    def bound(self) -> str:
        """What holds it back: `compute` or `memory`."""
        return "compute" if self.intensity >= self.machine.ridge else "memory"

    @property
    def seconds(self) -> float:
        """The least time that it can take."""
        compute = self.flops / self.machine.operations
        return max(compute, self.bytes / self.machine.bandwidth)

    @property
    def attainable(self) -> float:
        """Operations per second at that time."""
        return self.flops / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Roofline:
    """All kernels of a graph, in order of running."""

    machine: Machine
    kernels: tuple[KernelBound, ...]

    @property
    def seconds(self) -> float:
        return sum(kernel.seconds for kernel in self.kernels)

    @property
    def flops(self) -> int:
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def bytes(self) -> int:
        return sum(kernel.bytes for kernel in self.kernels)

    def to_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine.to_json(),
            "total": {"flops": self.flops, "bytes": self.bytes, "seconds": self.seconds},
            "kernels": [
                {
                    "name": k.name,
                    "ops": list(k.ops),
                    "flops": k.flops,
                    "bytes": k.bytes,
                    "intensity": k.intensity if k.bytes else None,
                    "bound": k.bound,
                    "seconds": k.seconds,
                }
                for k in self.kernels
            ],
        }


def roofline(graph: Graph, machine: Machine) -> Roofline:
    """The roofline of a graph as it stands: as written, or after passes.

    Raises InputError where a size is not bound.
    """
    kernels: list[KernelBound] = []
    asked: Answers[Cost] = Answers()
    for nodes in kernels_of(graph):
        costs = [asked.of(node.call, partial(node.op.cost, node.call)) for node in nodes]
        flops = known_sum(cost.flops for cost in costs)
        names = tuple(node.op.name for node in nodes)
        moved = _moved(graph, nodes)
        size, work = _number(moved, nodes[-1]), _number(flops, nodes[-1])
        kernels.append(KernelBound(nodes[-1].name, names, work, size, machine))
    return Roofline(machine, tuple(kernels))


def _moved(graph: Graph, nodes: list[OpNode]) -> Dim:
    """Bytes that enter and leave a kernel."""
    inside = {value for node in nodes for value in node.outputs}
    entering: dict[Value, Dim] = {}
    for node in nodes:
        most = known_sum(value.type.bytes for value in node.outputs)
        moving = classify(arithmetic_of(node.call)) is OpClass.MOVEMENT
        for value in node.inputs.values():
            if value not in inside:
                size = value.type.bytes
                entering[value] = most if moving and _is_less(most, size) else size
    stored = [value.type.bytes for value in leaving(graph, nodes)]
    return known_sum([*entering.values(), *stored])


def _is_less(a: Dim, b: Dim) -> bool:
    return isinstance(a, int) and isinstance(b, int) and a < b


def _number(value: Dim, node: OpNode) -> int:
    if isinstance(value, int):
        return value
    free = ", ".join(sorted(s.name for s in symbols_of(value)))
    raise InputError(f"a roofline needs known sizes: {free} of {node.name} is free")
