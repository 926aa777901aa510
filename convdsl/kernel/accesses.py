"""Which elements a kernel touches, and under which counters: read off the loops, nothing is run.

Addresses depend on counters alone, and on data that has a range. So all of them can be worked out
at once, with NumPy, for all iterations: small kernels in a moment, those of whole networks in
milliseconds each. Counters that an address does not depend on are not counted out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.kernel.group_mma import GROUP_ROWS
from convdsl.kernel.nodes import (
    Blocks,
    Buffer,
    CopyAsync,
    For,
    GroupMma,
    If,
    IndexTest,
    LetIndex,
    Load,
    LoopVar,
    Parallel,
    Statement,
    Store,
    Threads,
    Value,
    statement_values,
    value_children,
)
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import Dim, evaluate, substitute, symbols_of
from convdsl.tensor.records import record

Array = npt.NDArray[Any]


@record
class Arm:
    """One arm of a branch: where the test holds, or where it does not."""

    test: IndexTest
    holds: bool


Around: TypeAlias = For | Threads | Arm
"""What stands around an access, inside its parallel loop."""


@dataclass(frozen=True, slots=True, eq=False)
class Access:
    """`lanes` consecutive elements from `index` on. `around`: outermost first; guards of a load are
    the last arms."""

    buffer: Buffer
    index: Dim
    lanes: int
    write: bool
    around: tuple[Around, ...]


def accesses(body: Sequence[Statement], around: tuple[Around, ...] = ()) -> Iterator[Access]:
    """All loads and stores of a body, in order."""
    for statement in body:
        yield from own_accesses(statement, around)
        match statement:
            case For() | Threads():
                yield from accesses(statement.body, (*around, statement))
            case If():
                yield from accesses(statement.then, (*around, Arm(statement.test, True)))
                yield from accesses(statement.otherwise, (*around, Arm(statement.test, False)))
            case Parallel() | Blocks():
                yield from accesses(statement.body, around)
            case LetIndex():  # data may be anything in its range: as if it took on all of it
                var = statement.var
                around = (*around, For(var, var.lowest, var.highest + 1, ()))
            case _:
                pass


def own_accesses(statement: Statement, around: tuple[Around, ...] = ()) -> Iterator[Access]:
    """What the statement itself loads and stores (not its bodies)."""
    for value in statement_values(statement):
        yield from _loads(value, around)
    if isinstance(statement, Store):
        lanes = statement.value.type.lanes if statement.valid is None else statement.valid
        yield Access(statement.buffer, statement.index, lanes, True, around)
    if isinstance(statement, CopyAsync):  # up to so many elements are read
        guarded = (*around, *(Arm(guard, True) for guard in statement.guards))
        most = statement.elements
        yield Access(statement.source, statement.source_index, most, False, guarded)
        yield Access(statement.target, statement.index, most, True, around)
    if isinstance(statement, GroupMma):
        form = statement.form
        for buffer, index, rows in (
            (statement.a, statement.a_index, GROUP_ROWS),
            (statement.b, statement.b_index, form.columns),
        ):  # neighbours change places within a line
            yield Access(buffer, index, form.reach(rows), False, around)


def _loads(value: Value, around: tuple[Around, ...]) -> Iterator[Access]:
    pending = [value]
    while pending:
        found = pending.pop()
        if isinstance(found, Load):
            guarded = (*around, *(Arm(guard, True) for guard in found.guards))
            yield Access(found.buffer, found.index, found.count, False, guarded)
        pending += reversed(value_children(found))


@record
class Points:
    """Iterations side by side: the number of each (`owner`), and its counters by name."""

    owner: Array
    counters: dict[str, Array]

    def __len__(self) -> int:
        return len(self.owner)

    def value(self, index: Dim) -> Array:
        """An index at each point."""
        return np.broadcast_to(np.asarray(evaluate(index, self.counters)), len(self))

    def where(self, holds: Array) -> Points:
        """Those of the points where something holds."""
        counters = {name: values[holds] for name, values in self.counters.items()}
        return Points(self.owner[holds], counters)

    def repeated(self, counts: Array) -> Points:
        """Each point so many times."""
        counters = {name: np.repeat(values, counts) for name, values in self.counters.items()}
        return Points(np.repeat(self.owner, counts), counters)

    def inside(self, around: Around, needed: frozenset[str]) -> Points:
        """The points inside a loop or an arm; counters that are not needed take any one value."""
        match around:
            case Arm():
                test = around.test
                holds = FUNCTIONS[test.op].meaning(self.value(test.a), self.value(test.b))
                return self.where(holds == around.holds)
            case For():
                start = self.value(around.start)
                counts = np.maximum(self.value(around.stop) - start, 0)
                if around.var.name not in needed:
                    return self.where(counts > 0)
                made = self.repeated(counts)
                before = np.repeat(np.cumsum(counts) - counts, counts)
                made.counters[around.var.name] = (
                    np.repeat(start, counts) + np.arange(len(made)) - before
                )
                return made
            case Threads():
                pairs = zip(around.vars, around.extents, strict=True)
                kept = [(var, extent) for var, extent in pairs if var.name in needed]
                count = math.prod(extent for _, extent in kept)
                made = self.repeated(np.full(len(self), count))
                numbers = np.tile(np.arange(count), len(self))
                made.counters.update(_counters(numbers, *zip(*kept, strict=True)) if kept else {})
                return made


def iterations_of(loop: Parallel | Blocks, numbers: Array, first: int = 0) -> Points:
    """The iterations of a loop that have these numbers; owned by them, counted from `first`."""
    return Points(numbers + first, _counters(numbers, loop.vars, loop.extents))


def reached(access: Access, points: Points) -> Points:
    """The points at which iterations make an access."""
    needed = frozenset(s.name for s in symbols_of(access.index))
    steps: list[tuple[Around, frozenset[str]]] = []
    for around in reversed(access.around):
        steps.append((around, needed))
        needed |= _deciding(around)
    for around, inner in reversed(steps):
        points = points.inside(around, inner)
    return points


def counters_of(access: Access) -> frozenset[str]:
    """Names of all counters on which it depends whether and where the access happens."""
    own = frozenset(s.name for s in symbols_of(access.index))
    return own.union(*map(_deciding, access.around))


def _deciding(around: Around) -> frozenset[str]:
    """Counters that decide whether, or how often, what is inside runs."""
    match around:
        case Arm():
            indices = (around.test.a, around.test.b)
        case For():
            indices = (around.start, around.stop)
        case Threads():
            indices = ()
    return frozenset(s.name for index in indices for s in symbols_of(index))


def _counters(
    numbers: Array, loop_vars: Sequence[LoopVar], extents: Sequence[int]
) -> dict[str, Array]:
    if not extents:
        return {}
    position = np.unravel_index(numbers, tuple(extents))
    return {var.name: values for var, values in zip(loop_vars, position, strict=True)}


def reach(access: Access) -> tuple[Access, int, int]:
    """(access, lowest, highest): what its index takes on is what that of the other access does,
    plus anything from lowest to highest: the terms of counters that run between constants, and on
    which nothing else depends."""
    deciding = frozenset[str]().union(*map(_deciding, access.around))
    core, lowest, highest = access.index, 0, 0
    for var, low, high in _constant_ranges(access.around):
        if var.name in deciding or isinstance(core, int):
            continue
        rest = substitute(core, {var.name: 0})
        step = substitute(core, {var.name: 1}) - rest
        if isinstance(step, int) and core == rest + var.i * step:
            core = rest
            lowest += min(step * low, step * high)
            highest += max(step * low, step * high)
    return replace(access, index=core), lowest, highest


def _constant_ranges(arounds: Sequence[Around]) -> Iterator[tuple[LoopVar, int, int]]:
    for around in arounds:
        match around:
            case For(var, int(start), int(stop)) if start < stop:
                yield var, start, stop - 1
            case Threads():
                for var, extent in zip(around.vars, around.extents, strict=True):
                    yield var, 0, extent - 1
            case _:
                pass
