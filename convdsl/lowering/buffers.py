"""Where everything lies that a program touches: layouts, packed weights, outputs, the arena.

Inputs and outputs of the model are plain; the layouts of what is in between are the machine's.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.liveness import live_ranges
from convdsl.ir.timing import Timing
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.program import Argument, Place, Port, Program, Step
from convdsl.lowering.memory import aligned, plan_arena
from convdsl.lowering.packing import Packing, Source
from convdsl.lowering.slices import find_slices, resolve
from convdsl.schedules.machine import Machine
from convdsl.schedules.task import Pack, Scratch
from convdsl.tensor import DType, TensorType

# What a step's buffer is, before memory is planned: a value of the graph or a scratch tensor.
Key = Hashable


@dataclass(frozen=True)
class PackedWeight:
    """The key of a weight as a kernel wants it: its position among the packings."""

    index: int


@dataclass(frozen=True)
class CopiedOutput:
    """The key of an output that no kernel can write in place."""

    slot: int


@dataclass(frozen=True)
class Call:
    """A kernel call whose arguments are still keys; `written` are those that it writes."""

    kernel: str
    arguments: tuple[Key, ...]
    written: frozenset[Key]
    nodes: tuple[str, ...]
    schedule: str


class Buffers:
    """The buffers of one program in the making."""

    def __init__(self, graph: Graph, machine: Machine) -> None:
        self.timing = Timing(graph)
        self._machine = machine
        self._inputs = list(graph.inputs.items())
        self.outputs = list(graph.outputs.items())
        self._layouts: dict[Key, Layout] = {}
        self._dtypes: dict[Key, DType] = {}
        self._packings: list[Packing] = []
        self._packed: dict[tuple[Source, Pack], PackedWeight] = {}
        self._slices = find_slices(graph, lambda v: machine.layout(v.type), self.timing)
        self._in_place = self._outputs_in_place()
        for _, value in self._inputs:
            self.place(value, value.type, plain=True)

    # What is asked of a value

    def is_whole(self, value: Value) -> bool:
        """True for a concatenation whose parts lie in place already."""
        return any(part.whole is value for part in self._slices.values())

    def copied_outputs(self) -> list[tuple[int, str, Value]]:
        """(slot, name, value) of the outputs that are copied when all is done: from blocked to
        plain, or from the packed weights."""
        return [
            (slot, name, value)
            for slot, (name, value) in enumerate(self.outputs)
            if self._in_place.get(value) != slot
        ]

    def _outputs_in_place(self) -> dict[Value, int]:
        """Outputs that a kernel can write itself: plain, and made by an operator."""
        found: dict[Value, int] = {}
        for slot, (_, value) in enumerate(self.outputs):
            made = isinstance(value.node, OpNode) and not self.timing.is_bound(value.node)
            if made and self._machine.layout(value.type) == Layout(value.type.sizes):
                found.setdefault(value, slot)
        return found

    # Layouts

    def place(self, key: Key, type: TensorType, *, plain: bool = False) -> None:
        """Give a key its layout."""
        self._layouts[key] = Layout(type.sizes) if plain else self._machine.layout(type)
        self._dtypes[key] = type.dtype

    def place_scratch(self, key: Key, scratch: Scratch) -> None:
        """The same for memory between the kernels of one task."""
        self._layouts[key] = Layout((scratch.size,))
        self._dtypes[key] = scratch.dtype

    def layout(self, key: Key) -> Layout:
        return self._layouts[key]

    def vectors(self, type: TensorType) -> tuple[int | None, int]:
        """How a tensor of that type is cut into vectors: (axis, block)."""
        layout = self._machine.layout(type)
        return layout.axis, layout.block

    # Packed weights

    def weight(self, packing: Packing) -> PackedWeight:
        """The key of a packed weight; what is packed alike from one source is packed once."""
        key = (packing.source, packing.pack)
        if key not in self._packed:
            self._packed[key] = PackedWeight(len(self._packings))
            self._packings.append(packing)
        return self._packed[key]

    # Memory

    def assemble(
        self, name: str, kernels: Sequence[Kernel], calls: Sequence[Call]
    ) -> tuple[Program, tuple[Packing, ...]]:
        """The program of these calls, and the packings at their places in the weight memory."""
        packings, weight_bytes = self._weight_memory()
        fixed = self._fixed_arguments()
        offsets, arena_bytes = self._arena(calls, fixed)

        def argument(key: Key) -> Argument:
            if isinstance(key, PackedWeight):
                return Argument(Place.WEIGHTS, 0, packings[key.index].offset)
            if key in fixed:
                return fixed[key]
            owner, offset = self._owner(key)
            return Argument(Place.ARENA, 0, offsets[owner] + offset)

        program = Program(
            name,
            tuple(kernels),
            tuple(
                Step(c.kernel, tuple(map(argument, c.arguments)), c.nodes, c.schedule)
                for c in calls
            ),
            tuple(Port(name, value.type) for name, value in self._inputs),
            tuple(Port(name, value.type) for name, value in self.outputs),
            weight_bytes,
            arena_bytes,
        )
        return program, packings

    def _weight_memory(self) -> tuple[tuple[Packing, ...], int]:
        placed: list[Packing] = []
        end = 0
        for packing in self._packings:
            placed.append(replace(packing, offset=end))
            end += aligned(packing.pack.size * packing.dtype.bytes, self._machine.alignment)
        return tuple(placed), end

    def _arena(
        self, calls: Sequence[Call], fixed: dict[Key, Argument]
    ) -> tuple[dict[Key, int], int]:
        """(offset of each buffer, bytes in all)."""

        def owners(call: Call, written: bool) -> list[Key]:
            keys = (key for key in call.arguments if (key in call.written) == written)
            planned = (k for k in keys if k not in fixed and not isinstance(k, PackedWeight))
            return [self._owner(key)[0] for key in planned]

        ranges = live_ranges([(owners(call, False), owners(call, True)) for call in calls])
        sizes = {k: self._layouts[k].size * self._dtypes[k].bytes for k in ranges}
        return plan_arena(ranges, sizes, self._machine.alignment)

    def _owner(self, key: Key) -> tuple[Key, int]:
        """(the key whose memory this one lies in, offset in bytes)."""
        if not isinstance(key, Value):
            return key, 0
        value, offset = resolve(key, self._slices)
        return value, offset * value.type.dtype.bytes

    def _fixed_arguments(self) -> dict[Key, Argument]:
        """Keys that lie in memory of the caller."""
        fixed: dict[Key, Argument] = {}
        for slot, (_, value) in enumerate(self._inputs):
            fixed[value] = Argument(Place.INPUT, slot)
        for value, slot in self._in_place.items():
            fixed[value] = Argument(Place.OUTPUT, slot)
        for slot in range(len(self.outputs)):
            fixed[CopiedOutput(slot)] = Argument(Place.OUTPUT, slot)
        return fixed
