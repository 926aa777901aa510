"""One memory for what a kernel reads and for what it writes.

    y[i] = f(x[i], ...)       y may lie over x: an iteration reads what it is about to write
    y[i] = f(x[i - 1], ...)   it may not: another iteration may have written there
    y[i] = partial sum, ...
    y[i] = f(y[i], x[i])      it may not: the sums have been written over x

A kernel may if every read of the one is followed, in the same run of statements, by a write to the
same elements of the other, and no element is written twice. The latter is counted: a kernel
writes all its output, so where it writes as many elements as there are, it writes each once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from itertools import product
from math import prod
from typing import Any, cast

from convdsl.kernel import nodes
from convdsl.kernel.accesses import Access, accesses, own_accesses
from convdsl.kernel.nodes import (
    Buffer,
    For,
    If,
    Kernel,
    Parallel,
    Statement,
    Store,
    statement_bodies,
)
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import Dim, evaluate, symbols_of

_LARGEST = 4096  # values of loop counters that are tried one by one

Body = tuple[Statement, ...]


def written_over(kernel: Kernel, read: str, written: str, name: str) -> Kernel | None:
    """The kernel with one buffer, called as the written one, for both that are named; None where
    the one may not lie over the other."""
    by_name = {buffer.name: buffer for buffer in kernel.buffers}
    old, new = by_name[read], by_name[written]
    if old.written or not new.written or (old.dtype, old.size) != (new.dtype, new.size):
        return None
    if any(access.buffer == new and not access.write for access in accesses(kernel.body)):
        return None
    buffers = tuple(buffer for buffer in kernel.buffers if buffer != old)
    joined = replace(kernel, name=name, buffers=buffers, body=_replaced(kernel.body, old, new))
    return joined if updates_in_place(joined, new) else None


def updates_in_place(kernel: Kernel, buffer: Buffer) -> bool:
    """Whether a kernel reads a buffer only where the same iteration then writes, and writes each
    element once: so that what it reads is what was there before the call."""
    if not _reads_before_writing(kernel.body, buffer):
        return False
    try:
        return _Count(buffer).stores(kernel.body, {}) == buffer.size
    except _Unknown:
        return False


def _reads_before_writing(body: Body, buffer: Buffer) -> bool:
    """Every load is followed by a store of at least its elements, in the same run of statements."""
    writes: dict[Dim, int] = {}  # elements, by first index, that are written further on
    for statement in reversed(body):
        own = [access for access in own_accesses(statement) if access.buffer == buffer]
        for access in own:
            if access.write:
                writes[access.index] = max(access.lanes, writes.get(access.index, 0))
        if not all(_is_written(access, writes) for access in own):
            return False
        if not all(_reads_before_writing(inner, buffer) for inner in statement_bodies(statement)):
            return False
    return True


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


class _Unknown(Exception):
    """How often something runs is not known."""


class _Count:
    """Counts the elements that are stored to a buffer, all iterations together."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._deciding: dict[int, frozenset[str]] = {}

    def stores(self, body: Body, at: Mapping[str, int]) -> int:
        """`at` binds the counters around that decide how often inner statements run."""
        return sum(self._statement(statement, at) for statement in body)

    def _statement(self, statement: Statement, at: Mapping[str, int]) -> int:
        match statement:
            case Store():
                (write,) = (access for access in own_accesses(statement) if access.write)
                return write.lanes if write.buffer == self._buffer else 0
            case For():
                if self._is_idle(statement):
                    return 0
                start, stop = _number(statement.start, at), _number(statement.stop, at)
                return self._loop([(statement.var.name, range(start, stop))], statement.body, at)
            case Parallel():
                ranges = zip(statement.vars, map(range, statement.extents), strict=True)
                return self._loop([(v.name, r) for v, r in ranges], statement.body, at)
            case If():
                if self._is_idle(statement):
                    return 0
                test = statement.test
                holds = FUNCTIONS[test.op].meaning(_number(test.a, at), _number(test.b, at))
                return self.stores(statement.then if holds else statement.otherwise, at)
            case _:
                if self._is_idle(statement):
                    return 0
                raise _Unknown

    def _loop(self, ranges: list[tuple[str, range]], body: Body, at: Mapping[str, int]) -> int:
        """The sum over all values of the counters that decide something inside, times those of
        the others."""
        deciding = self._decides(body)
        tried = [(name, values) for name, values in ranges if name in deciding]
        times = prod(len(values) for name, values in ranges if name not in deciding)
        if prod(len(values) for _, values in tried) > _LARGEST:
            raise _Unknown
        names = [name for name, _ in tried]
        cases = product(*(values for _, values in tried))
        return times * sum(
            self.stores(body, {**at, **dict(zip(names, case, strict=True))}) for case in cases
        )

    def _decides(self, body: Body) -> frozenset[str]:
        """Counters that bounds and tests around stores below depend on."""
        if id(body) not in self._deciding:
            self._deciding[id(body)] = frozenset(self._counters(body))
        return self._deciding[id(body)]

    def _counters(self, body: Body) -> Iterator[str]:
        for statement in body:
            if self._is_idle(statement):
                continue
            dims: tuple[Dim, ...] = ()
            if isinstance(statement, For):
                dims = (statement.start, statement.stop)
            elif isinstance(statement, If):
                dims = (statement.test.a, statement.test.b)
            yield from (s.name for dim in dims for s in symbols_of(dim))
            for inner in statement_bodies(statement):
                yield from self._decides(inner)

    def _is_idle(self, statement: Statement) -> bool:
        """Whether nothing is stored to the buffer there."""
        if isinstance(statement, Store):
            return statement.buffer != self._buffer
        return all(self._is_idle(s) for inner in statement_bodies(statement) for s in inner)


def _number(dim: Dim, at: Mapping[str, int]) -> int:
    if any(s.name not in at for s in symbols_of(dim)):
        raise _Unknown
    return int(evaluate(dim, at))


def _replaced(item: Any, old: Buffer, new: Buffer) -> Any:
    """A node, or a tuple of nodes, with one buffer in place of another."""
    if isinstance(item, Buffer):
        return new if item == old else item
    if isinstance(item, tuple):
        return tuple([_replaced(part, old, new) for part in _parts(item)])
    if not is_dataclass(item) or type(item).__module__ != nodes.__name__:
        return item  # an index, a name, a number
    made = {f.name: _replaced(getattr(item, f.name), old, new) for f in fields(item)}
    return replace(cast("Any", item), **made)


def _parts(item: Any) -> tuple[Any, ...]:
    return item
