"""One elaboration: the graph under construction, what was found wrong, what was spent."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

from convdsl.diagnostics import CompileError, Diagnostic, Frame, Label, Span
from convdsl.elaborate import limits
from convdsl.forking import CYCLES, compiling, open_lock, sheltered
from convdsl.ir.graph import Graph, Value
from convdsl.spelling import nearest
from convdsl.syntax import ast
from convdsl.syntax.limits import DIAGNOSTICS, INTEGER_BITS
from convdsl.tensor import SymDim, TensorType

DEPTH = "E0802"
WEIGHT_PER_STEP = 8  # elements or characters that take about as long as a step


T = TypeVar("T")


class Stop(Exception):
    """Raised after a diagnostic was recorded; what was being evaluated becomes poison."""


class Refused(Stop):
    """An assertion does not hold: what its body goes on to say was not written for this."""


class Halt(Exception):
    """Raised after a limit was passed; elaboration ends."""


class Session:
    """Shared by everything that takes part in one elaboration."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.states: dict[str, Value] = {}
        self.diagnostics: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self.unfit: set[tuple[str, str]] = set()  # names whose values fitted nothing, and how
        self.undeclared: set[tuple[str, ...]] = set()  # of open sizes, and told to be
        self.trees: dict[int, ast.File] = {}  # by the id of the source
        self.instantiated: set[int] = set()  # ids of blocks' definitions
        self.is_as_written = True  # no values come from outside
        self.causes: set[Span] = set()  # of FOLLOWING, places that others follow from
        self.depth = 0
        self._seen: set[tuple[str, Span | None]] = set()
        self._steps = 0
        self._nodes = 0
        self._constants = 0
        self._lengths: dict[SymDim, int] = {}
        self._admitted: dict[TensorType, list[SymDim]] = {}  # with the sizes that count as steps

    def report(self, diagnostic: Diagnostic) -> None:
        """Record a diagnostic, once per code and place; stop at the limit."""
        key = (diagnostic.code, diagnostic.span)
        if key in self._seen:
            return
        self._seen.add(key)
        self.diagnostics.append(diagnostic)
        if len(self.diagnostics) >= DIAGNOSTICS:
            raise Halt

    def fail(
        self,
        code: str,
        message: str,
        *labels: tuple[Span, str] | Span,
        frames: tuple[Frame, ...] = (),
        help: tuple[str, ...] = (),
        notes: Iterable[str] = (),
    ) -> Stop:
        """Record an error and return what to raise."""
        made = tuple(Label(x) if isinstance(x, Span) else Label(*x) for x in labels)
        self.report(Diagnostic(code, message, made, frames, tuple(notes), help))
        return Stop()

    def warn(
        self,
        code: str,
        message: str,
        *labels: tuple[Span, str] | Span,
        frames: tuple[Frame, ...] = (),
        help: tuple[str, ...] = (),
    ) -> None:
        """Record what is likely a mistake, once per code and place, as many as errors at most."""
        made = tuple(Label(x) if isinstance(x, Span) else Label(*x) for x in labels)
        key = (code, made[0].span)
        if key not in self._seen and len(self.warnings) < DIAGNOSTICS:
            self._seen.add(key)
            self.warnings.append(Diagnostic(code, message, made, frames, (), help, "warning"))

    def halt(
        self,
        code: str,
        message: str,
        span: Span | None,
        frames: tuple[Frame, ...],
        help: tuple[str, ...] = (),
    ) -> Halt:
        """Record that a limit was passed and return what to raise. Of blocks that instantiate each
        other without end one round is told."""
        labels = (Label(span),) if span else ()
        cycle = _cycle(frames)
        if cycle and code == DEPTH:
            names = list(dict.fromkeys(f"`{f.description.partition('(')[0]}`" for f in cycle[::-1]))
            chain = " in ".join([*names[::-1], names[-1]])
            text = f"blocks within blocks without end: {chain}"
            note = f"{len(frames):,} blocks deep, in {frames[0].description}; {message}"
            help = ("let a condition end it: `if n == 0 { ... } else { ... }`",)
            made = (Label(cycle[0].span),) if cycle[0].span is not None else labels
            self.report(Diagnostic(code, text, made, cycle[1:], (note,), help))
        else:
            self.report(Diagnostic(code, message, labels, cycle or frames, (), help))
        return Halt()

    def step(self, span: Span, frames: tuple[Frame, ...]) -> None:
        """Count a step."""
        self._steps += 1
        if self._steps > limits.STEPS:
            text = f"more than {limits.STEPS:,} steps to elaborate"
            raise self.halt("E0805", text, span, frames, _ONCE)

    def enter(self, span: Span, frames: tuple[Frame, ...]) -> None:
        """Count a step one level further down; the caller takes `depth` back."""
        self._steps += 1
        self.depth += 1
        if self._steps > limits.STEPS:
            self._steps -= 1
            self.step(span, frames)
        if self.depth > limits.DEPTH:
            text = f"expressions and blocks nest deeper than {limits.DEPTH:,}"
            raise self.halt(DEPTH, text, span, frames)

    def count_node(self, span: Span, frames: tuple[Frame, ...]) -> None:
        self._nodes += 1
        if self._nodes > limits.NODES:
            raise self.halt("E0803", f"more than {limits.NODES:,} operators", span, frames)

    def count_tensors(self, count: int, span: Span, frames: tuple[Frame, ...]) -> None:
        """Count what goes into or comes out of an operator as steps, where it is much."""
        if count > WEIGHT_PER_STEP:
            self._steps += count
            self.step(span, frames)

    def charge(self, value: object, span: Span, frames: tuple[Frame, ...]) -> None:
        """Count a long list, text or symbolic size as the steps that handling it takes."""
        if isinstance(value, str):
            weight = len(value)
        elif isinstance(value, SymDim):
            weight = self._length(value)
        else:
            weight = getattr(value, "weight", 0)
        if weight > WEIGHT_PER_STEP:
            self._steps += weight // WEIGHT_PER_STEP
            self.step(span, frames)

    def admit(self, type: TensorType, span: Span, frames: tuple[Frame, ...]) -> None:
        """Count a tensor's symbolic sizes as steps; end where it is too large to be counted."""
        weights = self._admitted.get(type)
        if weights is None:
            known = math.prod(extent for extent in type.shape if isinstance(extent, int))
            if not self.bounded(known) or not all(map(self.bounded, type.shape)):
                raise self.halt("E0806", "a tensor too large to be counted", span, frames)
            sizes = [extent for extent in type.shape if isinstance(extent, SymDim)]
            weights = [extent for extent in sizes if self._length(extent) > WEIGHT_PER_STEP]
            self._admitted[type] = weights
        for extent in weights:
            self.charge(extent, span, frames)

    def reserve(self, elements: int, span: Span, frames: tuple[Frame, ...]) -> None:
        """Count the elements of a constant before it is made."""
        self._constants += elements
        if self._constants > limits.CONSTANTS:
            text = f"fixed kernels of more than {limits.CONSTANTS:,} elements"
            raise self.halt("E0806", text, span, frames)

    def bounded(self, extent: object) -> bool:
        """Whether a size is small enough to be written down and computed with."""
        if isinstance(extent, SymDim):
            return self._length(extent) <= limits.DIM_TEXT
        return not isinstance(extent, int) or extent.bit_length() <= INTEGER_BITS

    def _length(self, extent: SymDim) -> int:
        """Characters of a symbolic size, written out."""
        known = self._lengths.get(extent)
        if known is None:
            many = len(extent.terms) > limits.DIM_TEXT // 4
            known = self._lengths[extent] = limits.DIM_TEXT + 1 if many else len(str(extent))
        return known

    def finish(self) -> None:
        """Raise CompileError where anything was found wrong."""
        if any(d.severity == "error" for d in self.diagnostics):
            raise CompileError(self.told())

    def told(self) -> list[Diagnostic]:
        """What is found, without what follows from the rest: where a chain is broken, its first
        half goes nowhere."""
        rest = [d for d in self.diagnostics if d.code not in FOLLOWING or d.span in self.causes]
        return rest if any(d.severity == "error" for d in rest) else self.diagnostics


