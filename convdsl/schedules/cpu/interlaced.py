"""Sums whose terms follow each other in steps along rows: patches added up where they were.

    y[.., U q + f] = sum over t of x[.., q + c(f, t)]        f < U

Of one phase f a vector of positions q meets each term as a vector of x, which lies side by side;
the phases are summed next to each other, and woven into rows when they leave. Near the ends of a
row, where some terms are missing, vectors stand at positions that are known, so that each lane is
decided when code is made. Which rows are met is a bound of the loops over them (`schedules.terms`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from itertools import product
from math import lcm, prod
from typing import TypeAlias

from convdsl.kernel.builder import Builder
from convdsl.kernel.counting import decide
from convdsl.kernel.expr import Axis, IndexCompare, Read, Reduce, arithmetic, indices_of, walk
from convdsl.kernel.nodes import Const, Get, IndexTest, Value, ValueType
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.kernel.target import Target
from convdsl.schedules.chain import emit_chain
from convdsl.schedules.contraction import depends
from convdsl.schedules.cpu.weaving import turning, woven
from convdsl.schedules.emission import Emitter, View, bounds_tests, extent_of, lane_symbol
from convdsl.schedules.frame import Frame
from convdsl.schedules.phases import floors_of
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.schedules.terms import Range, counted
from convdsl.tensor import Dim, substitute
from convdsl.tensor.records import record

_SUMS = 4  # vectors that are summed side by side, so that additions do not wait for each other
_TERMS = 32  # vectors that one position of the loops may add: they are written out
_CODE = 256  # vectors that all pieces of a row may add
_ROW, _ROUND = 20.0, 4.0  # cycles of a row, and of a round of the loops over its terms

Term: TypeAlias = "tuple[int, tuple[int, ...]]"  # a phase, and where the axes of a row's terms are
Block: TypeAlias = "tuple[Dim, int | None]"  # its number, and how many elements if not all


@record
class Interlaced:
    """A reduction in `steps` phases along the last axis, `terms` of which are there; `own` are the
    axes that decide which lanes count, `outer` the others. From block `first` to `last` of a row
    all terms are whole vectors."""

    reduce: Reduce
    axis: Axis
    steps: int
    own: tuple[Axis, ...]
    outer: tuple[Axis, ...]
    terms: tuple[Term, ...]
    lanes: int
    first: int
    last: int

    @property
    def block(self) -> int:
        """Elements of a block: a vector of each phase."""
        return self.steps * self.lanes

    @property
    def width(self) -> int:
        """Blocks that are summed side by side."""
        return max(1, _SUMS // self.steps)

    @property
    def blocks(self) -> int:
        return -(-extent_of(self.axis) // self.block)

    @property
    def looped(self) -> range:
        """Blocks in the middle of a row, whole groups of them; nothing that would not repeat."""
        groups = (self.last - self.first) // self.width
        return range(self.first, self.first + (groups * self.width if groups > 1 else 0))

    def groups(self, blocks: range) -> Iterator[list[Block]]:
        """Blocks at known places, those that are summed side by side together."""
        for start in range(blocks.start, blocks.stop, self.width):
            yield [self.of(block) for block in range(start, min(start + self.width, blocks.stop))]

    def of(self, block: int) -> Block:
        left = extent_of(self.axis) - block * self.block
        return block, (left if left < self.block else None)

    @property
    def code(self) -> int:
        """Vectors that are added in all pieces of a row."""
        known = self.blocks - len(self.looped)
        return len(self.terms) * (known + (self.width if self.looped else 0))


@lru_cache(maxsize=4096)
def plan(task: Task, target: Target) -> Interlaced | None:
    """None where it is no such sum, or where it would take too much code."""
    lanes = target.lanes(task.element)
    reduces = [e for stage in task.stages for e in walk(stage.body) if isinstance(e, Reduce)]
    plain = task.layout.axis is None and task.ending is None and not task.over
    if not plain or lanes < 4 or len(reduces) != 1 or len(task.axes) < 2:
        return None
    if any(o.layout is None or o.layout.axis is not None for o in task.operands):
        return None
    (reduce,), axis = reduces, task.axes[-1]
    steps = _steps(reduce, axis)
    if not 1 <= steps <= lanes or not any(isinstance(e, IndexCompare) for e in walk(reduce.body)):
        return None
    own = tuple(a for a in reduce.axes if any(depends(d, a) for d in _deciding(reduce, axis)))
    outer = tuple(a for a in reduce.axes if a not in own)
    if not own or prod(map(extent_of, own)) * steps > _TERMS:
        return None
    found = _terms(reduce, axis, steps, own)
    if found is None or not found[0] or not _side_by_side(task, reduce, axis, steps):
        return None
    terms, low, high = found
    whole = extent_of(axis) // (steps * lanes)
    first = min(-(-low // lanes), whole)
    last = max(first, min(high // lanes, whole))
    made = Interlaced(reduce, axis, steps, own, outer, terms, lanes, first, last)
    return made if made.code <= _CODE else None


def _steps(reduce: Reduce, axis: Axis) -> int:
    """By what the axis is divided in it."""
    indices = (d for e in walk(reduce.body) for d in indices_of(e))
    floors = (floor for d in indices for floor in floors_of(d))
    by = [f.denominator for f in floors if depends(f.numerator, axis)]
    return lcm(*(d for d in by if isinstance(d, int))) if all(isinstance(d, int) for d in by) else 0


def _tests(reduce: Reduce) -> Iterator[IndexTest]:
    """What decides which terms count, and where reads leave what is there."""
    for e in walk(reduce.body):
        if isinstance(e, IndexCompare):
            yield IndexTest(e.op, e.a, e.b)
        if isinstance(e, Read) and e.outside is not None:
            for index, extent in zip(e.index, e.tensor.type.sizes, strict=True):
                yield from bounds_tests(index, extent)


def _deciding(reduce: Reduce, axis: Axis) -> list[Dim]:
    """What is compared of tests that differ along an axis."""
    return [t.a - t.b for t in _tests(reduce) if depends(t.a - t.b, axis)]


def _terms(
    reduce: Reduce, axis: Axis, steps: int, own: tuple[Axis, ...]
) -> tuple[tuple[Term, ...], int, int] | None:
    """The terms that count anywhere, and from which position of a phase to which all do; None
    where a test is none of a position and these axes alone."""
    tests = [t for t in _tests(reduce) if depends(t.a - t.b, axis)]
    terms: list[Term] = []
    first, last = 0, -(-extent_of(axis) // steps)
    for phase in range(min(steps, extent_of(axis))):
        count = -(-(extent_of(axis) - phase) // steps)
        for place in product(*(range(extent_of(a)) for a in own)):
            at = {axis.name: axis.i * steps + phase, **_bound(own, place)}
            low, high = 0, count
            for test in tests:
                found = _holds(test, at, axis, count)
                if found is None:
                    return None
                low, high = max(low, found[0]), min(high, found[1])
            if low < high:
                terms.append((phase, place))
                # a phase that ends a position before the others do not shortens them
                first, last = max(first, low), min(last, high + (high == count))
    return tuple(terms), first, last


def _holds(
    test: IndexTest, at: Mapping[str, Dim], axis: Axis, count: int
) -> tuple[int, int] | None:
    """From which position to which a test holds."""
    difference = substitute(test.a - test.b, at)
    if test.op in ("le", "gt"):  # of whole numbers
        test, difference = IndexTest({"le": "lt", "gt": "ge"}[test.op], 0, 0), difference - 1
    start = substitute(difference, {axis.name: 0})
    step = substitute(difference, {axis.name: 1}) - start
    if not isinstance(start, int) or not isinstance(step, int):
        return None
    if difference != axis.i * step + start or step < 0:
        return None
    if step == 0:
        known = decide(IndexTest(test.op, start, 0))
        return (0, count if known else 0)
    begin = max(0, min(count, -(start // step)))
    return {"ge": (begin, count), "lt": (0, begin)}.get(test.op)


def _bound(axes: Sequence[Axis], place: Sequence[int]) -> dict[str, Dim]:
    return {axis.name: at for axis, at in zip(axes, place, strict=True)}


def _side_by_side(task: Task, reduce: Reduce, axis: Axis, steps: int) -> bool:
    """Whether each read of a phase goes on place by place along the axis, or stays."""
    inner = {e.tensor.name for e in walk(reduce.body) if isinstance(e, Read)}
    layouts = {o.var.name: o.layout for o in task.operands if o.var.name in inner}
    for read in (e for e in walk(reduce.body) if isinstance(e, Read)):
        layout = layouts.get(read.tensor.name)
        if layout is None:
            return False
        for phase in range(steps):
            at = {axis.name: axis.i * steps + phase}
            where = layout.offset([substitute(d, at) for d in read.index])
            left = where - axis.i
            if depends(left, axis) and depends(where, axis):
                return False
    return True


def cost(task: Task, target: Target) -> float | None:
    """Cycles: a term a vector, a few for each row and round, and shuffles."""
    made = plan(task, target)
    if made is None:
        return None
    rounds = prod(map(extent_of, made.outer))
    work = arithmetic(made.reduce.body)
    assert isinstance(work, int)
    terms = len(made.terms) * (1 + work / 2)
    known = made.blocks - len(made.looped)
    sums = rounds * (made.blocks * (terms + _ROUND / made.width) + known * terms / 2)
    shuffles = min(made.steps * (made.steps - 1), turning(made.lanes)) / 2
    leaving = made.blocks * (shuffles + made.steps * 2)
    return prod(map(extent_of, task.axes[:-1])) * (_ROW + sums + leaving)


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """Rows in parallel, each in groups of blocks."""
    made = plan(task, target)
    assert made is not None
    frame = Frame.open(task, name, made.lanes)
    rows, b = task.axes[:-1], frame.b
    kernel = _Rows(b, frame.views, task, made)
    looped = made.looped
    with b.parallel([a.name for a in rows], [extent_of(a) for a in rows]) as places:
        at = {a.name: place for a, place in zip(rows, places, strict=True)}
        for group in made.groups(range(looped.start)):
            kernel.blocks(at, group)
        if looped:
            with b.serial("group", len(looped) // made.width) as number:
                start = looped.start + number * made.width
                kernel.blocks(at, [(start + block, None) for block in range(made.width)])
        for group in made.groups(range(looped.stop, made.blocks)):
            kernel.blocks(at, group)
    return frame.finish()


@record
class _Rows:
    """The kernel under construction."""

    b: Builder
    views: Mapping[str, View]
    task: Task
    plan: Interlaced

    def blocks(self, at: Mapping[str, Dim], blocks: Sequence[Block]) -> None:
        """A few blocks of a row: sums of all phases, then what leaves."""
        plan, b = self.plan, self.b
        type = ValueType(plan.reduce.dtype, plan.lanes)
        acc = b.registers(len(blocks) * plan.steps, type)
        for slot in range(acc.count):
            b.set(acc, slot, Const(REDUCTIONS[plan.reduce.op].neutral(type.dtype), type))
        reduces = self.reduces(at, blocks[0][0])
        with self.rounds(reduces[0][1]) as outer:
            for phase, place in plan.terms:
                for number, (block, valid) in enumerate(blocks):
                    emitter = self.emitter(valid, phase)
                    if emitter is not None:
                        bound = {**at, **outer, **_bound(plan.own, place)}
                        bound[plan.axis.name] = self.position(block, phase)
                        slot = number * plan.steps + phase
                        emitter.combine(reduces[phase][0], acc, slot, bound, ())
        for number, (block, valid) in enumerate(blocks):
            slots = range(number * plan.steps, (number + 1) * plan.steps)
            self.leave(at, block, valid, [b.let(Get(acc, slot)) for slot in slots])

    def position(self, block: Dim, phase: int) -> Dim:
        plan = self.plan
        return (block * plan.lanes + lane_symbol(plan.lanes)) * plan.steps + phase

    def emitter(self, valid: int | None, phase: int) -> Emitter | None:
        """Of a phase of a block of which so many elements are there; None where none is its own.
        What its terms read is there wherever they count."""
        lanes = self.plan.lanes
        left = lanes if valid is None else max(0, -(-(valid - phase) // self.plan.steps))
        own = left if left < lanes else None
        return Emitter(self.b, self.views, lanes, own, within=True, spans=True) if left else None

    def reduces(self, at: Mapping[str, Dim], block: Dim) -> list[tuple[Reduce, dict[str, Range]]]:
        """For each phase the reduction without the tests that bound the loops, and these bounds:
        they are those of rows, the same for all."""
        found: list[tuple[Reduce, dict[str, Range]]] = []
        own = {axis.name for axis in self.plan.own}
        for phase in range(self.plan.steps):
            place = {**at, self.plan.axis.name: self.position(block, phase)}
            reduce, ranges = counted(self.plan.reduce, place, "lane")
            found.append((reduce, {name: r for name, r in ranges.items() if name not in own}))
        return found

    @contextmanager
    def rounds(self, ranges: Mapping[str, Range]) -> Generator[dict[str, Dim]]:
        """Loops over the other axes."""
        with ExitStack() as stack:
            bound: dict[str, Dim] = {}
            for axis in self.plan.outer:
                start, past = ranges.get(axis.name, (0, extent_of(axis)))
                bound[axis.name] = stack.enter_context(self.b.serial(axis.name, past, start))
            yield bound

    def leave(
        self, at: Mapping[str, Dim], block: Dim, valid: int | None, sums: Sequence[Value]
    ) -> None:
        """The phases of a block as vectors of the row, and what follows from them."""
        plan, lanes = self.plan, self.plan.lanes
        there = plan.block if valid is None else valid
        by_tiles = plan.steps * (plan.steps - 1) > turning(lanes)
        made = sums
        if plan.steps > 1:
            made = woven(self.b, sums, -(-there // lanes), by_tiles=by_tiles)
        for number, value in enumerate(made):
            left = there - number * lanes
            own = left if left < lanes else None
            first = block * plan.block + number * lanes
            emitter = Emitter(self.b, self.views, lanes, own, ((plan.reduce, value),), spans=True)
            place = {**at, plan.axis.name: first + lane_symbol(lanes)}
            emit_chain(emitter, self.task, place, {**at, plan.axis.name: first}, own)


def interlaced(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "interlaced",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
