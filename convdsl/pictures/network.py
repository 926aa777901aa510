"""A network as a drawing: layered, blocks as one box, shapes beside what carries them.

Widths tell costs: the bar of a box is its share of the dearest one's, an edge is as thick as the
root of its bytes among the largest.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from convdsl.analysis.report import shape_text
from convdsl.diagnostics import InputError
from convdsl.drawing.layout import Box, Edge, layered
from convdsl.drawing.svg import Canvas, element, number, text, text_of, text_width
from convdsl.ir.graph import Value
from convdsl.pictures.blocks import Part
from convdsl.pictures.wiring import Item, Network, Wiring, short, wire

DIRECTIONS = ("down", "right")

MARGIN = 16.0
PADDING = 9.0
SIZES = (12.5, 11.0, 10.5)
"""Of the letters of a box's lines."""

LINE = 15.0
LABEL = 10.5
BAR = 5.0
THIN, THICK = 1.2, 5.5
"""Edges from nothing to the largest value of the drawing."""

NARROWEST = 420.0
"""Room for the legend, however narrow the network."""

ROW = 18.0
"""Of the legend."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """A box, its labels, and where values leave it, beside its middle."""

    width: float
    height: float
    exits: tuple[float, ...]
    labels: tuple[str, ...]
    room: float  # of labels, beyond the box, along edges
    across: float  # box and labels


def canvas(
    network: Network,
    parts: Sequence[Part],
    *,
    cost: str = "macs",
    direction: str = "down",
    prefix: str = "",
    heading: str = "",
    links: Mapping[str, str] | None = None,
    legend: bool = True,
) -> Canvas:
    """The drawing of some parts of a network. `links`: where the name of a part leads."""
    if direction not in DIRECTIONS:
        raise InputError(f"no direction {direction}: there are {', '.join(DIRECTIONS)}")
    drawn = _Drawer(wire(network, parts, cost, prefix), direction == "right", links or {})
    return drawn.drawing(heading, cost, network.totals[cost], legend)


class _Drawer:
    def __init__(self, wiring: Wiring, sideways: bool, links: Mapping[str, str]) -> None:
        self.wiring, self.sideways, self.links = wiring, sideways, links
        self.shapes = [self._shape(item) for item in wiring.items]
        self.dearest = max((item.cost or 0 for item in wiring.items), default=0)
        carried = [_bytes(value) for _, value, _ in wiring.wires]
        self.largest = max(carried, default=0)

    def drawing(self, heading: str, cost: str, total: int | None, legend: bool) -> Canvas:
        edges = [
            Edge(tail, head, self.shapes[tail].exits[self.wiring.items[tail].leaves.index(value)])
            for tail, value, head in self.wiring.wires
        ]
        found = layered([self._box(s) for s in self.shapes], edges, rise=30.0)
        top = MARGIN + (26.0 if heading else 0.0)
        places = zip(self.wiring.items, self.shapes, found.across, found.along, strict=True)
        shown = [self._item(item, shape, x, y, total) for item, shape, x, y in places]
        shown += [
            self._edge(value, route, found.along[tail] + self._depth(tail), found.along[head])
            for (tail, value, head), route in zip(self.wiring.wires, found.routes, strict=True)
        ]
        width, height = found.width, found.length
        if self.sideways:
            width, height = height, width
        head = text_width(heading, 14)
        most = max(width, head, NARROWEST)
        keys, rows = self._legend(cost, most) if legend else ("", 0)
        left = MARGIN + (most - width) / 2
        body = element("g", "".join(shown), transform=f"translate({number(left)} {number(top)})")
        body += text(heading, MARGIN, MARGIN + 10, size=14, weight="bold") if heading else ""
        below = top + height + 24.0
        body += element("g", keys, transform=f"translate({number(MARGIN)} {number(below)})")
        return Canvas(body, most + 2 * MARGIN, below + ROW * max(rows - 1, 0) + MARGIN)

    def _shape(self, item: Item) -> _Shape:
        letters = zip(item.lines, SIZES, strict=False)
        width = max(text_width(line, size) for line, size in letters) + 2 * PADDING
        height = LINE * len(item.lines) + 2 * PADDING - 4 + (BAR if item.cost else 0.0)
        labels = tuple(shape_text(value.type) for value in item.leaves)
        rooms = [text_width(label, LABEL) + 12 for label in labels]
        if self.sideways:
            slot = LABEL + 8
            height = max(height, slot * len(labels))
            exits = tuple(slot * (i - (len(labels) - 1) / 2) for i in range(len(labels)))
            return _Shape(width, height, exits, labels, max(rooms, default=0.0), height)
        if len(labels) == 1:
            across = max(width, 2 * rooms[0])
            return _Shape(width, height, (0.0,), labels, LABEL + 5, across)
        exits, at = list[float](), -sum(rooms) / 2
        for room in rooms:
            exits.append(at + 4)
            at += room
        width = max(width, sum(rooms)) if labels else width
        return _Shape(width, height, tuple(exits), labels, LABEL + 5 if labels else 0.0, width)

    def _box(self, shape: _Shape) -> Box:
        along = shape.width if self.sideways else shape.height
        return Box(shape.across, along + shape.room)

    def _depth(self, number: int) -> float:
        """How far a box goes along edges; labels stand beside them, after it."""
        shape = self.shapes[number]
        return shape.width if self.sideways else shape.height

    def _at(self, across: float, along: float) -> tuple[float, float]:
        return (along, across) if self.sideways else (across, along)

    def _edge(
        self, value: Value, route: Sequence[tuple[float, float]], start: float, end: float
    ) -> str:
        """Straight through ranks, curved between them, a head at the end."""
        share = sqrt(_bytes(value) / self.largest) if self.largest else 0.0
        thick = THIN + (THICK - THIN) * share
        size = 5.0 + thick
        last = (route[-1][0], end - size + 1)
        points = [(route[0][0], start), *route[1:-1], last]
        steps = [f"M{self._point(*points[0])}"]
        for step, (here, there) in enumerate(itertools.pairwise(points)):
            if step % 2 == 0 or abs(here[0] - there[0]) < 0.05:
                steps.append(f"L{self._point(*there)}")
                continue
            middle = (here[1] + there[1]) / 2
            bends = (self._point(here[0], middle), self._point(there[0], middle))
            steps.append(f"C{bends[0]} {bends[1]} {self._point(*there)}")
        tip = self._point(last[0], end)
        wings = [self._point(last[0] + side * size / 2, end - size) for side in (-1, 1)]
        line = element(
            "path", d="".join(steps), class_="edge", fill="none", stroke_width=round(thick, 2)
        )
        return line + element("path", d=f"M{tip}L{wings[0]}L{wings[1]}Z", class_="head")

    def _point(self, across: float, along: float) -> str:
        x, y = self._at(across, along)
        return f"{number(x)} {number(y)}"

    def _item(
        self, item: Item, shape: _Shape, across: float, along: float, total: int | None
    ) -> str:
        middle = across
        if self.sideways:
            left, top = along, middle - shape.height / 2
        else:
            left, top = middle - shape.width / 2, along
        port = item.part is None
        block = item.part is not None and item.part.is_block
        inner = [element("title", text_of(item.tooltip))]
        inner += [  # a block has sheets behind its box
            element(
                "rect",
                x=left + shift,
                y=top - shift,
                width=shape.width,
                height=shape.height,
                rx=shape.height / 2 if port else 5.0,
                class_=item.kind[0],
            )
            for shift in ((5.0, 2.5, 0.0) if block else (0.0,))
        ]
        inner += self._lines(item, shape, left, top)
        inner += self._bar(item, shape, left, top, total)
        inner += self._labels(shape, left, top, middle)
        name = item.part.name if item.part else ""
        drawn = element("g", "".join(inner))
        return element("a", drawn, href=self.links[name]) if name in self.links else drawn

    def _lines(self, item: Item, shape: _Shape, left: float, top: float) -> list[str]:
        rows = len(item.lines) * LINE + (BAR if item.cost else 0.0)
        first = top + (shape.height - rows) / 2 + 11.5
        return [
            text(
                line,
                left + shape.width / 2,
                first + LINE * row,
                size=SIZES[row],
                anchor="middle",
                class_="ink" if row < 2 else "faint",
                weight="bold" if row == 0 else None,
            )
            for row, line in enumerate(item.lines)
        ]

    def _bar(
        self, item: Item, shape: _Shape, left: float, top: float, total: int | None
    ) -> list[str]:
        """The share of the dearest box's cost, at the foot of the box."""
        if not item.cost or not self.dearest:
            return []
        full = shape.width - 2 * PADDING
        width = max(full * item.cost / self.dearest, 1.0)
        said = f"{item.cost:,}"
        said += f", {100 * item.cost / total:.1f} % of the network" if total else ""
        y = top + shape.height - BAR - 4
        bar = element(
            "rect",
            element("title", said),
            x=left + PADDING,
            y=y,
            width=width,
            height=BAR,
            rx=1.5,
            class_="bar",
        )
        return [bar]

    def _labels(self, shape: _Shape, left: float, top: float, middle: float) -> list[str]:
        if self.sideways:
            x = left + shape.width + 8
            places = [(x, middle + exit - 6) for exit in shape.exits]
        else:
            y = top + shape.height + LABEL + 1
            places = [(middle + exit + 6, y) for exit in shape.exits]
        return [
            text(label, x, y, size=LABEL, class_="faint")
            for label, (x, y) in zip(shape.labels, places, strict=True)
        ]

    def _legend(self, cost: str, room: float) -> tuple[str, int]:
        """The surfaces that are there, what bars and widths mean; and in how many rows."""
        entries = [
            (element("rect", y=-9, width=11, height=11, rx=2, class_=surface), 16.0, said)
            for surface, said in dict.fromkeys(item.kind for item in self.wiring.items)
        ]
        if self.dearest:
            bar = element("rect", y=-6, width=18, height=BAR, class_="bar")
            entries.append((bar, 24.0, f"{cost}, the most {short(self.dearest)}"))
        if self.largest:
            line = element("path", d="M0 -3h18", class_="edge", stroke_width=THICK)
            entries.append((line, 24.0, f"bytes, the most {short(self.largest)}"))
        parts, left, row = list[str](), 0.0, 0
        for key, indent, said in entries:
            wide = indent + text_width(said, LABEL)
            if left and left + wide > room:
                left, row = 0.0, row + 1
            label = text(said, indent, 0, size=LABEL, class_="faint")
            parts.append(
                element(
                    "g", key + label, transform=f"translate({number(left)} {number(ROW * row)})"
                )
            )
            left += wide + 18
        return "".join(parts), row + 1


def _bytes(value: Value) -> int:
    size = value.type.bytes
    return size if isinstance(size, int) else 0
