"""Layered layouts of acyclic graphs: boxes in ranks, edges from one rank to the next.

Gansner, Koutsofios, North, Vo 1993, "A Technique for Drawing Directed Graphs", in four steps:

    rank       the longest path from a source; sources stand right above their first user
    order      within ranks, by weighted medians up and down; the order with fewest crossings stays
    position   for each rank, up and down, the least of

                   sum_i w_i |x_i - d_i|    with  x_{i+1} - x_i >= (b_i + b_{i+1}) / 2 + gap

               where d_i is the weighted median of the neighbours: a regression in order, whose
               solution are medians of pools of violators, exact
    edges      of several ranks pass through joints, which have places like boxes: no edge crosses
               a box

Lengths are in any unit: `across` is the direction in which a rank extends, `along` that of edges.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SWEEPS = 8
"""Up and down so often: later ones change little."""

JOINT = 10.0
"""How much room an edge takes across, where it passes a rank."""

STRAIGHT, WITHIN = 8.0, 4.0
"""How much more than the ends of a long edge it counts that a step to the next rank is straight,
and that the rest of a long edge is."""

STAYS = 1e6
"""More than all edges of a drawing together."""


@dataclass(frozen=True, slots=True)
class Box:
    """What is placed: its extents."""

    across: float
    along: float


@dataclass(frozen=True, slots=True)
class Edge:
    """From box `tail` to box `head`; it leaves `exit` beside the middle of the tail."""

    tail: int
    head: int
    exit: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Middles of boxes across, their beginnings along, and for each edge its points: pairs of
    across and along, two for each rank that it touches, where it enters and where it leaves."""

    across: tuple[float, ...]
    along: tuple[float, ...]
    routes: tuple[tuple[tuple[float, float], ...], ...]
    width: float
    length: float


def layered(
    boxes: Sequence[Box], edges: Sequence[Edge], *, gap: float = 24.0, rise: float = 34.0
) -> Layout:
    """Places for boxes, `gap` apart within a rank, ranks `rise` apart or more.

    Raises ValueError where edges form a circle.
    """
    if not boxes:
        return Layout((), (), (), 0.0, 0.0)
    ranks = _ranks(len(boxes), edges)
    net = _Net.of(boxes, edges, ranks)
    rows = _ordered(net)
    x = _positions(net, rows, gap)
    return _routed(net, rows, x, edges, rise)


def _ranks(count: int, edges: Sequence[Edge]) -> list[int]:
    users: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for edge in edges:
        users[edge.tail].append(edge.head)
        waiting[edge.head] += 1
    sources = [box for box in range(count) if not waiting[box]]
    rank, ready, done = [0] * count, list(sources), 0
    while ready:
        box = ready.pop()
        done += 1
        for user in users[box]:
            rank[user] = max(rank[user], rank[box] + 1)
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    if done < count:
        raise ValueError("edges form a circle")
    for box in sources:
        rank[box] = min((rank[user] for user in users[box]), default=1) - 1
    return rank


@dataclass(slots=True)
class _Net:
    """Boxes and joints, by number, joints last; links lead from one rank to the next."""

    boxes: list[Box]
    rank: list[int]
    above: list[list[tuple[int, float, float]]]  # neighbour, weight, where to be beside it
    below: list[list[tuple[int, float, float]]]
    joints: list[list[int]] = field(default_factory=list[list[int]])  # of each edge

    @staticmethod
    def of(boxes: Sequence[Box], edges: Sequence[Edge], ranks: Sequence[int]) -> _Net:
        net = _Net(list(boxes), list(ranks), [[] for _ in boxes], [[] for _ in boxes])
        for edge in edges:
            net.joints.append(net.lay(edge))
        return net

    def lay(self, edge: Edge) -> list[int]:
        """Joints of an edge, one for each rank that it passes."""
        made: list[int] = []
        first, last = self.rank[edge.tail], self.rank[edge.head]
        at, beside = edge.tail, edge.exit
        weight = STRAIGHT if last - first == 1 else 1.0
        for rank in range(first + 1, last):
            joint = len(self.boxes)
            self.boxes.append(Box(JOINT, 0.0))
            self.rank.append(rank)
            self.above.append([])
            self.below.append([])
            self.link(at, joint, WITHIN if made else weight, beside)
            made.append(joint)
            at, beside = joint, 0.0
        self.link(at, edge.head, weight, beside)
        return made

    def link(self, upper: int, lower: int, weight: float, beside: float) -> None:
        self.below[upper].append((lower, weight, -beside))
        self.above[lower].append((upper, weight, beside))


