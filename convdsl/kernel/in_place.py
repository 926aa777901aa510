"""One memory for what a kernel reads and for what it writes.

    y[i] = f(x[i], ...)       y may lie over x: an iteration reads what it is about to write
    y[i] = f(x[i - 1], ...)   it may not: another iteration may have written there
    y[i] = partial sum, ...
    y[i] = f(y[i], x[i])      it may not: the sums have been written over x

    t = sum of x[i, j];  y[i, j] = f(x[i, j], t)
                              it may: an iteration over rows reads what it writes, and before that

A kernel may if every read of the one is followed, in the same run of statements or under the same
tests, by a write to the same elements of the other, or if every iteration of its outermost loops
reads nothing but what it writes itself, and nothing after writing it; and if no element is written
twice. The latter is counted: a kernel writes all its output, so where it writes as many elements as
there are, it writes each once.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, cast

import numpy as np

from convdsl.kernel import nodes, values
from convdsl.kernel.accesses import Access, Array, accesses, own_accesses
from convdsl.kernel.counting import UncountedError, combinations, runs
from convdsl.kernel.nodes import (
    Buffer,
    For,
    If,
    IndexTest,
    Kernel,
    Parallel,
    Statement,
    statement_bodies,
    walk_statements,
)
from convdsl.tensor import Dim, evaluate, substitute, symbols_of

_MOST_ELEMENTS = 1 << 20  # of one iteration, to look at each of them
_MOST_BOXES = 256  # of loop counters, to find how often a store runs

Body = tuple[Statement, ...]


class _Own:
    """What statements load and store themselves: looked for once, as the buffers of a kernel are
    asked for in pairs."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Statement, tuple[Access, ...]]] = {}

    def of(self, statement: Statement) -> tuple[Access, ...]:
        known = self._known.get(id(statement))
        if known is None:  # the statement is kept, so that no other has its number
            known = self._known[id(statement)] = (statement, tuple(own_accesses(statement)))
        return known[1]


def written_over(kernel: Kernel, read: str, written: str, name: str) -> Kernel | None:
    """The kernel with one buffer, called as the written one, for both that are named; None where
    the one may not lie over the other."""
    return Overlays().written_over(kernel, read, written, name)


def _joined(kernel: Kernel, old: Buffer, new: Buffer, name: str) -> Kernel:
    buffers = tuple(buffer for buffer in kernel.buffers if buffer != old)
    return replace(kernel, name=name, buffers=buffers, body=_replaced(kernel.body, old, new))


