"""Checks that iterations may run side by side, and that no access leaves its buffer.

All iterations of all `Parallel` loops of a kernel, and all blocks of its grids, run in any order
and at the same time. So no iteration may write what another one reads or writes:

    a(p, s) = b(q, t)  only for  p = q

for the indices a and b of a store and of any access to the same buffer, all counters p, q of
parallel and s, t of inner loops (lanes are one more inner loop). For linear indices that is an
equation in integers between bounds: the difference of two indices has one term a counter, and
solving for the largest coefficient first leaves hardly a choice (`_Proof`). Where an inner loop
takes up what the iterations share out, from f(p) to f(p + 1), its counter says which iteration it
is, and stands for p. What is not proven so is decided by enumerating all elements (`accesses`),
which is exact: tests and uneven loops count.

What happens between the threads of a block is not looked at here: the interpreter does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations_with_replacement

import numpy as np

from convdsl.kernel.accesses import (
    Access,
    Arm,
    Around,
    Array,
    Points,
    accesses,
    counters_of,
    iterations_of,
    reach,
    reached,
)
from convdsl.kernel.grid import names_of
from convdsl.kernel.nodes import (
    Blocks,
    For,
    Kernel,
    LoopVar,
    Parallel,
    Space,
    Threads,
)
from convdsl.kernel.verify import KernelError
from convdsl.tensor import Dim, Symbol, bounds, substitute, symbols_of
from convdsl.tensor.dim import Extremum, terms_of
from convdsl.tensor.records import record

_STEPS = 500
"""Choices that a proof may look at before it gives up."""

_AT_ONCE = 1 << 14
"""Iterations that are enumerated together: few enough for small memory."""


def check_independent(kernel: Kernel) -> None:
    """No iteration writes what another reads or writes. KernelError names two that do."""
    if not is_proven_independent(kernel):
        _Enumeration(kernel).independent()


def check_bounds(kernel: Kernel) -> None:
    """Every access stays inside its buffer, in every iteration. KernelError names the first that
    does not."""
    _Enumeration(kernel).bounded()


def _is_seen(access: Access) -> bool:
    """Whether others may see what is written there, or write what is read."""
    return access.buffer.written and access.buffer.space is Space.GLOBAL


def is_proven_independent(kernel: Kernel) -> bool:
    """True where the forms of the indices alone prove it."""
    found: dict[str, list[_Form]] = {}
    written: set[str] = set()
    for loop in kernel.body:
        grid = loop if isinstance(loop, Parallel | Blocks) else None
        for access in accesses((loop,)):
            if not _is_seen(access):
                continue
            form = _form(access, grid)
            if form is None:
                return False
            found.setdefault(access.buffer.name, []).append(form)
            written |= {access.buffer.name} if access.write else set()
    return all(_all_apart(forms) for name, forms in found.items() if name in written)


@record
class _Form:
    """constant + sum of c * p over `outer` + sum of c * z over `inner`.

    outer: (name, c, lowest, highest p), of the counters that tell iterations from each other.
    inner: (c, (lowest, highest z)) of everything else, by positive c.
    pinned: those of the former that have one value where the access happens.
    """

    loop: Parallel | Blocks | None
    pinned: tuple[tuple[str, int], ...]
    outer: tuple[tuple[str, int, int, int], ...]
    inner: tuple[tuple[int, tuple[int, int]], ...]
    constant: int
    write: bool


def _form(access: Access, loop: Parallel | Blocks | None) -> _Form | None:
    """The form of an index that is linear in counters, else None."""
    fixed = _fixed(access.around)
    linear = _linear(substitute(access.index, fixed))
    if linear is None:
        return None
    coefficients, constant = linear
    counters = [] if loop is None else [var for var in loop.vars if var.lowest < var.highest]
    owners = _owners(counters, access.around)
    outer = tuple(
        (v.name, coefficients.pop(v.name, 0), v.lowest, v.highest)
        for v in owners
        if v.name not in fixed
    )
    ranges = {1: (0, access.lanes - 1)}
    known = {var.name: var for var in (*counters, *_inner_counters(access.around))}
    for name, coefficient in coefficients.items():
        var = known[name]
        _add(ranges, coefficient, (var.lowest, var.highest))
    names = {var.name for var in (*counters, *owners)}
    pinned = tuple(sorted((name, value) for name, value in fixed.items() if name in names))
    inner = tuple(sorted(ranges.items()))
    return _Form(loop, pinned, outer, inner, constant, access.write)


def _fixed(arounds: Sequence[Around]) -> dict[str, int]:
    """Counters that tests around pin to one value."""
    fixed: dict[str, int] = {}
    for around in arounds:
        if isinstance(around, Arm) and around.holds and around.test.op == "eq":
            linear = _linear(around.test.a - around.test.b)
            if linear is not None and len(linear[0]) == 1:
                ((name, c),), constant = linear[0].items(), linear[1]
                if abs(c) == 1:
                    fixed[name] = -constant * c
    return fixed


def _linear(index: Dim) -> tuple[dict[str, int], int] | None:
    """(coefficient of each counter, constant), where an index is their sum."""
    coefficients: dict[str, int] = {}
    constant = 0
    for monomial, coefficient in terms_of(index):
        if not isinstance(coefficient, int):
            return None
        if not monomial:
            constant = coefficient
            continue
        atom, power = monomial[0]
        if len(monomial) > 1 or power > 1 or not isinstance(atom, Symbol):
            return None
        coefficients[atom.name] = coefficient
    return coefficients, constant


def _inner_counters(arounds: Sequence[Around]) -> Iterator[LoopVar]:
    for around in arounds:
        if isinstance(around, For):
            yield around.var
        elif isinstance(around, Threads):
            yield from around.vars


def _owners(counters: Sequence[LoopVar], arounds: Sequence[Around]) -> list[LoopVar]:
    """For each parallel counter: itself, or that of a loop which takes up what it shares out."""
    owners = {var.name: var for var in counters}
    for loop in arounds:
        if isinstance(loop, For):
            for name in {s.name for s in symbols_of(loop.start)} & owners.keys():
                following = substitute(loop.start, {name: owners[name].i + 1})
                least, _ = bounds(following - loop.start)
                if least is not None and least >= 0 and following in _limits(loop.stop):
                    owners[name] = loop.var
    return list(owners.values())


def _limits(index: Dim) -> tuple[Dim, ...]:
    """Indices, none of them smaller than `index`."""
    parts = list(terms_of(index))
    if len(parts) == 1 and parts[0][1] == 1 and len(parts[0][0]) == 1:
        ((atom, power),) = parts[0][0]
        if power == 1 and isinstance(atom, Extremum) and atom.kind == "min":
            return atom.arguments
    return (index,)


def _add(ranges: dict[int, tuple[int, int]], c: int, between: tuple[int, int]) -> None:
    """Add c * z, z in a range, to a sum of such terms by positive coefficient."""
    low, high = between if c > 0 else (-between[1], -between[0])
    old = ranges.get(abs(c), (0, 0))
    ranges[abs(c)] = (old[0] + low, old[1] + high)


def _all_apart(forms: Sequence[_Form]) -> bool:
    """No two of the forms, of which one is a write's, give one element in two iterations."""
    seen: set[tuple[object, ...]] = set()
    for a, b in combinations_with_replacement(forms, 2):
        if not (a.write or b.write):
            continue
        shape = (id(a.loop), id(b.loop), a.pinned, b.pinned, a.outer, b.outer, a.inner, b.inner)
        key = (*shape, b.constant - a.constant)
        if key not in seen:
            seen.add(key)
            if not _apart(a, b):
                return False
    return True


