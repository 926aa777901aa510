"""Layouts: nothing overlaps, no edge crosses a box, and positions are the best there are."""

from __future__ import annotations

from itertools import combinations, pairwise
from random import Random

import numpy as np
import pytest
from scipy.optimize import linprog

from convdsl.drawing.layout import Box, Edge, Layout, in_order, layered, median

GAP, RISE = 24.0, 34.0


def drawn(seed: int) -> tuple[list[Box], list[Edge]]:
    """A graph without circles: sparse or dense, with and without chains, several components."""
    random = Random(seed)
    count = random.choice([1, 2, 5, 12, 40, 90])
    boxes = [Box(random.uniform(20, 200), random.uniform(15, 70)) for _ in range(count)]
    pairs = [(a, b) for a, b in combinations(range(count), 2) if b - a < random.choice([2, 6, 90])]
    chosen = random.sample(pairs, min(len(pairs), random.randrange(1 + 2 * count)))
    edges = [Edge(a, b, random.uniform(-0.4, 0.4) * boxes[a].across) for a, b in chosen]
    order = list(range(count))
    random.shuffle(order)  # numbers say nothing of the order
    boxes_by_place = [boxes[order.index(n)] for n in range(count)]
    return boxes_by_place, [Edge(order[e.tail], order[e.head], e.exit) for e in edges]


def rectangle(box: Box, x: float, y: float) -> tuple[float, float, float, float]:
    return x - box.across / 2, y, x + box.across / 2, y + box.along


def curve(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A route as it is drawn, in small steps: straight in ranks, curved between them."""
    found = [points[0]]
    for number, (a, b) in enumerate(pairwise(points)):
        middle = (a[1] + b[1]) / 2
        for t in np.linspace(0, 1, 25)[1:]:
            if number % 2 == 0:
                found.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])))
                continue
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            corners = (a, (a[0], middle), (b[0], middle), b)
            found.append(
                tuple(sum(w * c[i] for w, c in zip(weights, corners, strict=True)) for i in (0, 1))
            )
    return found


@pytest.mark.dear
@pytest.mark.parametrize("seed", range(60))
def test_nothing_overlaps_and_no_edge_crosses_a_box(seed: int) -> None:
    boxes, edges = drawn(seed)
    found = layered(boxes, edges, gap=GAP, rise=RISE)
    places = list(map(rectangle, boxes, found.across, found.along))
    for a, b in combinations(places, 2):
        apart = max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])
        assert apart >= GAP - 1e-6, (a, b)
    for edge, route in zip(edges, found.routes, strict=True):
        points = list(route)
        tail, head = places[edge.tail], places[edge.head]
        assert points[0] == pytest.approx((found.across[edge.tail] + edge.exit, tail[3]))
        assert points[-1][1] == head[1]
        assert head[0] <= points[-1][0] <= head[2]
        assert all(a[1] <= b[1] for a, b in pairwise(points))
        for x, y in curve(points):
            for number, (left, top, right, bottom) in enumerate(places):
                inside = left + 0.1 < x < right - 0.1 and top + 0.1 < y < bottom - 0.1
                assert not inside, (edge, number)
    assert all(p[0] + 1e-9 >= 0 and p[2] <= found.width + 1e-9 for p in places)
    assert all(p[1] >= 0 and p[3] <= found.length + 1e-9 for p in places)


def test_a_chain_is_straight_beside_a_shortcut() -> None:
    boxes = [Box(80, 30)] * 6
    edges = [Edge(n, n + 1) for n in range(5)] + [Edge(0, 4)]
    found = layered(boxes, edges)
    assert len(set(found.across)) == 1
    shortcut = found.routes[-1]
    assert abs(shortcut[3][0] - found.across[2]) > 40


def test_branches_stand_evenly_around_their_fork() -> None:
    boxes = [Box(50, 20)] * 6
    edges = [Edge(0, n) for n in (1, 2, 3, 4)] + [Edge(n, 5) for n in (1, 2, 3, 4)]
    found = layered(boxes, edges)
    assert found.across[0] == found.across[5] == pytest.approx(np.mean(found.across[1:5]))


def test_crossings_that_can_be_avoided_are() -> None:
    """Two chains whose boxes are numbered crosswise."""
    edges = [Edge(0, 3), Edge(1, 2), Edge(3, 4), Edge(2, 5)]
    found = layered([Box(40, 20)] * 6, edges)
    signs = {found.across[a] < found.across[b] for a, b in ((0, 1), (3, 2), (4, 5))}
    assert len(signs) == 1


def test_edges_that_leave_side_by_side_do_not_cross() -> None:
    """The left one is long, the right one leads to the next box."""
    edges = [Edge(0, 1, 20.0), Edge(1, 2), Edge(0, 2, -20.0)]
    found = layered([Box(80, 20)] * 3, edges)
    assert found.routes[2][3][0] < found.across[1]


def test_circles_are_refused() -> None:
    with pytest.raises(ValueError, match="circle"):
        layered([Box(1, 1)] * 3, [Edge(0, 1), Edge(1, 2), Edge(2, 1)])


def test_nothing_is_a_layout() -> None:
    assert layered([], []) == Layout((), (), (), 0.0, 0.0)


@pytest.mark.parametrize("seed", range(40))
def test_numbers_in_order_are_the_nearest_there_are(seed: int) -> None:
    """The least sum of weighted distances, as linear programming finds it."""
    random = Random(seed)
    count = random.choice([1, 2, 3, 7, 20])
    kinds = [lambda: random.uniform(-50, 50), lambda: float(random.randrange(4))]
    value = random.choice(kinds)
    wanted = [(value(), float(random.choice([1, 1, 2, 8]))) for _ in range(count)]
    found = in_order(wanted)
    assert all(a <= b for a, b in pairwise(found))
    weights, goals = np.array([w for _, w in wanted]), np.array([v for v, _ in wanted])
    eye = np.eye(count)
    bounds = [np.hstack([eye, -eye]), np.hstack([-eye, -eye])]  # |x - d| <= t
    rising = np.hstack([eye[:-1] - eye[1:], np.zeros((count - 1, count))])
    best = linprog(
        np.concatenate([np.zeros(count), weights]),
        np.vstack([*bounds, rising]),
        np.concatenate([goals, -goals, np.zeros(count - 1)]),
        bounds=[(None, None)] * (2 * count),
    )
    assert weights @ np.abs(np.array(found) - goals) == pytest.approx(best.fun, abs=1e-7)


def test_medians() -> None:
    assert median([(3.0, 1.0)]) == 3.0
    assert median([(5.0, 1.0), (1.0, 1.0)]) == 3.0
    assert median([(5.0, 8.0), (1.0, 1.0), (9.0, 1.0)]) == 5.0
