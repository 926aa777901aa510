"""How often a statement runs: how many combinations of counters pass the tests around it.

A test is decided for a whole box of combinations where bounds prove it. Where they do not, the box
is halved along one of the counters that it depends on: few boxes lie across a boundary. Boxes that
are small are counted out with NumPy: rows of a flat number have boundaries everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TypeAlias

import numpy as np

from convdsl.kernel.nodes import (
    Blocks,
    For,
    If,
    IndexTest,
    LoopVar,
    Parallel,
    Statement,
    Threads,
)
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import Dim, bounds, evaluate, substitute, symbols_of
from convdsl.tensor.dim import terms_of

OPPOSITE = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}
"""The test that holds where another does not."""

Box = Mapping[str, tuple[int, int]]
"""Of each counter its first and its last value."""


Run: TypeAlias = "tuple[tuple[Statement, ...], Box, tuple[IndexTest, ...]]"
"""Statements that run together, the counters around them, and what must hold."""


_POINTS = 1 << 16
"""Combinations that are counted out at once: about the time of a few boxes."""


class UncountedError(Exception):
    """A test depends on what is no counter, or a boundary crosses too many boxes."""


def decide(test: IndexTest) -> bool | None:
    """The outcome of a test where bounds prove it."""
    low, high = bounds(test.a - test.b)
    match test.op:
        case "lt" | "ge":
            below = True if high is not None and high < 0 else None
            below = False if low is not None and low >= 0 else below
            return below if test.op == "lt" or below is None else not below
        case "le" | "gt":
            most = True if high is not None and high <= 0 else None
            most = False if low is not None and low > 0 else most
            return most if test.op == "le" or most is None else not most
        case _:
            if low == high == 0:
                return test.op == "eq"
            apart = (low is not None and low > 0) or (high is not None and high < 0)
            return (test.op == "ne") if apart else None


def runs(
    body: tuple[Statement, ...], box: Box | None = None, tests: tuple[IndexTest, ...] = ()
) -> Iterator[Run]:
    """A body, and all that it holds."""
    box = box or {}
    yield body, box, tests
    for statement in body:
        match statement:
            case For(var, start, stop):
                inside = {**box, var.name: (var.lowest, var.highest)}
                within = IndexTest("ge", var.i, start), IndexTest("lt", var.i, stop)
                yield from runs(statement.body, inside, (*tests, *within))
            case Parallel() | Blocks() | Threads():
                counters = zip(statement.vars, statement.extents, strict=True)
                inside = {**box, **{var.name: (0, extent - 1) for var, extent in counters}}
                yield from runs(statement.body, inside, tests)
            case If(test):
                other = replace(test, op=OPPOSITE[test.op])
                yield from runs(statement.then, box, (*tests, test))
                yield from runs(statement.otherwise, box, (*tests, other))
            case _:
                pass


def combinations(box: Box, tests: Sequence[IndexTest], most: int) -> int:
    """How many combinations pass all tests. UncountedError where that takes more than `most`
    boxes."""
    return _Count(most).passing(box, tests)


@dataclass(slots=True)
class _Count:
    """Boxes that may still be looked at."""

    left: int

    def passing(self, box: Box, tests: Sequence[IndexTest]) -> int:
        """Of one box."""
        self.left -= 1
        if self.left < 0:
            raise UncountedError
        counters = {name: LoopVar(name, *ends).i for name, ends in box.items()}
        open_tests: list[IndexTest] = []
        for test in tests:
            here = IndexTest(test.op, substitute(test.a, counters), substitute(test.b, counters))
            outcome = decide(here)
            if outcome is False:
                return 0
            if outcome is None:
                open_tests.append(test)
        names = {s.name for t in open_tests for i in (t.a, t.b) for s in symbols_of(i)}
        if not names <= box.keys():
            raise UncountedError
        asked = {name: box[name] for name in sorted(names)}
        if _size(asked) <= _POINTS:
            return _counted_out(asked, open_tests) * (_size(box) // _size(asked))
        low, high = _halves(box, open_tests[0], counters)
        return self.passing(low, open_tests) + self.passing(high, open_tests)


def _size(box: Box) -> int:
    return prod(last - first + 1 for first, last in box.values())


def _counted_out(box: Box, tests: Sequence[IndexTest]) -> int:
    """The combinations of all counters that pass, one by one."""
    ranges = np.ix_(*(np.arange(first, last + 1) for first, last in box.values()))
    at = dict(zip(box, ranges, strict=True))
    passed = np.ones([last - first + 1 for first, last in box.values()], bool)
    for test in tests:
        passed &= FUNCTIONS[test.op].meaning(evaluate(test.a, at), evaluate(test.b, at))
    return int(np.count_nonzero(passed))


def _halves(box: Box, test: IndexTest, counters: Mapping[str, Dim]) -> tuple[Box, Box]:
    """Two boxes, along the counter that the two sides' difference depends on most."""
    apart = test.a - test.b
    names = {s.name for s in symbols_of(apart)}
    spans: dict[str, int] = {}
    for name in sorted(names & box.keys()):
        first, last = box[name]
        if first < last:
            held = substitute(apart, {**counters, name: first})
            low, high = bounds(held)
            spans[name] = 0 if low is None or high is None else high - low
    if not spans:
        raise UncountedError
    name = min(spans, key=spans.__getitem__)
    first, last = box[name]
    middle = (first + last) // 2
    return {**box, name: (first, middle)}, {**box, name: (middle + 1, last)}


def needed(tests: Sequence[IndexTest]) -> tuple[IndexTest, ...]:
    """Those of tests that all have to hold which do not follow from one before: 15 h + 4 b - 11 is
    not negative where h - 1 is not, and b is none below zero."""
    kept: list[tuple[IndexTest, Dim | None]] = []
    for test in tests:
        margin = _margin(test)
        margins = [other for _, other in kept if other is not None]
        if margin is None or not any(_follows(margin, other) for other in margins):
            kept.append((test, margin))
    return tuple(test for test, _ in kept)


def _margin(test: IndexTest) -> Dim | None:
    """What is not negative exactly where a test holds."""
    match test.op:
        case "ge":
            return test.a - test.b
        case "gt":
            return test.a - test.b - 1
        case "le":
            return test.b - test.a
        case "lt":
            return test.b - test.a - 1
        case _:
            return None


def _follows(margin: Dim, other: Dim) -> bool:
    """Whether one is at least a multiple of the other: as much of it as they have of a term."""
    own = dict(terms_of(margin))
    for monomial, coefficient in terms_of(other):
        same = own.get(monomial, 0) if monomial else 0
        if isinstance(same, int) and isinstance(coefficient, int) and same % coefficient == 0:
            times = same // coefficient
            low, _ = bounds(margin - other * times)
            if times > 0 and low is not None and low >= 0:
                return True
    return False