class Overlays:
    """Which buffers may lie over which, in kernels of one program, that have a name each: looked
    at once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], bool] = {}
        self._own = _Own()

    def may_write_over(self, kernel: Kernel) -> bool:
        """Whether there is a buffer that another of the kernel may lie over."""
        return any(
            self._may(kernel, old, new)
            for new in kernel.buffers
            for old in kernel.buffers
            if new.written
        )

    def written_over(self, kernel: Kernel, read: str, written: str, name: str) -> Kernel | None:
        """As the function does."""
        by_name = {buffer.name: buffer for buffer in kernel.buffers}
        old, new = by_name[read], by_name[written]
        return _joined(kernel, old, new, name) if self._may(kernel, old, new) else None

    def _may(self, kernel: Kernel, old: Buffer, new: Buffer) -> bool:
        key = (kernel.name, old.name, new.name)
        if key not in self._known:
            self._known[key] = _may_lie_over(kernel, old, new, self._own)
        return self._known[key]


def _may_lie_over(kernel: Kernel, old: Buffer, new: Buffer, own: _Own) -> bool:
    if old.written or not new.written or (old.dtype, old.size) != (new.dtype, new.size):
        return False
    found = (access for statement in walk_statements(kernel.body) for access in own.of(statement))
    if any(access.buffer == new and not access.write for access in found):
        return False
    return _updates(kernel.body, (old, new), new, own)


def updates_in_place(kernel: Kernel, buffer: Buffer) -> bool:
    """Whether a kernel reads a buffer only where the same iteration then writes, and writes each
    element once: so that what it reads is what was there before the call."""
    return _updates(kernel.body, (buffer,), buffer, _Own())


def _updates(body: Body, memory: tuple[Buffer, ...], written: Buffer, own: _Own) -> bool:
    """The same of one memory that some buffers are, one of which is written."""
    in_time = _reads_before_writing(body, memory, own)
    if not in_time and not all(_is_read_in_time(statement, memory, own) for statement in body):
        return False
    try:
        return _stored(body, written, own) == written.size
    except UncountedError:
        return False


_Writes = dict[tuple[IndexTest, ...], dict[Dim, int]]
"""Elements by first index that are written further on, by the tests under which they are."""


def _reads_before_writing(
    body: Body, memory: tuple[Buffer, ...], known: _Own, later: _Writes | None = None
) -> bool:
    """Every load is followed by a store of at least its elements in the same run of statements, or
    under tests that the load stands under as well."""
    writes: _Writes = {tests: dict(found) for tests, found in (later or {}).items()}
    for statement in reversed(body):
        own = [access for access in known.of(statement) if access.buffer in memory]
        for access in own:
            if access.write:
                _note(writes, (), access.index, access.lanes)
        if not all(_is_written(access, writes.get((), {})) for access in own):
            return False
        for inner in statement_bodies(statement):
            behind: _Writes = {}
            if isinstance(statement, If) and inner is statement.then:
                behind = _under(writes, statement.test)
            if not _reads_before_writing(inner, memory, known, behind):
                return False
        for tests, found in _written_under(statement, memory, known):
            for index, lanes in found.items():
                _note(writes, tests, index, lanes)
    return True


def _note(writes: _Writes, tests: tuple[IndexTest, ...], index: Dim, lanes: int) -> None:
    found = writes.setdefault(tests, {})
    found[index] = max(lanes, found.get(index, 0))


def _under(writes: _Writes, test: IndexTest) -> _Writes:
    """What is written where a test holds, by the tests besides."""
    found: _Writes = {(): dict(writes.get((), {}))}
    for tests, own in writes.items():
        if tests and tests[0] == test:
            for index, lanes in own.items():
                _note(found, tests[1:], index, lanes)
    return found


def _written_under(
    statement: Statement, memory: tuple[Buffer, ...], known: _Own
) -> Iterator[tuple[tuple[IndexTest, ...], dict[Dim, int]]]:
    """What is stored where tests hold, by these, the outer ones first."""
    if not isinstance(statement, If):
        return
    for inner in statement.then:
        own = (access for access in known.of(inner) if access.buffer in memory)
        yield (statement.test,), {a.index: a.lanes for a in own if a.write}
        for tests, found in _written_under(inner, memory, known):
            yield (statement.test, *tests), found


def _is_read_in_time(statement: Statement, memory: tuple[Buffer, ...], known: _Own) -> bool:
    if _reads_before_writing((statement,), memory, known):
        return True
    return isinstance(statement, Parallel) and _reads_its_own(statement, memory, known)


def _reads_its_own(loop: Parallel, memory: tuple[Buffer, ...], known: _Own) -> bool:
    """Whether each iteration reads what it writes itself, and before it does. Its elements are
    looked at one by one, counted from the first that it touches."""
    own = [[a for a in accesses((s,)) if a.buffer in memory] for s in loop.body]
    found = [access for part in own for access in part]
    if not found:
        return True
    origin = substitute(found[0].index, dict.fromkeys(_ranges(found[0]) or (), 0))
    reached: dict[Access, Array] = {}
    for access in found:
        elements = _elements(access, origin)
        if elements is None:
            return False
        reached[access] = elements
    lowest = min(int(elements.min()) for elements in reached.values())
    highest = max(int(elements.max()) for elements in reached.values())
    if highest - lowest >= _MOST_ELEMENTS:
        return False
    read, written, sure = np.zeros((3, highest - lowest + 1), bool)
    for statement, part in zip(loop.body, own, strict=True):
        loads = [access for access in part if not access.write]
        if any(bool(written[reached[access] - lowest].any()) for access in loads):
            return False
        if (
            loads
            and len(loads) < len(part)
            and not _reads_before_writing((statement,), memory, known)
        ):
            return False
        for access in part:
            elements = reached[access] - lowest
            (written if access.write else read)[elements] = True
            if access.write and all(isinstance(around, For) for around in access.around):
                sure[elements] = True
    return not bool((read & ~sure).any())


def _ranges(access: Access) -> dict[str, range] | None:
    """The counters around an access; None where one does not run between constants."""
    found: dict[str, range] = {}
    for around in access.around:
        if isinstance(around, For):
            if not isinstance(around.start, int) or not isinstance(around.stop, int):
                return None
            found[around.var.name] = range(around.start, around.stop)
    return found


def _elements(access: Access, origin: Dim) -> Array | None:
    """The elements that it touches in an iteration, counted from `origin`; None where they are too
    many, or not the same in all iterations."""
    ranges, index = _ranges(access), access.index - origin
    names = sorted(s.name for s in symbols_of(index))
    if ranges is None or not all(ranges.values()) or not ranges.keys() >= set(names):
        return None
    if math.prod(len(ranges[name]) for name in names) * access.lanes > _MOST_ELEMENTS:
        return None
    grid = np.ix_(*(np.asarray(ranges[name]) for name in names))
    first = np.asarray(evaluate(index, dict(zip(names, grid, strict=True)))).reshape(-1, 1)
    return (first + np.arange(access.lanes)).ravel()


def _is_written(access: Access, writes: Mapping[Dim, int]) -> bool:
    """Whether what is accessed lies within one of the writes: at its beginning, as a rule; lanes
    that are gathered one by one lie further on."""
    if writes.get(access.index, 0) >= access.lanes:
        return True
    for first, lanes in writes.items():
        ahead = access.index - first
        if isinstance(ahead, int) and 0 <= ahead <= lanes - access.lanes:
            return True
    return False


def _stored(whole: Body, buffer: Buffer, known: _Own) -> int:
    """The elements that a body writes to a buffer, each as often as it does."""
    total = 0
    for body, box, tests in runs(whole):
        own = (access for statement in body for access in known.of(statement))
        lanes = sum(access.lanes for access in own if access.write and access.buffer == buffer)
        total += lanes and lanes * combinations(box, tests, _MOST_BOXES)
    return total


def _replaced(item: Any, old: Buffer, new: Buffer) -> Any:
    """A node, or a tuple of them, with one buffer in place of another; itself where it has none."""
    if isinstance(item, Buffer):
        return new if item is old or item == old else item
    if isinstance(item, tuple):
        before = cast("tuple[Any, ...]", item)
        after = tuple([_replaced(part, old, new) for part in before])
        return before if all(map(operator.is_, before, after)) else after
    names = _fields_of(item.__class__)
    if not names:
        return item
    made: dict[str, Any] = {}
    for name in names:
        part = getattr(item, name)
        other = _replaced(part, old, new)
        if other is not part:
            made[name] = other
    return replace(item, **made) if made else item


@cache
def _fields_of(kind: type) -> tuple[str, ...]:
    """Of a node; an index, a name or a number has none."""
    if kind.__module__ not in (nodes.__name__, values.__name__) or not is_dataclass(kind):
        return ()
    return tuple(field.name for field in fields(kind))