# Order


def _ordered(net: _Net) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(max(net.rank) + 1)]
    for item in _walked(net):
        rows[net.rank[item]].append(item)
    best, fewest = [list(row) for row in rows], _crossings(net, rows)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        downwards = sweep % 2 == 0
        near = net.above if downwards else net.below
        for row in rows[1:] if downwards else reversed(rows[:-1]):
            _sort(row, rows, near, net)
        found = _crossings(net, rows)
        if found < fewest:
            best, fewest = [list(row) for row in rows], found
    return best


def _walked(net: _Net) -> list[int]:
    """All items, each after what leads to it and as near to it as can be: depth first."""
    waiting = [len(above) for above in net.above]
    stack = [item for item in reversed(range(len(net.boxes))) if not waiting[item]]
    order: list[int] = []
    while stack:
        item = stack.pop()
        order.append(item)
        for lower, _, _ in reversed(net.below[item]):
            waiting[lower] -= 1
            if not waiting[lower]:
                stack.append(lower)
    return order


def _sort(
    row: list[int],
    rows: Sequence[Sequence[int]],
    near: Sequence[Sequence[tuple[int, float, float]]],
    net: _Net,
) -> None:
    """Items in the order of the mean places of their neighbours; who has none stays."""
    place = {
        item: number
        for rank in {net.rank[other] for item in row for other, _, _ in near[item]}
        for number, item in enumerate(rows[rank])
    }
    keys = {
        item: sum(place[other] + beside * 1e-6 for other, _, beside in near[item]) / len(near[item])
        for item in row
        if near[item]
    }
    sorted_items = iter(sorted(keys, key=keys.__getitem__))
    row[:] = [next(sorted_items) if item in keys else item for item in row]


def _crossings(net: _Net, rows: Sequence[Sequence[int]]) -> int:
    """How many pairs of links cross: inversions, counted in a tree of sums."""
    total = 0
    for upper, lower in itertools.pairwise(rows):
        place = {item: number for number, item in enumerate(lower)}
        ends = [
            place[other]
            for item in upper
            for other, _, _ in sorted(net.below[item], key=lambda link: (-link[2], place[link[0]]))
        ]
        sums = [0] * (len(lower) + 1)
        for seen, end in enumerate(ends):
            before, at = 0, end + 1
            while at:
                before += sums[at]
                at -= at & -at
            total += seen - before
            at = end + 1
            while at <= len(lower):
                sums[at] += 1
                at += at & -at
    return total


# Positions


def _positions(net: _Net, rows: Sequence[Sequence[int]], gap: float) -> list[float]:
    x = [0.0] * len(net.boxes)
    for sweep in range(SWEEPS + 1):
        downwards = sweep % 2 == 0
        near = net.above if downwards else net.below
        for row in rows if downwards else reversed(rows):
            _place(row, near, net, x, gap)
    boxes = len(net.boxes) - sum(map(len, net.joints))
    both = [  # boxes stay, edges between them become straight
        [(item, STAYS, 0.0)] if item < boxes else above + below
        for item, (above, below) in enumerate(zip(net.above, net.below, strict=True))
    ]
    for order in (reversed(rows), rows):
        for row in order:
            _place(row, both, net, x, gap)
    left = min(x[item] - box.across / 2 for item, box in enumerate(net.boxes))
    return [at - left for at in x]


def _place(
    row: Sequence[int],
    near: Sequence[Sequence[tuple[int, float, float]]],
    net: _Net,
    x: list[float],
    gap: float,
) -> None:
    """The best places of a rank's items, the other ranks as they are."""
    offset, wanted = 0.0, list[tuple[float, float]]()
    offsets: list[float] = []
    for number, item in enumerate(row):
        if number:
            before = net.boxes[row[number - 1]].across
            offset += (before + net.boxes[item].across) / 2 + gap
        offsets.append(offset)
        pulls = [(x[other] + beside, weight) for other, weight, beside in near[item]]
        goal = median(pulls) if pulls else x[item]
        # Boxes without neighbours on this side give way.
        wanted.append((goal - offset, sum(w for _, w in pulls) or 0.01))
    for item, at, offset in zip(row, in_order(wanted), offsets, strict=True):
        x[item] = at + offset


