"""A graph in parts: operators summed up by the blocks that their names tell of.

Parts never wait for each other, so that they can be drawn from the first to the last: a block that
a path leaves and enters again is opened, name by name, until that is so.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from convdsl.ir.graph import OpNode, StateNode, Value

MOST = 60
"""Parts of a drawing that is not asked to have more: what a page holds legibly."""

SECTION = 24
"""Parts in a section of what has too many without names to sum them up by."""

TO = " .. "
"""Between the ends of a section's name."""


@dataclass(frozen=True, slots=True)
class Part:
    """Operators that are drawn as one box, in order of the graph."""

    name: str
    nodes: tuple[OpNode, ...]

    @property
    def is_block(self) -> bool:
        return len(self.nodes) > 1


def parts_at(nodes: Sequence[OpNode], depth: int) -> list[Part]:
    """Parts by `depth` leading names, in an order in which they can run."""
    open_ones: set[str] = set()
    while True:
        home = {node: _home(node, depth, open_ones) for node in nodes}
        members: dict[str, list[OpNode]] = {}
        for node, name in home.items():
            members.setdefault(name, []).append(node)
        order, stuck = _sorted(members, home)
        if not stuck:
            return [_part(name, members[name]) for name in order]
        open_ones.update(name for name in stuck if len(members[name]) > 1)


def parts_within(nodes: Sequence[OpNode], wanted: int = MOST) -> list[Part]:
    """Parts by as many leading names as stay within what is wanted, or by one, as long as these are
    at most `MOST`; else, or where names tell of no blocks, sections of what follows each other."""
    deepest = max((node.name.count(".") + 1 for node in nodes), default=1)
    found: list[Part] = []
    for depth in range(1, deepest + 1):
        parts = parts_at(nodes, depth)
        if len(parts) > wanted and len(found) > 1:
            return found
        if len(parts) > max(wanted, MOST):
            return _sections(parts, wanted)
        found = parts
    return found


def opened(part: Part, most: int = MOST) -> list[Part]:
    """What is inside of a block: one name further than what its operators share; of one operator,
    itself."""
    shared = 0
    for names in zip(*(node.name.split(".") for node in part.nodes), strict=False):
        if len(set(names)) > 1:
            break
        shared += 1
    parts = parts_at(part.nodes, shared + 1)
    while len(parts) == 1 < len(part.nodes):  # `a` beside `a.b`
        shared += 1
        parts = parts_at(part.nodes, shared + 1)
    return _sections(parts, most) if len(parts) > most else parts


def prefix(name: str, depth: int) -> str:
    """The leading names of a path."""
    return ".".join(name.split(".")[:depth])


def flowing(node: OpNode) -> list[Value]:
    """What flows into an operator: its operands but for weights, each once."""
    values = dict.fromkeys(node.inputs.values())
    return [value for value in values if not isinstance(value.node, StateNode)]


def _home(node: OpNode, depth: int, opened: Collection[str]) -> str:
    """The name of the part that a node is in: deeper where blocks had to be opened."""
    name = prefix(node.name, depth)
    while name in opened and name != node.name:
        name = prefix(node.name, name.count(".") + 2)
    return name


def _part(name: str, nodes: Sequence[OpNode]) -> Part:
    return Part(nodes[0].name if len(nodes) == 1 else name, tuple(nodes))


def _sorted(
    members: Mapping[str, Sequence[OpNode]], home: Mapping[OpNode, str]
) -> tuple[list[str], list[str]]:
    """Parts in an order in which they can run, the one that begins first among equals; and those
    that lie on circles, or between two."""
    after, before = _links(members, home)
    first = {name: nodes[0].id for name, nodes in members.items()}
    order = _peeled(after, before, first)
    if len(order) == len(members):
        return order, []
    done = {*order, *_peeled(before, after, first)}
    return order, [name for name in members if name not in done]


def _links(
    members: Mapping[str, Sequence[OpNode]], home: Mapping[OpNode, str]
) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    after: dict[str, set[str]] = {name: set() for name in members}
    before: dict[str, set[str]] = {name: set() for name in members}
    for node, name in home.items():
        for value in node.inputs.values():
            maker = value.node
            other = home.get(maker) if isinstance(maker, OpNode) else None
            if other is not None and other != name:
                after[other].add(name)
                before[name].add(other)
    return after, before


def _peeled(
    after: Mapping[str, set[str]], before: Mapping[str, set[str]], first: Mapping[str, int]
) -> list[str]:
    waiting = {name: len(others) for name, others in before.items()}
    ready = [(first[name], name) for name, count in waiting.items() if not count]
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        _, name = heapq.heappop(ready)
        order.append(name)
        for other in after[name]:
            waiting[other] -= 1
            if not waiting[other]:
                heapq.heappush(ready, (first[other], other))
    return order


def _sections(parts: Sequence[Part], most: int) -> list[Part]:
    """Parts that follow each other, together: cut where the fewest values pass, about evenly."""
    count = min(most, max(2, -(-len(parts) // SECTION)))
    step = len(parts) / count
    passing = _passing(parts)
    cuts = [0]
    for number in range(1, count):
        middle, reach = round(number * step), int(step // 4)
        near = range(max(middle - reach, cuts[-1] + 1), middle + reach + 1)
        cuts.append(min(near, key=lambda at: (passing[at], abs(at - middle))))
    cuts.append(len(parts))
    return [_section(parts[a:b]) for a, b in itertools.pairwise(cuts)]


def _section(parts: Sequence[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    nodes = tuple(node for part in parts for node in part.nodes)
    return Part(f"{parts[0].name}{TO}{parts[-1].name}", nodes)


def name_within(name: str, prefix: str) -> str:
    """What a part is called inside of a block; both ends of a section are inside of it."""
    return TO.join(end.removeprefix(prefix) for end in name.split(TO))


def _passing(parts: Sequence[Part]) -> list[int]:
    """How many values are made before each part and read in it or after it."""
    place = {node: number for number, part in enumerate(parts) for node in part.nodes}
    last: dict[Value, int] = {}
    for node, number in place.items():
        for value in node.inputs.values():
            if isinstance(value.node, OpNode) and value.node in place:
                last[value] = max(last.get(value, 0), number)
    changes = [0] * (len(parts) + 1)
    for value, end in last.items():
        assert isinstance(value.node, OpNode)
        changes[place[value.node] + 1] += 1
        changes[end + 1] -= 1
    counts, alive = list[int](), 0
    for change in changes[: len(parts)]:
        alive += change
        counts.append(alive)
    return counts
