"""Operators that move nothing: their results are what they read, under another shape.

    reshape(x), x[2:], split(x)    where both sides are plain, elements stay in their order
    y = reshape(f(x))              f writes the output y itself

Where the place of every element, as the two layouts have it, is that of the element that it is read
from, the same distance further on, the result lies in the memory of the operand: all of it
anywhere, a part in the arena alone, and where a kernel may expect a buffer to begin. Where the
result has a place already, an output of the model or a part of a concatenation, the operand lies
in that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.rules import kernel_of
from convdsl.ir.timing import Timing
from convdsl.kernel.expr import Read, Stage
from convdsl.kernel.layout import Layout
from convdsl.lowering.calls import Alias, Key
from convdsl.lowering.layouts import Layouts
from convdsl.lowering.narrowing import Narrowed
from convdsl.tensor import Dim, substitute
from convdsl.tensor.records import record


@record
class View:
    """What an operator hands on: a value that is all of another, or a part from an element on."""

    value: Value
    source: Value
    first: int
    whole: bool


@dataclass(frozen=True)
class Memory:
    """How everything lies that views are looked for in. `outputs` are values that kernels write
    straight to the caller; buffers begin at multiples of so many bytes."""

    graph: Graph
    layouts: Layouts
    timing: Timing
    narrowed: Narrowed
    outputs: Collection[Value]
    alignment: int

    def layout(self, value: Value) -> Layout | None:
        """None for what is a state, or known when weights are bound."""
        if value in self.graph.inputs.values():
            return Layout(value.type.sizes)
        return self.layouts.of_value(value) if self.is_made(value) else None

    def is_made(self, value: Value) -> bool:
        """Whether a kernel writes the value."""
        return isinstance(value.node, OpNode) and not self.timing.is_bound(value.node)


@record
class Views:
    """The operators that need no code, and where their results lie, or what these are made from."""

    nodes: frozenset[OpNode]
    aliases: Mapping[Key, Alias]


def find_views(memory: Memory, slices: Mapping[Key, Alias]) -> Views:
    """All of a graph, beside the slices of its concatenations."""
    graph, search = memory.graph, _Search(memory, dict(slices), {a.owner for a in slices.values()})
    nodes: set[OpNode] = set()
    new_states = set(graph.updates.values())
    for node in graph.op_nodes():
        if node.group is not None or memory.timing.is_bound(node) or _is_summed(node):
            continue
        if any(value in new_states for value in (*node.outputs, *node.inputs.values())):
            continue
        if search.takes(_views(node, memory), len(node.outputs)):
            nodes.add(node)
    found = {key: alias for key, alias in search.found.items() if key not in slices}
    return Views(frozenset(nodes), found)


@dataclass
class _Search:
    """Where values were found to lie so far; `wholes` are those of which others are parts."""

    memory: Memory
    found: dict[Key, Alias]
    wholes: set[Key]

    def takes(self, views: Sequence[View], wanted: int) -> bool:
        """Whether all results of an operator are views; if so they are remembered."""
        lying = [self.lies(view) for view in views]
        pairs = [pair for pair in lying if pair is not None]
        if len(pairs) < wanted:
            return False
        self.found |= dict(pairs)
        self.wholes |= {self.root(view.source) for view in views if not view.whole}
        return True

    def lies(self, view: View) -> tuple[Value, Alias] | None:
        """Which of the two lies in the other, and where; None where both have places of their own,
        one lies in the other already (the only part of a concatenation), or a part would lie in
        memory of the caller."""
        memory, source = self.memory, view.source
        if self.root(source) == self.root(view.value) or self.in_pieces(source, view.value):
            return None
        if view.value not in self.found and view.value not in memory.outputs:
            first = view.first * memory.narrowed.type(source).dtype.bytes
            apart = first % memory.alignment or not memory.is_made(self.root(source))
            if not view.whole and (apart or self.root(source) in memory.outputs):
                return None
            return view.value, Alias(source, first, seen=True)
        placed = source in self.found or source in memory.outputs or source in self.wholes
        free = memory.is_made(source) and not placed and view.whole
        return (source, Alias(view.value)) if free else None

    def in_pieces(self, *values: Value) -> bool:
        """Whether one of them has a piece of every position of another, so is not what it seems."""
        return any(value in self.found and self.found[value].pitch for value in values)

    def root(self, value: Value) -> Value:
        """The value whose memory this one lies in."""
        key: Key = value
        while key in self.found:
            key = self.found[key].owner
        assert isinstance(key, Value)
        return key


def _is_summed(node: OpNode) -> bool:
    """Whether it is a sum over ranks, or reads one: those have their own place."""
    makers = (node, *(value.node for value in node.inputs.values()))
    return any(isinstance(each, OpNode) and each.op.exchanges for each in makers)


def _views(node: OpNode, memory: Memory) -> list[View]:
    """A view for each output, as far as they are."""
    stages = {stage.target.name: stage for stage in kernel_of(node.call).stages}
    found: list[View] = []
    for name, value in zip(node.call.output_names, node.outputs, strict=True):
        stage = stages.pop(name)
        read = stage.body
        source = node.inputs.get(read.tensor.name) if isinstance(read, Read) else None
        layout, target = source and memory.layout(source), memory.layout(value)
        if source is None or layout is None or target is None:
            return []
        if memory.narrowed.type(source).dtype is not memory.narrowed.type(value).dtype:
            return []
        first = _moved(stage, layout, target)
        if first is None:
            return []
        whole = first == 0 and layout.size == target.size
        found.append(View(value, source, first, whole))
    return [] if stages else found


def _moved(stage: Stage, layout: Layout, target: Layout) -> int | None:
    """How far each element lies from where it is read, in the memory of what is read; None where
    that is not the same for all."""
    read = stage.body
    assert isinstance(read, Read)
    if read.outside is not None:
        return None
    still: dict[str, Dim] = {axis.name: 0 for axis in stage.axes if axis.extent == 1}
    here = target.offset([substitute(axis.i, still) for axis in stage.axes])
    first = layout.offset([substitute(index, still) for index in read.index]) - here
    inside = isinstance(first, int) and 0 <= first <= layout.size - target.size
    return first if isinstance(first, int) and inside else None