def median(weighted: Iterable[tuple[float, float]]) -> float:
    """The weighted median of (value, weight); the middle of the medians where there are several."""
    values = sorted(weighted)
    half = sum(weight for _, weight in values) / 2
    passed = 0.0
    for number, (value, weight) in enumerate(values):
        passed += weight
        if passed > half:
            return value
        if passed == half and number + 1 < len(values):
            return (value + values[number + 1][0]) / 2
    return values[-1][0]


def in_order(wanted: Sequence[tuple[float, float]]) -> list[float]:
    """Numbers that never fall, with the least sum of weighted distances from those wanted.

    Pools of neighbours whose medians fall are merged until none do (Barlow et al. 1972).
    """
    pools: list[tuple[float, list[tuple[float, float]]]] = []
    for item in wanted:
        pool = [item]
        level = item[0]
        while pools and pools[-1][0] > level:
            pool = pools.pop()[1] + pool
            level = median(pool)
        pools.append((level, pool))
    return [level for level, pool in pools for _ in pool]


# Routes


def _routed(
    net: _Net,
    rows: Sequence[Sequence[int]],
    x: Sequence[float],
    edges: Sequence[Edge],
    rise: float,
) -> Layout:
    entries = _entries(net, x, edges)
    tops, depths, at = list[float](), list[float](), 0.0
    for number, row in enumerate(rows):
        depth = max((net.boxes[item].along for item in row), default=0.0)
        tops.append(at)
        depths.append(depth)
        at += depth + _rise(net, rows, number, x, rise)
    routes: list[tuple[tuple[float, float], ...]] = []
    for number, edge in enumerate(edges):
        leaving, rank = x[edge.tail] + edge.exit, net.rank[edge.tail]
        start = tops[rank] + net.boxes[edge.tail].along
        points = [(leaving, start), (leaving, tops[rank] + depths[rank])]
        for joint in net.joints[number]:
            rank = net.rank[joint]
            points += [(x[joint], tops[rank]), (x[joint], tops[rank] + depths[rank])]
        points.append((entries[number], tops[net.rank[edge.head]]))
        routes.append(tuple(points))
    boxes = range(len(net.boxes) - sum(map(len, net.joints)))
    width = max(x[item] + box.across / 2 for item, box in enumerate(net.boxes))
    return Layout(
        tuple(x[box] for box in boxes),
        tuple(tops[net.rank[box]] for box in boxes),
        tuple(routes),
        width,
        tops[-1] + depths[-1],
    )


def _rise(
    net: _Net, rows: Sequence[Sequence[int]], number: int, x: Sequence[float], rise: float
) -> float:
    """The room below a rank: more where edges go far across."""
    if number + 1 == len(rows):
        return 0.0
    shifts = (abs(x[o] + b - x[i]) for i in rows[number + 1] for o, _, b in net.above[i])
    return max(rise, min(0.12 * max(shifts, default=0.0), 4 * rise))


def _entries(net: _Net, x: Sequence[float], edges: Sequence[Edge]) -> Mapping[int, float]:
    """Where each edge enters its head: evenly spread, in the order in which edges arrive."""
    arriving: dict[int, list[tuple[float, int]]] = {}
    for number, edge in enumerate(edges):
        joints = net.joints[number]
        comes_from = x[joints[-1]] if joints else x[edge.tail] + edge.exit
        arriving.setdefault(edge.head, []).append((comes_from, number))
    entries: dict[int, float] = {}
    for head, found in arriving.items():
        room = net.boxes[head].across
        if len(found) == 1:  # straight where it can be
            comes_from, number = found[0]
            reach = room / 2 - min(12.0, room / 4)
            entries[number] = min(max(comes_from, x[head] - reach), x[head] + reach)
            continue
        step = min(28.0, room / (len(found) + 1))
        for place, (_, number) in enumerate(sorted(found)):
            entries[number] = x[head] + (place - (len(found) - 1) / 2) * step
    return entries
