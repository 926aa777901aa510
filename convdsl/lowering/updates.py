"""New states into the place of the old ones.

    s <- s + 1               over the old value, by a kernel that reads where it writes
    s <- f(x)                there directly, where nothing reads the old value any more
    a <- b, b <- a           copied when all is done, one of them from a copy of its own

A new value that a kernel makes goes straight into the state's array if all readers of the old value
come before, and calls are put into an order where they do if there is one. All others are copied
when everything is done, in an order in which none is overwritten before it is read; where they
wait for each other in a circle, one is saved first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import heappop, heappush

from convdsl.ir.graph import Graph, Value
from convdsl.kernel.program import Port, is_large
from convdsl.lowering.calls import Key, NewState, OldState
from convdsl.lowering.sharing import Sharing
from convdsl.tensor.records import record


@record
class Copy:
    """What is copied when all is done, for the sake of a state; it has that state's type."""

    source: Value | OldState
    into: NewState | OldState
    state: str


def order_of(graph: Graph, sharing: Sharing) -> list[int]:
    """An order of the calls in which new states are made after the last reader of the old ones,
    where no reader waits for them; otherwise the order that they have. Over ranks those that only
    replace large states come together, when all else is done (kernel.joint)."""
    made: dict[Key, int] = {}
    writers: dict[Key, list[int]] = {}  # of each memory, any part of it
    readers: dict[Key, list[int]] = {}
    followers: list[set[int]] = [set() for _ in sharing.calls]
    summing: int | None = None  # the last sum over ranks: all ranks make them in one order
    for number, call in enumerate(sharing.calls):
        if call.exchanges:
            if summing is not None:
                followers[summing].add(number)
            summing = number
        for key in call.arguments:
            root, _ = sharing.root(key)
            if key in call.written:
                made[key] = number
                if key in call.updated:
                    for writer in writers.get(root, ()):
                        followers[writer].add(number)
                writers.setdefault(root, []).append(number)
                continue
            readers.setdefault(key, []).append(number)
            for writer in writers.get(root, ()):
                followers[writer].add(number)
    states = graph.states
    for key, value in graph.updates.items():
        maker = made.get(value)
        before = [n for n in readers.get(states[key].output, []) if n != maker]
        if maker is not None and not _reachable(maker, followers) & set(before):
            for number in before:
                followers[number].add(maker)
    return _in_turn(followers, set() if summing is None else _joint(graph, sharing))


def _joint(graph: Graph, sharing: Sharing) -> set[int]:
    """The calls that replace large states, and do nothing else."""
    states = graph.states
    large = {v for key, v in graph.updates.items() if is_large(Port(key, states[key].type))}
    return {n for n, call in enumerate(sharing.calls) if large.issuperset(call.written)}


def _reachable(start: int, followers: Sequence[set[int]]) -> set[int]:
    """What waits for a call."""
    found, pending = {start}, [start]
    while pending:
        new = followers[pending.pop()] - found
        found |= new
        pending += new
    return found


def _in_turn(followers: Sequence[set[int]], joint: Collection[int]) -> list[int]:
    """Calls as soon as nothing that they wait for is left, the first ones first; those that are
    `joint` when nothing else can be done, and then as many as can."""
    waiting = Counter(number for later in followers for number in later)
    ready: tuple[list[int], list[int]] = ([], [])
    for number in range(len(followers)):
        if not waiting[number]:
            ready[number in joint].append(number)  # in order: a heap
    order: list[int] = []
    kind = False
    while ready[False] or ready[True]:
        kind = kind if ready[kind] else not kind
        order.append(heappop(ready[kind]))
        for number in followers[order[-1]]:
            waiting[number] -= 1
            if not waiting[number]:
                heappush(ready[number in joint], number)
    return order


def replace_states(graph: Graph, sharing: Sharing) -> list[Copy]:
    """Let new values lie in their states' arrays where they can; the copies that must be made of
    the others, in order."""
    known = graph.states
    states = {key: known[key].output for key in graph.updates}
    made, last = _uses(sharing)
    direct: dict[Value, str] = {}
    copied: dict[str, Value] = {}
    for key, value in graph.updates.items():
        if value is states[key]:
            continue
        if value in made and value not in direct and sharing.is_own(value):
            direct[value] = key
        else:
            copied[key] = value
    for value, key in direct.items():
        old = states[key]
        if old in copied.values() or not _lies_in_state(sharing, old, value, last, made[value]):
            copied[key] = value
    return list(_in_order(copied, states))


def _uses(sharing: Sharing) -> tuple[dict[Key, int], dict[Key, int]]:
    """The call that writes each key, and the last one that reads it."""
    made: dict[Key, int] = {}
    last: dict[Key, int] = {}
    for number, call in enumerate(sharing.calls):
        for key in call.arguments:
            (made if key in call.written else last)[key] = number
    return made, last


def _lies_in_state(
    sharing: Sharing, old: Value, new: Value, last: Mapping[Key, int], maker: int
) -> bool:
    """Put the new value where the old one is; False where that is read too late."""
    reader = last.get(old, -1)
    if reader == maker:
        return sharing.write_over(maker, old, new)
    if reader < maker:
        sharing.alias(new, old)
    return reader < maker


def _in_order(copied: Mapping[str, Value], states: Mapping[str, Value]) -> Iterator[Copy]:
    """The copies, so that no old value is overwritten while another copy still reads it."""
    sources: dict[str, Value | OldState] = dict(copied)
    while sources:
        free = next((key for key in sources if states[key] not in sources.values()), None)
        if free is not None:
            yield Copy(sources.pop(free), NewState(free), free)
            continue
        key = next(iter(sources))  # all that is left goes round in circles
        saved = OldState(key)
        yield Copy(states[key], saved, key)
        sources = {k: saved if source is states[key] else source for k, source in sources.items()}
