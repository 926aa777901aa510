"""Where everything lies that a program touches: layouts, packed weights, outputs, the arena.

Inputs and outputs of the model are plain, and so are states that change and what is computed for
their sake; the layouts of what is in between are the machine's.
"""

from __future__ import annotations

from dataclasses import replace

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.groups import kernels_of
from convdsl.ir.timing import Timing
from convdsl.kernel.expr import Stage
from convdsl.kernel.layout import Layout
from convdsl.kernel.program import Argument, Place
from convdsl.lowering.calls import (
    Alias,
    CopiedOutput,
    Key,
    Message,
    NewState,
    PackedValue,
    PackedWeight,
    Part,
)
from convdsl.lowering.layouts import Layouts
from convdsl.lowering.memory import round_up
from convdsl.lowering.narrowing import find_narrowed
from convdsl.lowering.packing import Packing, Shelf, Source
from convdsl.lowering.slices import find_slices
from convdsl.lowering.views import Memory, find_views
from convdsl.schedules.machine import Machine
from convdsl.schedules.task import Pack, Scratch
from convdsl.tensor import DType, TensorType


class Buffers:
    """The buffers of one program in the making."""

    def __init__(self, graph: Graph, machine: Machine) -> None:
        self.timing = Timing(graph)
        self.kernels = kernels_of(graph, self.timing)
        self._machine = machine
        self.inputs = list(graph.inputs.items())
        self.outputs = list(graph.outputs.items())
        states = graph.states
        self.states = [(key, states[key].output) for key in graph.updates]
        self._planned = Layouts(graph, machine, self.timing, self.kernels)
        self._layouts: dict[Key, Layout] = {}
        self._dtypes: dict[Key, DType] = {}
        self._packings: list[Packing] = []
        self._packed: dict[tuple[Source, Pack, DType], PackedWeight] = {}
        self.narrowed = find_narrowed(graph, machine, self._planned, self.timing)
        self._in_place = self._outputs_in_place()
        slices = find_slices(graph, self._planned, self.timing, self.narrowed, machine.parts)
        lying = self._planned, self.timing, self.narrowed, self._in_place
        memory = Memory(graph, *lying, machine.alignment)
        self._wholes = {part.owner for part in slices.values()}
        self._views = find_views(memory, slices)
        self.aliases = {**slices, **self._views.aliases}
        for _, value in (*self.inputs, *self.states):
            self.place(value, value.type, Layout(value.type.sizes))

    # What is asked of a value

    def is_nothing(self, node: OpNode) -> bool:
        """True where no code is needed: for a concatenation whose parts lie in place already, and
        for what only hands on what it reads under another shape."""
        return node in self._views.nodes or any(value in self._wholes for value in node.outputs)

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
            node = value.node
            if not isinstance(node, OpNode) or node.op.exchanges or self.timing.is_bound(node):
                continue
            if self._planned.of_value(value) == Layout(value.type.sizes):
                found.setdefault(value, slot)
        return found

    # Layouts

    def place(self, key: Key, type: TensorType, layout: Layout) -> None:
        """Give a key its layout; a piece of every position steps over the others."""
        alias = self.aliases.get(key)
        self._layouts[key] = layout.inside(alias.pitch) if alias and alias.pitch else layout
        self._dtypes[key] = type.dtype

    def place_made(self, value: Value) -> None:
        """The same for what needs no code."""
        layout = self._planned.of_value(value)
        assert layout is not None
        self.place(value, self.narrowed.type(value), layout)

    def place_scratch(self, key: Key, scratch: Scratch) -> None:
        """The same for memory between the kernels of one task."""
        self._layouts[key] = Layout((scratch.size,))
        self._dtypes[key] = scratch.dtype

    def place_packed(self, key: PackedValue) -> bool:
        """The same for a packed value; False if that was done before: it is packed already."""
        if key in self._layouts:
            return False
        self._layouts[key] = Layout((key.pack.size,))
        self._dtypes[key] = key.dtype
        return True

    def place_part(self, key: Part, type: TensorType) -> None:
        """The same for a piece of a packed value."""
        self.place(key, type, Layout(type.sizes))
        self.aliases[key] = Alias(key.whole, key.first * type.dtype.bytes)

    def place_message(self, key: Message, type: TensorType) -> None:
        """The same for what is summed over ranks at once; its operands and sums lie inside."""
        self.place(key, type, Layout(type.sizes))

    def enclose(self, key: Key, message: Message, offset: int) -> None:
        """Let a key lie inside of a message, `offset` bytes from its start."""
        self.aliases[key] = Alias(message, offset)

    def may_lie_inside(self, value: Value) -> bool:
        """Whether what an operator makes has memory of its own, row by row."""
        node = value.node
        made = isinstance(node, OpNode) and not self.timing.is_bound(node)
        plain = made and self._planned.of_value(value) == Layout(value.type.sizes)
        apart = value not in self.aliases and value not in self._wholes
        return plain and apart and value not in self._in_place

    def layout(self, key: Key) -> Layout:
        return self._layouts[key]

    def dtype(self, key: Key) -> DType:
        """As which it is stored."""
        return self._dtypes[key]

    def planned(self, node: OpNode, stage: Stage) -> Layout:
        """How what a stage of an operator makes is to lie, if it is stored."""
        return self._planned.of_stage(node, stage)

    # Packed weights

    def weight(self, packing: Packing) -> PackedWeight:
        """The key of a packed weight; what is packed alike from one source is packed once."""
        key = (packing.source, packing.pack, packing.dtype)
        if key not in self._packed:
            self._packed[key] = PackedWeight(len(self._packings))
            self._packings.append(packing)
        return self._packed[key]

    def packings(self, shelf: Shelf | None = None) -> tuple[tuple[Packing, ...], int]:
        """The packings at their places in the weight memory, and its bytes in all."""
        if shelf is not None:
            return shelf.place(self._packings, self._machine.alignment), shelf.bytes
        placed: list[Packing] = []
        end = 0
        for packing in self._packings:
            placed.append(replace(packing, offset=end))
            end += round_up(packing.bytes, self._machine.alignment)
        return tuple(placed), end

    # Memory

    def bytes_of(self, key: Key) -> int:
        return self._layouts[key].size * self._dtypes[key].bytes

    def elements_of(self, key: Key) -> tuple[int, DType]:
        """How many there are, and what they are of."""
        return self._layouts[key].size, self._dtypes[key]

    def fixed_places(self) -> dict[Key, Argument]:
        """Keys that lie in memory of the caller."""
        fixed: dict[Key, Argument] = {}
        for slot, (_, value) in enumerate(self.inputs):
            fixed[value] = Argument(Place.INPUT, slot)
        for value, slot in self._in_place.items():
            fixed[value] = Argument(Place.OUTPUT, slot)
        for slot in range(len(self.outputs)):
            fixed[CopiedOutput(slot)] = Argument(Place.OUTPUT, slot)
        for slot, (key, value) in enumerate(self.states):
            fixed[value] = fixed[NewState(key)] = Argument(Place.STATE, slot)
        return fixed
