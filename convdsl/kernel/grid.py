"""How a block's threads take turns, and who may touch what: the interpreter's part for grids.

Threads run one after the other up to the next statement where they meet, in any order one likes:
between two meetings they must not depend on each other. A `Ledger` holds who read and wrote each
element, and finds two threads (or blocks) of which one touches what the other writes. What it
finds does not depend on the order. Copies to shared memory are noted where they begin, and again
where they are complete; in between their elements hold nothing, so that it does not matter when a
copy really happens.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.kernel.group_mma import warp_multiplied
from convdsl.kernel.mma import WARP, multiplied
from convdsl.kernel.nodes import Barrier, Buffer, Exchange, GroupMma, LoopVar, Mma
from convdsl.tensor.records import record

Array = npt.NDArray[Any]
Order = Callable[[int], Iterable[int]]
"""In which order to take so many threads or blocks."""


def ascending(count: int) -> Iterable[int]:
    """The first one first."""
    return range(count)


def descending(count: int) -> Iterable[int]:
    """The last one first."""
    return range(count - 1, -1, -1)


def shuffled(seed: int) -> Order:
    """Another order each time, the same ones for the same seed."""
    random = np.random.default_rng(seed)
    return lambda count: random.permutation(count).tolist()


@record
class Touch:
    """What a ledger found: `other` has touched the same element, and one of the two writes it."""

    position: int
    other: int
    wrote: bool


class Ledger:
    """Who touched each element since the last `begin`, for elements of written buffers."""

    def __init__(self, buffers: Iterable[Buffer]) -> None:
        self._since = 0  # marks of earlier times lie below
        self._count = 0
        sizes = {buffer.name: buffer.size for buffer in buffers if buffer.written}
        self._writer = _unmarked(sizes)
        self._reader = _unmarked(sizes)
        self._second = _unmarked(sizes)  # a reader other than that one
        self._shown = _unmarked(sizes)  # who has shown an element to products since it was written

    def begin(self, count: int) -> None:
        """From now on `count` parties stand side by side; what was before is ordered."""
        self._since, self._count = self._since + self._count, count

    def forget(self, name: str) -> None:
        """The elements of a buffer hold nothing any more."""
        for marks in (self._writer, self._reader, self._second):
            marks[name][:] = -1

    def hide(self, name: str, part: slice) -> None:
        """Some elements hold nothing, until they are written."""
        self._writer[name][part] = -1

    def hidden(self, name: str, part: slice) -> bool:
        """Whether none of some elements has been written since it was forgotten or hidden."""
        return bool((self._writer[name][part] < 0).all())

    def unwritten(self, name: str, part: slice) -> int | None:
        """The first position in `part` that nobody has written since it was forgotten."""
        return _first(self._writer[name][part] < 0, part)

    def show(self, name: str, part: slice, who: int) -> None:
        """Products may read some elements from the next `begin` on."""
        self._shown[name][part] = self._since + who

    def concealed(self, name: str, part: slice) -> int | None:
        """The first position in `part` that products may not read."""
        shown = self._shown[name][part]
        return _first((shown < 0) | (shown >= self._since), part)

    def read(self, name: str, part: slice, who: int) -> Touch | None:
        """Note a read. Where another party has written: that one."""
        if name not in self._writer:
            return None
        mark = self._since + who
        reader, second = self._reader[name][part], self._second[name][part]
        second[(reader >= self._since) & (reader != mark)] = mark
        reader[reader < self._since] = mark
        return self._other(self._writer[name], part, mark, wrote=True)

    def write(self, name: str, part: slice, who: int) -> Touch | None:
        """Note a write. Where another party has read or written: that one."""
        if name not in self._writer:
            return None
        mark = self._since + who
        found = [
            self._other(marks[name], part, mark, wrote=marks is self._writer)
            for marks in (self._writer, self._reader, self._second)
        ]
        self._writer[name][part] = mark
        self._shown[name][part] = -1
        return next((touch for touch in found if touch is not None), None)

    def _other(self, marks: Array, part: slice, mark: int, *, wrote: bool) -> Touch | None:
        here = marks[part]
        position = _first((here >= self._since) & (here != mark), part)
        if position is None:
            return None
        return Touch(position, int(marks[position]) - self._since, wrote)


def _unmarked(sizes: Mapping[str, int]) -> dict[str, Array]:
    return {name: np.full(size, -1, np.int64) for name, size in sizes.items()}


def _first(where: Array, part: slice) -> int | None:
    return part.start + int(np.argmax(where)) if where.any() else None


@record
class Party:
    """One of those who stand side by side in a ledger. `apart`: how they are kept apart."""

    ledger: Ledger
    number: int
    names: Sequence[str]  # of all
    apart: str

    def objection(self, name: str, part: slice, *, write: bool) -> str | None:
        """Note an access; what is wrong with it."""
        note = self.ledger.write if write else self.ledger.read
        touch = note(name, part, self.number)
        if touch is None:
            return None
        verb, verbed = "writes" if write else "reads", "written" if touch.wrote else "read"
        own, other = self.names[self.number], self.names[touch.other]
        return f"{own} {verb} {name}[{touch.position}], which {other} has {verbed}{self.apart}"


def names_of(what: str, loop_vars: Sequence[LoopVar], extents: Sequence[int]) -> list[str]:
    """What to call each combination: `thread t = 3, u = 0`."""
    return [
        f"{what} {', '.join(f'{v.name} = {i}' for v, i in zip(loop_vars, at, strict=True))}"
        for at in np.ndindex(*extents)
    ]


Meeting: TypeAlias = Barrier | Exchange | Mma | GroupMma
"""Where threads wait for each other."""


@record
class Arrival:
    """A thread waits at a statement, with what it brings."""

    statement: Meeting
    brought: Array | None = None


Thread: TypeAlias = Generator[Arrival, Array | None, None]
"""Runs a thread; hands out where it waits, is sent what it meets there."""


class Stuck(AssertionError):
    """Some threads wait where others do not come. The first of either kind, by number."""

    def __init__(self, waiting: int, elsewhere: int) -> None:
        super().__init__(f"thread {waiting} waits where thread {elsewhere} does not come")
        self.waiting, self.elsewhere = waiting, elsewhere


def run_threads(threads: Sequence[Thread], order: Order, at_barrier: Callable[[], None]) -> None:
    """Run all threads of a block to their ends; `at_barrier` is called when they meet at one.
    Raises Stuck."""
    waiting: dict[int, Arrival] = {}
    answers: dict[int, Array | None] = dict.fromkeys(range(len(threads)))
    while answers:
        for number in order(len(threads)):
            if number in answers:
                with suppress(StopIteration):  # the thread's end
                    waiting[number] = threads[number].send(answers.pop(number))
        answers = _answers(waiting, len(threads))
        if answers and isinstance(waiting[next(iter(answers))].statement, Barrier):
            at_barrier()
        if waiting and not answers:
            raise _stuck(waiting, len(threads))
        waiting = {number: arrival for number, arrival in waiting.items() if number not in answers}


def _answers(waiting: Mapping[int, Arrival], count: int) -> dict[int, Array | None]:
    """For all threads that may go on: what they are sent."""
    answers: dict[int, Array | None] = {}
    for number, arrival in waiting.items():
        if number in answers:
            continue  # with its group
        statement = arrival.statement
        size = _party_size(statement, count)
        first = number // size * size
        numbers = range(first, first + size)
        group = [waiting[other] for other in numbers if other in waiting]
        if len(group) == size and all(other.statement is statement for other in group):
            answers |= zip(numbers, _sent(statement, group), strict=True)
    return answers


def _party_size(statement: Meeting, count: int) -> int:
    """How many of `count` threads meet there."""
    match statement:
        case Barrier():
            return count
        case Exchange():
            return statement.group
        case Mma() | GroupMma():
            return WARP


def _sent(statement: Meeting, group: Sequence[Arrival]) -> Sequence[Array | None]:
    """What each of those who have met takes away."""
    brought = [arrival.brought for arrival in group]
    match statement:
        case Barrier():
            return [None] * len(group)
        case Exchange():
            return [brought[number ^ statement.mask] for number in range(len(group))]
        case Mma():
            return multiplied(statement.form, [b for b in brought if b is not None])
        case GroupMma():
            return warp_multiplied(statement.form, [b for b in brought if b is not None])


def _stuck(waiting: Mapping[int, Arrival], count: int) -> Stuck:
    first = min(waiting)
    statement = waiting[first].statement
    others = (n for n in range(count) if n not in waiting or waiting[n].statement is not statement)
    return Stuck(first, next(others))
