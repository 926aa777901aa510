"""Axes in pieces: where windows leave what they read, where what is chosen changes, where places go
on in other steps.

A piece has code of its own, in which all this is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

from convdsl.kernel.counting import decide
from convdsl.kernel.expr import Axis, IndexCompare, Read, Reduce, walk
from convdsl.kernel.nodes import IndexTest
from convdsl.schedules.contraction import coefficient, depends
from convdsl.schedules.emission import bounds_tests, extent_of
from convdsl.schedules.task import Task
from convdsl.tensor import Dim, substitute, symbols_of
from convdsl.tensor.records import record

_BORDER = 3  # positions at either end of an axis that may have code of their own
_WIDE = 16  # positions there that may be left to a loop of their own
_LONGEST = 1 << 12  # positions that are asked one by one where places go on
_RUNS = 4  # of places in even steps, for each of which there may be code

Segment: TypeAlias = "tuple[int, int]"
Windows: TypeAlias = "list[tuple[Dim, int]]"


def segments_of(task: Task) -> dict[str, list[Segment]]:
    """For each output axis the pieces that have code of their own: where windows leave the input,
    and where what is chosen changes."""
    found = border_segments(task.axes, task.reads, tests_of_terms(task))
    for axis in task.axes:
        starts = {start for start, _ in found.get(axis.name, ())}
        starts |= {start for start, _ in choice_segments(task, axis)}
        if len(starts) > 1:
            ends = [*sorted(starts)[1:], extent_of(axis)]
            found[axis.name] = list(zip(sorted(starts), ends, strict=True))
    return found


def choice_segments(task: Task, axis: Axis) -> list[Segment]:
    """An axis cut where tests of its position alone change their outcome: parts that are joined are
    copied one by one, not chosen between for each element."""
    extent, starts = extent_of(axis), {0}
    for test in (e for s in task.stages for e in walk(s.body) if isinstance(e, IndexCompare)):
        bound = first_beyond(test.a - test.b, axis)
        if bound is not None:
            starts |= (
                {bound + (test.op in ("le", "gt"))} if test.op in _ORDERED else {bound, bound + 1}
            )
    cuts = [*sorted(s for s in starts if 0 <= s < extent), extent]
    return list(pairwise(cuts))


_ORDERED = ("lt", "le", "gt", "ge")


def first_beyond(difference: Dim, axis: Axis) -> int | None:
    """The position from which on `axis.i - position` is not negative, where that is what the
    difference is."""
    rest = difference - axis.i
    return -rest if isinstance(rest, int) else None


def tests_of_terms(task: Task) -> list[IndexTest]:
    """Which terms of sums count: patches that are added up where they were end at the map's
    borders."""
    reduces = {e for stage in task.stages for e in walk(stage.body) if isinstance(e, Reduce)}
    terms = [e for reduce in reduces for e in walk(reduce.body) if isinstance(e, IndexCompare)]
    return [IndexTest(e.op, e.a, e.b) for e in dict.fromkeys(terms)]


def border_segments(
    axes: tuple[Axis, ...], reads: Sequence[Read], tests: Sequence[IndexTest] = ()
) -> dict[str, list[Segment]]:
    """For each output axis that windows run along: the positions at either end, one by one, whose
    windows leave the input, and all those in between, which then need no tests."""
    found: dict[str, list[Segment]] = {}
    for axis in axes:
        windows = [
            (index, extent_of(Axis("", extent)))
            for read in reads
            if read.outside is not None
            for index, extent in zip(read.index, read.tensor.type.shape, strict=True)
            if any(s.name == axis.name for s in symbols_of(index))
        ]
        own = [test for test in tests if depends(test.a, axis) or depends(test.b, axis)]
        extent = extent_of(axis)

        def inside(
            position: int,
            name: str = axis.name,
            windows: Windows = windows,
            own: Sequence[IndexTest] = own,
        ) -> bool:
            at: dict[str, Dim] = {name: position}
            known = (IndexTest(t.op, substitute(t.a, at), substitute(t.b, at)) for t in own)
            return all(decide(test) is True for test in known) and not any(
                bounds_tests(substitute(index, at), size) for index, size in windows
            )

        ends = range(min(_WIDE, extent - 1) + 1)
        first = next((i for i in ends if inside(i)), None)
        last = next((extent - 1 - i for i in ends if inside(extent - 1 - i)), None)
        if (windows or own) and first is not None and last is not None and last > first + 1:
            before, after = _ends(0, first), _ends(last + 1, extent)
            if before or after:
                found[axis.name] = [*before, (first, last + 1), *after]
    return found


def _ends(start: int, stop: int) -> list[Segment]:
    """Positions at an end: few have code of their own, many share a loop."""
    if stop - start > _BORDER:
        return [(start, stop)]
    return [(i, i + 1) for i in range(start, stop)]


@record
class Stretch:
    """Vectors of a row: `blocks` of them from `start` on; of the only one, `valid` lanes if not all
    are there."""

    start: int
    blocks: int
    valid: int | None = None


def stretches(task: Task, axis: Axis, lanes: int) -> list[Stretch]:
    """A row, whole vectors in loops. Near ends where windows leave the input, and where places go
    on in other steps, vectors stand at positions that are known: so it is known of each lane what
    it reads."""
    found: list[Stretch] = []
    done = 0
    for start, stop in _even(task, axis):
        done += _known(found, done, start, stop, lanes)
        blocks = max(0, stop - done) // lanes
        if blocks:
            found.append(Stretch(done, blocks))
            done += blocks * lanes
    _known(found, done, extent_of(axis), extent_of(axis), lanes)
    return found


def _known(found: list[Stretch], start: int, until: int, stop: int, lanes: int) -> int:
    """Vectors from `start` up to `until` at least, and no further than `stop`; how many positions
    these have."""
    position = start
    while position < until:
        left = stop - position
        found.append(Stretch(position, 1, left if left < lanes else None))
        position += min(left, lanes)
    return position - start


def _even(task: Task, axis: Axis) -> list[Segment]:
    """The pieces of an axis in which nothing changes."""
    extent, reads = extent_of(axis), task.reads
    ends = border_segments((axis,), reads, tests_of_terms(task)).get(axis.name, [(0, extent)])
    first, last = max(ends, key=lambda piece: piece[1] - piece[0])
    starts = {first, *(start for start, _ in choice_segments(task, axis))}
    bent = (i for read in reads for i in read.index if coefficient(i, axis) is None)
    for index in set(bent) if extent <= _LONGEST else ():
        if {symbol.name for symbol in symbols_of(index)} == {axis.name}:
            runs = set(_runs([substitute(index, {axis.name: i}) for i in range(extent)]))
            starts |= runs if len(runs) <= _RUNS else set()
    cuts = [*sorted(start for start in starts if first <= start < last), last]
    return list(pairwise(cuts))


def _runs(places: Sequence[Dim]) -> Iterator[int]:
    """Where places begin to go on in steps of another width."""
    start = 0
    while start < len(places):
        yield start
        stop = start + 2
        while (
            stop < len(places)
            and places[stop] - places[stop - 1] == places[start + 1] - places[start]
        ):
            stop += 1
        start = stop
