"""The kernels that a graph runs as: fusion groups, and operators outside any.

A group runs as one, so an order of groups must exist in which each finds what it reads: the
groups are convex, no path leads out of one and back into it.
"""

from __future__ import annotations

import heapq
from itertools import pairwise

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.timing import Timing, bound_nodes


class CircularGroups(AssertionError):
    """Groups that wait for each other: a bug of whoever formed them."""


def kernels_of(graph: Graph, timing: Timing | None = None) -> list[list[OpNode]]:
    """Run-time operators by kernel, each kernel's in order; kernels in an order in which they can
    run: of those that can, first those that only replace states, as what they read need not be
    kept then, and among equals the one that is complete first.

    Sums over ranks begin as early as they can, in one order, whatever their sizes are on a rank;
    who reads them comes when nothing else is left to do meanwhile. `timing`: of the graph, where it
    was asked before."""
    bound = bound_nodes(graph, timing)
    nodes = [node for node in graph.op_nodes() if node.id not in bound]
    place = {node.id: number for number, node in enumerate(nodes)}
    members: dict[tuple[bool, int], list[OpNode]] = {}
    for node in nodes:
        key = (False, node.id) if node.group is None else (True, node.group)
        members.setdefault(key, []).append(node)
    kernels = list(members.values())
    home = {node.id: number for number, kernel in enumerate(kernels) for node in kernel}
    needs = [
        {home[v.node.id] for node in kernel for v in node.inputs.values() if v.node.id in home}
        - {number}
        for number, kernel in enumerate(kernels)
    ]
    sums = [number for number, kernel in enumerate(kernels) if kernel[0].op.exchanges]
    sums.sort(key=lambda number: _turn(kernels[number][0]))
    waits = {n for n, needed in enumerate(needs) if not needed.isdisjoint(sums)} - set(sums)
    for earlier, later in pairwise(sums):
        needs[later].add(earlier)
    readers: list[list[int]] = [[] for _ in kernels]
    for number, needed in enumerate(needs):
        for other in needed:
            readers[other].append(number)
    waiting = [len(needed) for needed in needs]
    updates = set(graph.updates.values())
    urgent = [0 if k[0].op.exchanges else 2 if n in waits else 1 for n, k in enumerate(kernels)]
    turn = [
        (urgent[n], not updates or not updates.issuperset(leaving(graph, k)), place[k[-1].id])
        for n, k in enumerate(kernels)
    ]
    ready = [(*turn[number], number) for number in range(len(kernels)) if not waiting[number]]
    heapq.heapify(ready)
    order: list[list[OpNode]] = []
    while ready:
        *_, number = heapq.heappop(ready)
        order.append(kernels[number])
        for reader in readers[number]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, (*turn[reader], reader))
    if len(order) < len(kernels):
        names = ", ".join(k[0].name for k, left in zip(kernels, waiting, strict=True) if left)
        raise CircularGroups(f"groups wait for each other: {names}")
    return order


def _turn(node: OpNode) -> tuple[int, int]:
    """Where a sum over ranks stands among others."""
    return node.attributes["turn"] or node.id, node.id


def leaving(graph: Graph, kernel: list[OpNode]) -> list[Value]:
    """The values of a kernel that others read or that a call leaves behind."""
    inside = {node.id for node in kernel}
    values = (value for node in kernel for value in node.outputs)
    return [
        value
        for value in values
        if graph.is_result(value) or any(user.id not in inside for user, _ in graph.users(value))
    ]