_ONCE = (
    "a table of all pairs is arithmetic of tensors, `parameter([n, 1], ...) - parameter([n], ...)`",
    "what several blocks need, such as a table, is computed once by a `let` of the file",
)

FOLLOWING = {"E0409"}
"""Codes of what is told where nothing else is wrong: the result of a statement is not used."""

ROUNDS = 3
"""Of one call of a block within itself, after which it counts as one without end."""


def _cycle(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """The innermost round of blocks that instantiate each other again and again, if they do."""
    if not frames:
        return ()
    rounds = [i for i, frame in enumerate(frames) if frame.span == frames[0].span]
    return frames[: rounds[1]] if len(rounds) > ROUNDS else ()


def suggest(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """`did you mean ...?` where something similar is known."""
    near = nearest(word, known)
    return (f"did you mean `{near}`?",) if near is not None else ()


SUGGESTED = re.compile(r"did you mean `([^`]+)`\?")
"""What `suggest` says, for those who take it at its word."""


class Room:
    """Makes room in Python while trees are walked and graphs grow.

    Its recursion limit is lifted; DEPTH bounds the walk itself. It belongs to the whole
    interpreter: the first to enter changes it, the last to leave puts it back. Its search for
    garbage in cycles pauses as well (`forking.CYCLES`).
    """

    def __init__(self) -> None:
        self._lock = open_lock()
        self._users = 0
        self._depth = 0

    def during(self, work: Callable[[], T]) -> T:
        """What work() returns, done in here."""
        with compiling():
            return sheltered(self._enter, work, self._leave)

    def _enter(self) -> None:
        with self._lock:
            if self._users == 0:
                self._depth = sys.getrecursionlimit()
                sys.setrecursionlimit(self._depth + limits.DEPTH * limits.FRAMES_PER_LEVEL)
            self._users += 1
        CYCLES.pause()

    def _leave(self) -> None:
        CYCLES.resume()
        with self._lock:
            self._users -= 1
            if self._users == 0:
                sys.setrecursionlimit(self._depth)


ROOM = Room()
