"""Where everything lies that a program touches: layouts, packed weights, outputs, the arena.

Inputs and outputs of the model are plain, and so are states that change and what is computed for
their sake; the layouts of what is in between are the machine's.
"""

from __future__ import annotations

from dataclasses import replace

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.timing import Time, Timing
from convdsl.kernel.layout import Layout
from convdsl.kernel.program import Argument, Place
from convdsl.lowering.calls import CopiedOutput, Key, NewState, PackedWeight
from convdsl.lowering.compose import groups_of
from convdsl.lowering.memory import aligned
from convdsl.lowering.packing import Packing, Source
from convdsl.lowering.slices import find_slices
from convdsl.schedules.machine import Machine
from convdsl.schedules.task import Pack, Scratch
from convdsl.tensor import DType, TensorType


class Buffers:
    """The buffers of one program in the making."""

    def __init__(self, graph: Graph, machine: Machine) -> None:
        self.timing = Timing(graph)
        self._machine = machine
        self.inputs = list(graph.inputs.items())
        self.outputs = list(graph.outputs.items())
        self.states = [(key, graph.states[key].output) for key in graph.updates]
        self._plain = self._plain_nodes(graph)
        self._layouts: dict[Key, Layout] = {}
        self._dtypes: dict[Key, DType] = {}
        self._packings: list[Packing] = []
        self._packed: dict[tuple[Source, Pack], PackedWeight] = {}
        self.aliases = find_slices(graph, self._layout_for, self.timing)
        self._in_place = self._outputs_in_place()
        for _, value in (*self.inputs, *self.states):
            self.place(value, value.type, plain=True)

    # What is asked of a value

    def is_whole(self, value: Value) -> bool:
        """True for a concatenation whose parts lie in place already."""
        return any(part.owner is value for part in self.aliases.values())

    def is_plain(self, node: OpNode) -> bool:
        """Whether a node is of a group that changes states: all of it is plain, as they are."""
        return node in self._plain

    def _plain_nodes(self, graph: Graph) -> set[OpNode]:
        """Groups that replace states, and what follows from states that change alone."""
        found: set[OpNode] = set()
        new = set(graph.updates.values())
        for nodes in groups_of(graph, self.timing):
            replacing = any(value in new for node in nodes for value in node.outputs)
            if replacing or self.timing.of_node(nodes[-1]) is Time.STEP:
                found.update(nodes)
        return found

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
            if made and self._layout_for(value) == Layout(value.type.sizes):
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

    def _layout_for(self, value: Value) -> Layout:
        """That of a value between kernels."""
        plain = isinstance(value.node, OpNode) and self.is_plain(value.node)
        return Layout(value.type.sizes) if plain else self._machine.layout(value.type)

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

    def packings(self) -> tuple[tuple[Packing, ...], int]:
        """The packings at their places in the weight memory, and its bytes in all."""
        placed: list[Packing] = []
        end = 0
        for packing in self._packings:
            placed.append(replace(packing, offset=end))
            end += aligned(packing.pack.size * packing.dtype.bytes, self._machine.alignment)
        return tuple(placed), end

    # Memory

    def bytes_of(self, key: Key) -> int:
        return self._layouts[key].size * self._dtypes[key].bytes

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