def _apart(a: _Form, b: _Form) -> bool:
    ranges = dict(a.inner)
    for c, (low, high) in b.inner:
        _add(ranges, -c, (low, high))
    alike = (a.pinned, a.outer) == (b.pinned, b.outer)
    differ = not (a.loop is b.loop and a.loop is not None and alike)
    terms: list[tuple[int, int, int, bool]] = []
    if differ:  # as if all their iterations were different ones
        for sign, form in ((1, a), (-1, b)):
            for _, c, low, high in form.outer:
                _add(ranges, sign * c, (low, high))
    else:
        terms = [(abs(c), low - high, high - low, True) for _, c, low, high in a.outer]
    terms += [(c, low, high, False) for c, (low, high) in ranges.items() if c and (low or high)]
    return _Proof(sorted(terms, reverse=True)).apart(b.constant - a.constant, differ)


class _Proof:
    """sum of c * z = d has no solution in which some z of a parallel counter is not 0.

    `terms` are (c, lowest, highest z, of a parallel counter), the largest c first.
    """

    def __init__(self, terms: Sequence[tuple[int, int, int, bool]]) -> None:
        self.terms = terms
        self.rest = [(0, 0, False)]  # for each term: range of the sum after it, any parallel left
        for c, low, high, parallel in reversed(terms):
            least, most, left = self.rest[-1]
            self.rest.append((least + c * low, most + c * high, left or parallel))
        self.rest.reverse()
        self.steps = 0

    def apart(self, d: int, differ: bool, at: int = 0) -> bool:
        """Whether no solution is left from term `at` on. `differ`: one z was not 0 before."""
        least, most, left = self.rest[at]
        if not least <= d <= most or not (differ or left):
            return True
        if at == len(self.terms):
            return False
        c, low, high, parallel = self.terms[at]
        least, most, _ = self.rest[at + 1]
        if c:
            low, high = max(low, -((most - d) // c)), min(high, (d - least) // c)
        for z in range(low, high + 1):
            self.steps += 1
            if self.steps > _STEPS or not self.apart(
                d - c * z, differ or (parallel and z != 0), at + 1
            ):
                return False
        return True


class _Enumeration:
    """All elements that the iterations of a kernel touch, worked out side by side."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.names: list[str] = []
        self.loops: list[tuple[Parallel | Blocks, int]] = []
        for loop in kernel.body:
            if isinstance(loop, Parallel | Blocks):
                what = "iteration" if isinstance(loop, Parallel) else "block"
                self.loops.append((loop, len(self.names)))
                self.names += names_of(what, loop.vars, loop.extents)
            elif any(access.write for access in accesses((loop,))):
                self.fail("a store outside of parallel loops is made once for each share")

    def fail(self, message: str) -> None:
        raise KernelError(f"{self.kernel.name}: {message}")

    def independent(self) -> None:
        none = len(self.names)
        written = [b for b in self.kernel.buffers if b.written]
        # For each element: the lowest and highest number of those who write it, and who read it.
        marks = {
            (b.name, write): (np.full(b.size, none), np.full(b.size, -1))
            for b in written
            for write in (True, False)
        }

        for found, iterations in self.chunks(_is_seen):
            for access in found:
                points = reached(access, iterations)
                first = points.value(access.index)
                self.inside(access, points, first, first)
                lowest, highest = marks[access.buffer.name, access.write]
                for lane in range(access.lanes):
                    np.minimum.at(lowest, first + lane, points.owner)
                    np.maximum.at(highest, first + lane, points.owner)
        for buffer in written:
            first, last = marks[buffer.name, True]
            self.reject(buffer.name, first, last, first < last, "has written")
            lowest, highest = marks[buffer.name, False]
            is_written, is_read = last >= 0, highest >= 0
            lower = is_written & is_read & (lowest < first)
            self.reject(buffer.name, lowest, last, lower, "has read")
            higher = is_written & is_read & (highest > last)
            self.reject(buffer.name, highest, last, higher, "has read")

    def reject(self, name: str, one: Array, writer: Array, where: Array, done: str) -> None:
        if where.any():
            at = int(np.argmax(where))
            other, own = self.names[int(one[at])], self.names[int(writer[at])]
            self.fail(f"{own} writes {name}[{at}], which {other} {done}")

    def bounded(self) -> None:
        for found, iterations in self.chunks(_may_leave):
            for access in found:
                core, low, high = reach(access)
                points, needed = iterations, counters_of(core)
                for name in iterations.counters.keys() - needed:
                    points = points.where(points.counters[name] == 0)  # one speaks for all
                points = reached(core, points)
                first = points.value(core.index)
                self.inside(access, points, first + low, first + high)

    def chunks(self, wanted: Callable[[Access], bool]) -> Iterator[tuple[list[Access], Points]]:
        """The wanted accesses of a loop, and some of its iterations at a time."""
        for loop, before in self.loops:
            found = [access for access in accesses(loop.body) if wanted(access)]
            count = math.prod(loop.extents) if found else 0
            for start in range(0, count, _AT_ONCE):
                numbers = np.arange(start, min(start + _AT_ONCE, count))
                yield found, iterations_of(loop, numbers, before)

    def inside(self, access: Access, points: Points, lowest: Array, highest: Array) -> None:
        """First elements of an access: where they begin before the buffer, or end after it."""
        end = access.buffer.size - access.lanes
        outside = (lowest < 0) | (highest > end)
        if outside.any():
            at = int(np.argmax(outside))
            start = int(lowest[at]) if lowest[at] < 0 else int(highest[at])
            verb, own = "writes" if access.write else "reads", self.names[int(points.owner[at])]
            where = f"{access.buffer.name}[{start}:{start + access.lanes}]"
            self.fail(f"{own} {verb} {where}, out of bounds ({access.buffer.size})")


def _may_leave(access: Access) -> bool:
    """Whether bounds do not prove that an access stays inside."""
    low, high = bounds(access.index)
    end = access.buffer.size - access.lanes
    return low is None or low < 0 or high is None or high > end
