"""A graph as HTML: drawn with its blocks closed, each of which opens below as `details`.

A box links to its block, which browsers open by themselves: nothing here needs scripts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from convdsl.analysis.cost import known_sum
from convdsl.drawing.svg import text_of
from convdsl.pictures.blocks import Part, name_within, opened, parts_within
from convdsl.pictures.network import canvas
from convdsl.pictures.wiring import Network, short

MOST_BOXES = 16
"""Boxes of the first drawing: what a screen or two hold. The others are inside of blocks."""


@dataclass
class GraphDrawing:
    """The graph and its blocks. place: what the names of their places begin with, which no other
    drawing of a page shares. room: as many boxes as all blocks together may have; outer ones come
    first, and those for which there is no room stay closed. None: all open."""

    network: Network
    place: str = "block"
    room: int | None = None
    _inside: Mapping[Part, Sequence[Part]] = field(default_factory=dict[Part, list[Part]])
    _places: int = 0

    def lines(self) -> Iterator[str]:
        parts = parts_within(self.network.graph.op_nodes(), MOST_BOXES)
        self._inside = self._opened(parts)
        links, inside = self._blocks(parts, "")
        drawn = canvas(self.network, parts, links=links)
        yield f'<div class="graph"><figure class="drawing">{drawn.inline("graph")}</figure>'
        if inside:
            yield '<div class="blocks"><p class="small">Blocks, to be opened:</p>'
            yield from inside
            yield "</div>"
        yield "</div>"

    def _opened(self, parts: Sequence[Part]) -> dict[Part, list[Part]]:
        """What is inside of the blocks that there is room for."""
        found: dict[Part, list[Part]] = {}
        waiting, room = deque(part for part in parts if part.is_block), self.room
        while waiting:
            part = waiting.popleft()
            inner = opened(part)
            if room is not None:
                room -= len(inner)
                if room < 0:
                    break
            found[part] = inner
            waiting.extend(part for part in inner if part.is_block)
        return found

    def _blocks(self, parts: Sequence[Part], prefix: str) -> tuple[dict[str, str], list[str]]:
        """Where the boxes of blocks lead, and the blocks opened."""
        links: dict[str, str] = {}
        made: list[str] = []
        for part in parts:
            if part in self._inside:
                self._places += 1
                place = f"{self.place}{self._places}"
                links[part.name] = f"#{place}"
                made += self._block(part, place, prefix)
        return links, made

    def _block(self, part: Part, place: str, prefix: str) -> list[str]:
        inner = self._inside[part]
        within = f"{part.name}." if all(_is_in(p, part) for p in inner) else prefix
        links, inside = self._blocks(inner, within)
        drawn = canvas(self.network, inner, prefix=within, links=links, legend=False)
        name = text_of(name_within(part.name, prefix))
        about = f"<b>{name}</b> <span class='small'>{text_of(self._said(part))}</span>"
        return [
            f"<details><summary>{about}</summary><div id='{place}'>",
            f'<figure class="drawing">{drawn.inline(part.name)}</figure>',
            *inside,
            "</div></details>",
        ]

    def _said(self, part: Part) -> str:
        figures = [self.network.costs[node] for node in part.nodes]
        said = [f"{len(part.nodes)} operators"]
        params = known_sum(cost.params for cost in figures)
        macs = known_sum(cost.macs for cost in figures)
        said += [f"{short(params)} params"] if params else []
        said += [f"{short(macs)} MACs"] if macs else []
        return ", ".join(said)


def _is_in(inner: Part, block: Part) -> bool:
    return inner.name.startswith(f"{block.name}.")
