"""What a drawing of a network consists of: boxes with what they say, wires with what they carry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from convdsl.analysis.cost import Cost, Figure, costs, known_sum, sum_or_gap
from convdsl.analysis.report import figure_text, sizes_of, window_text
from convdsl.diagnostics import InputError
from convdsl.drawing.svg import short_number, shortened
from convdsl.ir.classify import OpClass, classify
from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ir.rules import Answers, arithmetic_of
from convdsl.ir.text import stated_attributes
from convdsl.kernel.expr import Read, TensorExpr
from convdsl.pictures.blocks import Part, flowing, name_within
from convdsl.tensor import Dim

COSTS = ("macs", "flops", "params", "bytes")
"""What widths of bars can stand for; bytes are those of what is put out."""

KINDS = {
    OpClass.CONTRACTION: ("blue", "sums of products"),
    OpClass.WINDOW: ("green", "windows"),
    OpClass.REDUCTION: ("teal", "reductions"),
    OpClass.MAP: ("sand", "element by element"),
    OpClass.MOVEMENT: ("plain", "moves data"),
}
"""The surface of each class of operators, and what the legend calls it."""

BLOCK = ("violet", "blocks")
PORT = ("rose", "inputs and outputs")

NAME_LETTERS = 34
"""Longer names lose their middle; the tooltip has them whole."""


@dataclass(frozen=True, slots=True)
class Item:
    """A box: lines of text, the first one its name; what it costs; None where nobody knows."""

    lines: tuple[str, ...]
    tooltip: str
    kind: tuple[str, str]
    cost: int | None = None
    part: Part | None = None
    leaves: tuple[Value, ...] = ()  # what others read, in order


@dataclass(slots=True)
class Wiring:
    """Items, and which value goes from which item to which."""

    items: list[Item] = field(default_factory=list[Item])
    wires: list[tuple[int, Value, int]] = field(default_factory=list[tuple[int, Value, int]])


@dataclass(frozen=True, slots=True)
class _Look:
    """How operators of one signature are shown."""

    said: str
    whole: str  # with all attributes that are stated
    kind: tuple[str, str]


@dataclass(frozen=True)
class Network:
    """A graph with what all its drawings need, found once."""

    graph: Graph
    costs: Mapping[OpNode, Cost]
    readers: Mapping[Value, Sequence[OpNode]]
    totals: Mapping[str, int | None]  # by COSTS; None where sizes leave that open
    looks: Answers[_Look] = field(default_factory=Answers[_Look])

    def look_of(self, node: OpNode) -> _Look:
        return self.looks.of(node.call, partial(_look, node))

    @staticmethod
    def of(graph: Graph) -> Network:
        readers: dict[Value, list[OpNode]] = {}
        for node in graph.op_nodes():
            for value in flowing(node):
                readers.setdefault(value, []).append(node)
        found = costs(graph)
        sums = {
            name: known_sum(figure_of(node, cost, name) for node, cost in found.items())
            for name in COSTS
        }
        totals = {name: sum if isinstance(sum, int) else None for name, sum in sums.items()}
        return Network(graph, found, readers, totals)


def wire(network: Network, parts: Sequence[Part], cost: str, prefix: str = "") -> Wiring:
    """The parts with what they read and what reads them; of a network in parts, its inputs and
    outputs, of a block, its neighbours. `prefix` is left out of names."""
    if cost not in COSTS:
        raise InputError(f"no cost is called {cost}; there are {', '.join(COSTS)}")
    return _Wirer(network, parts, cost, prefix).wiring()


class _Wirer:
    def __init__(self, network: Network, parts: Sequence[Part], cost: str, prefix: str) -> None:
        self.network, self.graph, self.parts = network, network.graph, parts
        self.cost, self.prefix = cost, prefix
        self.home = {node: number for number, part in enumerate(parts) for node in part.nodes}
        self.is_block = len(self.home) < len(network.costs)
        self.readers: dict[Value, dict[int, None]] = {}  # items that read a value
        self.outside: dict[Value, list[str]] = {}  # names of others that do

    def wiring(self) -> Wiring:
        for node, number in self.home.items():
            for value in flowing(node):
                self.readers.setdefault(value, {})[number] = None
            for value in node.outputs:
                others = [n.name for n in self.network.readers.get(value, ()) if n not in self.home]
                if others:
                    self.outside[value] = others
        ends = self._ends()
        for number, (value, _) in enumerate(ends, start=len(self.parts)):
            self.readers.setdefault(value, {})[number] = None
        leaving = self._leaving()
        made = Wiring([self._box(p, tuple(leaving.get(n, ()))) for n, p in enumerate(self.parts)])
        made.items += [item for _, item in ends]
        source = {value: number for number, values in leaving.items() for value in values}
        for value, item in self._starts().items():
            source[value] = len(made.items)
            made.items.append(item)
        made.wires += [
            (source[value], value, number)
            for value, readers in self.readers.items()
            for number in readers
            if value in source and source[value] != number
        ]
        return made

    def _leaving(self) -> dict[int, list[Value]]:
        """What each part puts out for other items."""
        found: dict[int, list[Value]] = {}
        for value, readers in self.readers.items():
            number = self.home.get(value.node) if isinstance(value.node, OpNode) else None
            if number is not None and any(reader != number for reader in readers):
                found.setdefault(number, []).append(value)
        return {
            number: sorted(values, key=lambda v: (v.node.id, v.index))
            for number, values in found.items()
        }

    def _starts(self) -> dict[Value, Item]:
        """What comes from elsewhere: inputs of the network, or of the block."""
        found: dict[Value, Item] = {}
        inputs = {} if self.is_block else dict(self.graph.inputs)
        for value in [*inputs.values(), *self.readers]:
            if value not in found and value.node not in self.home:
                if isinstance(value.node, StateNode):
                    continue
                name = shortened(value.name, NAME_LETTERS)
                found[value] = Item((name,), f"{value.name}: {value.type}", PORT, leaves=(value,))
        return found

    def _ends(self) -> list[tuple[Value, Item]]:
        """What goes elsewhere: outputs, what replaces states, what others read of a block."""
        found: list[tuple[Value, Item]] = []
        for names in (self.graph.outputs, self.graph.updates):
            for name, value in names.items():
                if value.node in self.home or not self.is_block:
                    said = f"{name}: {value.type}"
                    found.append((value, Item((shortened(name, NAME_LETTERS),), said, PORT)))
        for value, names in self.outside.items():
            more = f", +{len(names) - 1}" if len(names) > 1 else ""
            name = f"to {shortened(names[0], NAME_LETTERS)}{more}"
            found.append((value, Item((name,), f"{value.name} to {', '.join(names)}", PORT)))
        return found

    def _box(self, part: Part, leaves: tuple[Value, ...]) -> Item:
        found = [(node, self.network.costs[node]) for node in part.nodes]
        figure = sum_or_gap([figure_of(node, cost, self.cost) for node, cost in found])
        figures = {
            "params": known_sum(cost.params for _, cost in found),
            "MACs": sum_or_gap([cost.macs for _, cost in found]),
            "flops": sum_or_gap([cost.flops for _, cost in found]),
        }
        shown = [f"{short(n)} {name}" for name, n in figures.items() if n and name != "flops"]
        if part.is_block:
            said = f"{len(part.nodes)} operators"
            tooltip = [part.name, said]
            kind = BLOCK
        else:
            (node,) = part.nodes
            look = self.network.look_of(node)
            said, kind = look.said, look.kind
            types = ", ".join(f"{v.name}: {v.type}" for v in node.outputs)
            tooltip = [node.name, look.whole, types]
            # without the folders: pictures are given away
            tooltip += [node.span.location.rpartition("/")[2]] if node.span else []
        tooltip += [f"{name}: {figure_text(n)}" for name, n in figures.items() if n]
        name = name_within(part.name, self.prefix)
        called = re.sub(r"_\d+$", "", name.rpartition(".")[2])
        told = () if called == said and not shown else (said,)
        lines = (shortened(name, NAME_LETTERS), *told, *([", ".join(shown)] if shown else []))
        cost = figure if isinstance(figure, int) else None
        return Item(lines, "\n".join(tooltip), kind, cost, part, leaves)


def _look(node: OpNode) -> _Look:
    window = window_text(sizes_of(node, "kernel"), sizes_of(node, "stride"))
    attributes = "".join(f" {k}={v}" for k, v in stated_attributes(node).items())
    kind = KINDS[_class_of(arithmetic_of(node.call))]
    return _Look(f"{node.op.name} {window}".rstrip(), f"{node.op.name}{attributes}", kind)


def _class_of(arithmetic: TensorExpr) -> OpClass:
    """As `ir.classify` has it; what hands on elements as they are, a flatten of single positions
    among them, moves data to a reader's eye."""
    if all(isinstance(stage.body, Read) for stage in arithmetic.stages):
        return OpClass.MOVEMENT
    return classify(arithmetic)


def figure_of(node: OpNode, cost: Cost, name: str) -> Figure:
    """One figure of an operator, by its name in COSTS."""
    if name == "bytes":
        return known_sum(value.type.bytes for value in node.outputs)
    return getattr(cost, name)


def short(value: Dim) -> str:
    """`25.6 M`; polynomials whole, `2,850,816*N`."""
    return short_number(value) if isinstance(value, int) else figure_text(value)
