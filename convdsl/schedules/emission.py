"""Scalar expressions of a stage -> loop IR values, one lane or a vector of lanes at a time.

In vector mode one axis is bound to `base + lane`: the flat offset of every read is a polynomial
in `lane`, and its coefficient says what to emit: 1 a vector load, 0 a splat, anything else a
gather. Index tests that depend on the lane are decided lane by lane.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import product

from convdsl.kernel import expr, nodes
from convdsl.kernel.builder import Builder
from convdsl.kernel.counting import OPPOSITE, decide, needed
from convdsl.kernel.expr import Axis, Expr, Read, Reduce
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import (
    Buffer,
    Const,
    Fma,
    Gather,
    Get,
    IndexTest,
    Load,
    Splat,
    Value,
    ValueType,
)
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.kernel.vector_math import Vectors
from convdsl.schedules.spans import together
from convdsl.schedules.terms import Range, counted
from convdsl.tensor import Dim, DType, Symbol, bounds, floor_div, substitute, symbol, symbols_of
from convdsl.tensor.binding import depends_on, monomial_depends_on
from convdsl.tensor.dim import terms_of

UNROLLED = 16  # reductions of at most this many positions are unrolled
_LANE = "lane"


def starts_block(layout: Layout, index: Sequence[Dim]) -> bool:
    """Whether lanes from here on are a whole block: what is read where the place exists then never
    reaches beyond the last."""
    if layout.axis is None:
        return False
    place = substitute(index[layout.axis], {_LANE: 0})
    return place == floor_div(place, layout.block) * layout.block


def lane_symbol(lanes: int) -> Dim:
    """The position within a vector, as an index."""
    return symbol(_LANE, minimum=0, maximum=lanes - 1) if lanes > 1 else 0


def lane_stride(index: Dim) -> int | None:
    """Coefficient of the lane where the index is linear in it, else None."""
    stride = 0
    for monomial, coefficient in terms_of(index):
        if not monomial_depends_on(monomial, _LANE):
            continue
        atom, power = monomial[0]
        linear = len(monomial) == 1 and power == 1 and isinstance(atom, Symbol)
        if not linear or not isinstance(coefficient, int):
            return None
        stride = coefficient
    return stride


def depends_on_lane(index: Dim) -> bool:
    """Whether an index differs from lane to lane."""
    return depends_on(index, _LANE)


@dataclass(frozen=True, slots=True)
class View:
    """Where a variable of the expression lies."""

    buffer: Buffer
    layout: Layout


@dataclass(frozen=True, slots=True)
class Emitter:
    """Emits values into `b`; `lanes` 1 is scalar mode.

    Lanes from `valid` on are read neither by gathers nor from plain buffers, which have no
    filling. `known` holds values for expressions that the schedule has computed itself, `held`
    those of tensors that are in registers at this position;
    `loaded` remembers vectors, so that expressions emitted side by side load them once.
    `ends` has the extents of axes whose last vector may pass their end, into filling. `within`: all
    lanes that exist are known to read inside of tensors, where nothing is said of the outside.
    `spans`: vectors may be loaded from anywhere, and lanes that read near each other are.
    `picked`: places of picks that were found before.
    """

    b: Builder
    views: Mapping[str, View]
    lanes: int
    valid: int | None = None
    known: tuple[tuple[Expr, Value], ...] = ()
    loaded: dict[tuple[str, Dim], nodes.Var] | None = None
    held: Mapping[str, Value] = field(default_factory=dict[str, Value])
    ends: Mapping[str, int] = field(default_factory=dict[str, int])
    within: bool = False
    spans: bool = False
    picked: tuple[tuple[expr.Pick, tuple[Value, Dim]], ...] = ()

    def holding(self, held: Mapping[str, Value]) -> Emitter:
        """The same where these values are in registers too."""
        return replace(self, held={**self.held, **held})

    def type(self, dtype: DType) -> ValueType:
        return ValueType(dtype, self.lanes)

    def emit(self, e: Expr, at: Mapping[str, Dim], guards: tuple[IndexTest, ...] = ()) -> Value:
        """The value of `e` with its axes bound by `at`; reads only happen under the guards."""
        for expression, value in self.known:
            if expression == e:
                return value
        match e:
            case expr.Literal():
                return Const(e.value, self.type(e.dtype))
            case expr.Read() if e.tensor.name in self.held:
                return self.held[e.tensor.name]
            case expr.Read():
                value = self.read(e, at, guards)
                return value if isinstance(value, nodes.Var) else self.b.let(value, e.tensor.name)
            case expr.IndexValue():
                return self.index_value(e, at)
            case expr.IndexCompare():
                return self.index_compare(e, at)
            case expr.Unary():
                return self.function(e.op, self.emit(e.x, at, guards))
            case expr.Binary() | expr.Compare():
                return self.function(e.op, self.emit(e.a, at, guards), self.emit(e.b, at, guards))
            case expr.Select():
                return self.select(e, at, guards)
            case expr.Cast():
                return nodes.Cast(self.emit(e.x, at, guards), self.type(e.type))
            case expr.Reduce():
                return self.reduce(e, at, guards)
            case expr.Pick():
                return self.pick(e, at, guards)

    # Reads

    def read(self, e: Read, at: Mapping[str, Dim], guards: tuple[IndexTest, ...]) -> Value:
        view = self.views[e.tensor.name]
        index = [substitute(d, at) for d in e.index]
        extents = zip(index, e.tensor.type.sizes, strict=True)  # what stays inside needs no guard
        tests = [*guards] if any(bounds_tests(p, size) for p, size in extents) else []
        for axis, (position, extent) in enumerate(zip(index, e.tensor.type.shape, strict=True)):
            # The last vector of a blocked axis may pass the end of what is not blocked.
            filled = axis == view.layout.axis
            if filled and self.ends.get(str(e.index[axis])) == extent:
                continue
            if filled and self.ends and depends_on_lane(position):
                room = view.layout.blocks * view.layout.block
                tests += [t for t in bounds_tests(position, room) if t.op == "lt"]
            lanes = depends_on_lane(position) and not (filled or self.within)
            if e.outside is not None or lanes:
                assert isinstance(extent, int)
                tests += bounds_tests(self.existing(position), extent)
        offset = view.layout.offset(index)
        stride = lane_stride(offset)
        if any(depends_on_lane(t.a) or depends_on_lane(t.b) for t in tests):
            stride = None
        otherwise = 0.0 if e.outside is None else e.outside
        dtype = e.dtype
        if self.lanes == 1 or stride == 0:
            value = Load(view.buffer, offset, ValueType(dtype), tuple(tests), otherwise)
            if self.lanes == 1:
                return self.once(value, e.tensor.name)
            return Splat(value, self.type(dtype))
        first = substitute(offset, {_LANE: 0})
        block = self.lanes == view.layout.block and starts_block(view.layout, index)
        if stride == 1 and (block or self.whole(view, first)):
            value = Load(view.buffer, first, self.type(dtype), tuple(tests), otherwise)
            return self.once(value, e.tensor.name)
        if stride == 1 and self.valid is not None:
            type = self.type(dtype)
            return Load(view.buffer, first, type, tuple(tests), otherwise, self.valid)
        return self.gather(view, offset, [*tests, *self.before_ends(at)], otherwise, dtype)

    def before_ends(self, at: Mapping[str, Dim]) -> list[IndexTest]:
        """That a lane is not past the end of its axis."""
        return [IndexTest("lt", at[name], end) for name, end in self.ends.items() if name in at]

    def existing(self, position: Dim) -> Dim:
        """A position of lanes that exist."""
        if self.valid is None or not depends_on_lane(position):
            return position
        return substitute(position, {_LANE: lane_symbol(self.valid)})

    def decided(self, test: IndexTest) -> bool | None:
        """The outcome of a test where bounds prove it for all lanes that exist."""
        return decide(IndexTest(test.op, self.existing(test.a), self.existing(test.b)))

    def once(self, load: Load, name: str) -> Value:
        """What is loaded, from its first use on held where loads are remembered."""
        if self.loaded is None or load.guards:
            return load
        key = (load.buffer.name, load.index)
        if key not in self.loaded:
            self.loaded[key] = self.b.let(load, name)
        return self.loaded[key]

    def whole(self, view: View, first: Dim) -> bool:
        """Whether all lanes from `first` on may be read: lanes that do not exist lie in the filling
        of a blocked layout, unless the vector begins within a block (a slice of channels over
        maps of one position, which lie side by side) and so reaches beyond the last."""
        if self.valid is not None and view.layout.axis is None:
            return False
        _, last = bounds(first)
        return last is None or last + self.lanes <= view.buffer.size

    def gather(
        self, view: View, offset: Dim, tests: list[IndexTest], otherwise: float, dtype: DType
    ) -> Value:
        lanes: list[Value] = []
        for lane in range(self.lanes):
            if self.valid is not None and lane >= self.valid:
                lanes.append(Const(0, ValueType(dtype)))
                continue
            here = {_LANE: lane}
            guards: list[IndexTest] = []
            holds = True
            for test in tests:
                test = IndexTest(test.op, substitute(test.a, here), substitute(test.b, here))
                known = decide(test)
                holds = holds and known is not False
                if known is None:
                    guards.append(test)
            if not holds:
                lanes.append(Const(otherwise, ValueType(dtype)))
                continue
            where = substitute(offset, here)
            lanes.append(Load(view.buffer, where, ValueType(dtype), needed(guards), otherwise))
        gather = Gather(tuple(lanes), self.type(dtype))
        return together(self.b, gather, self.valid) if self.spans else gather

    # Indices as values

    def index_value(self, e: expr.IndexValue, at: Mapping[str, Dim]) -> Value:
        index = substitute(e.index, at)
        stride = lane_stride(index)
        if stride is not None:
            return nodes.IndexAsValue(substitute(index, {_LANE: 0}), stride, self.type(e.dtype))
        one = ValueType(e.dtype)
        lanes = (
            nodes.IndexAsValue(substitute(index, {_LANE: lane}), 0, one)
            for lane in range(self.lanes)
        )
        return Gather(tuple(lanes), self.type(e.dtype))

    def index_compare(self, e: expr.IndexCompare, at: Mapping[str, Dim]) -> Value:
        """A bool for each lane, or one bool where all lanes agree."""
        test = self.lane_free(IndexTest(e.op, substitute(e.a, at), substitute(e.b, at)))
        known = self.decided(test)
        if known is not None:
            return Const(known, self.type(DType.BOOL))
        if not (depends_on_lane(test.a) or depends_on_lane(test.b)):
            return test if self.lanes == 1 else Splat(test, self.type(DType.BOOL))
        sides = (self.index_value(expr.IndexValue(d, DType.I64), {}) for d in (test.a, test.b))
        return nodes.Compare(test.op, *sides)

    def lane_free(self, test: IndexTest) -> IndexTest:
        """lanes * m + lane < lanes * k says m < k: all lanes of a block agree."""
        if test.op not in ("lt", "ge") or self.lanes == 1:
            return test
        base = substitute(test.a, {_LANE: 0})
        if lane_stride(test.a) != 1 or depends_on_lane(test.b):
            return test
        a, b = floor_div(base, self.lanes), floor_div(test.b, self.lanes)
        if a * self.lanes == base and b * self.lanes == test.b:
            return IndexTest(test.op, a, b)
        return test

    def select(self, e: expr.Select, at: Mapping[str, Dim], guards: tuple[IndexTest, ...]) -> Value:
        tests = index_tests(e.condition)
        if tests is None:
            condition = self.emit(e.condition, at, guards)
            return nodes.Select(
                condition, self.emit(e.yes, at, guards), self.emit(e.no, at, guards)
            )
        bound = [
            self.lane_free(IndexTest(t.op, substitute(t.a, at), substitute(t.b, at))) for t in tests
        ]
        decided = list(map(self.decided, bound))
        if all(known is True for known in decided):
            return self.emit(e.yes, at, guards)
        if any(known is False for known in decided):
            return self.emit(e.no, at, guards)
        condition = self.emit(e.condition, at, guards)
        yes = self.emit(e.yes, at, (*guards, *bound))
        # Of several tests joined by `and`, the other arm knows only that one fails.
        negated = (replace(bound[0], op=OPPOSITE[bound[0].op]),) if len(bound) == 1 else ()
        no = self.emit(e.no, at, (*guards, *negated))
        return nodes.Select(condition, yes, no)

    def pick(self, e: expr.Pick, at: Mapping[str, Dim], guards: tuple[IndexTest, ...]) -> Value:
        """Lane by lane where the index differs from lane to lane."""
        if self.lanes > 1 and self.varies(e.index, at, guards):
            if guards or self.ends or not self.lies_beside(e.index, at):
                return self.one_by_one(e, at, guards)
            return self.pick_lanes(e, at)
        known = [place for pick, place in self.picked if pick == e]
        index, place = known[0] if known else self.place(e, at, guards)
        found = self.emit(e.body, {**at, e.axis.name: place}, guards)
        if e.outside is None:
            return found
        inside = nodes.Compare("eq", index, nodes.IndexAsValue(place, 0, index.type))
        return nodes.Select(inside, found, Const(e.outside, found.type))

    def place(
        self, e: expr.Pick, at: Mapping[str, Dim], guards: tuple[IndexTest, ...] = ()
    ) -> tuple[Value, Dim]:
        """What is picked in all lanes: the index, counted from the start, and where it lies."""
        one = replace(self, lanes=1, loaded=None, known=())
        index = self.b.let(one.from_start(e, one.emit(e.index, at, guards)), e.axis.name)
        return index, self.b.index(index, extent_of(e.axis), e.axis.name)

    def from_start(self, e: expr.Pick, index: Value) -> Value:
        """The index, counted from the start where it counts from the end."""
        if not e.from_end:
            return index
        index = self.b.let(index, e.axis.name)
        start, past = Const(0, index.type), Const(extent_of(e.axis), index.type)
        back = nodes.Binary("add", index, past)
        return nodes.Select(nodes.Compare("lt", index, start), back, index)

    def lies_beside(self, index: Expr, at: Mapping[str, Dim]) -> bool:
        """Whether all that an index is made of is a vector, or one value for all lanes."""
        for node in expr.walk(index):
            if isinstance(node, expr.Pick | Reduce):
                return False
            if isinstance(node, Read) and node.tensor.name not in self.held:
                place = [substitute(d, at) for d in node.index]
                stride = lane_stride(self.views[node.tensor.name].layout.offset(place))
                if node.outside is not None or stride not in (0, 1):
                    return False
        return True

    def pick_lanes(self, e: expr.Pick, at: Mapping[str, Dim]) -> Value:
        """Each lane from its own place; all places are made and bounded in vectors."""
        index = self.b.let(self.from_start(e, self.emit(e.index, at)), e.axis.name)
        last = Const(extent_of(e.axis) - 1, index.type)
        place = nodes.Binary("min", nodes.Binary("max", index, Const(0, index.type)), last)
        places = self.b.let(place, e.axis.name)
        items: list[Value] = []
        for lane in range(self.lanes):
            if self.valid is not None and lane >= self.valid:
                items.append(Const(0, ValueType(e.dtype)))
                continue
            bound = {name: substitute(d, {_LANE: lane}) for name, d in at.items()}
            bound[e.axis.name] = self.b.index(
                nodes.Lane(places, lane), extent_of(e.axis), e.axis.name
            )
            held = {name: nodes.Lane(value, lane) for name, value in self.held.items()}
            one = replace(self, lanes=1, loaded=None, known=(), held=held)
            items.append(one.emit(e.body, bound))
        found = Gather(tuple(items), self.type(e.dtype))
        if e.outside is None:
            return found
        inside = nodes.Compare("eq", index, places)
        return nodes.Select(inside, found, Const(e.outside, found.type))

    def varies(self, e: Expr, at: Mapping[str, Dim], guards: tuple[IndexTest, ...]) -> bool:
        """Whether a value depends on the lane, or may be read in some lanes only."""
        if any(read.tensor.name in self.held for read in expr.reads(e)):
            return True
        indices = [d for node in expr.walk(e) for d in expr.indices_of(node)]
        indices += [d for test in guards for d in (test.a, test.b)]
        return any(depends_on_lane(substitute(d, at)) for d in indices)

    def one_by_one(self, e: Expr, at: Mapping[str, Dim], guards: tuple[IndexTest, ...]) -> Value:
        """Each lane by itself."""
        items: list[Value] = []
        for lane in range(self.lanes):
            if self.valid is not None and lane >= self.valid:
                items.append(Const(0, ValueType(e.dtype)))
                continue
            here = {_LANE: lane}
            bound = {name: substitute(index, here) for name, index in at.items()}
            ends = self.before_ends(bound)
            if any(decide(test) is False for test in ends):
                items.append(Const(0, ValueType(e.dtype)))
                continue
            tests = [IndexTest(t.op, substitute(t.a, here), substitute(t.b, here)) for t in guards]
            tests += [test for test in ends if decide(test) is None]
            held = {name: nodes.Lane(value, lane) for name, value in self.held.items()}
            one = replace(self, lanes=1, loaded=None, known=(), held=held)
            items.append(one.emit(e, bound, tuple(tests)))
        return Gather(tuple(items), self.type(e.dtype))

    # Arithmetic

    def function(self, op: str, *operands: Value) -> Value:
        return Vectors(self.b).apply(op, operands)

    # Reductions

    def reduce(self, e: Reduce, at: Mapping[str, Dim], guards: tuple[IndexTest, ...]) -> Value:
        return self.reductions(e, [at], guards)[0]

    def reductions(
        self, e: Reduce, places: Sequence[Mapping[str, Dim]], guards: tuple[IndexTest, ...] = ()
    ) -> list[Value]:
        """The same reduction at several places, side by side in the same loops: so that one does
        not wait for the other, and what they share is loaded once."""
        acc = self.b.registers(len(places), self.type(e.dtype))
        for slot in range(acc.count):
            self.b.set(acc, slot, Const(REDUCTIONS[e.op].neutral(e.dtype), acc.type))
        ranges: dict[str, Range] = {}
        if len(places) == 1 and not are_unrolled(e.axes):
            e, ranges = counted(e, places[0], _LANE)
        with self.positions(e, places[0], ranges) as loops:
            for bound in loops:
                here = self if len(places) == 1 else replace(self, loaded={})
                for slot, at in enumerate(places):
                    here.combine(e, acc, slot, {**at, **bound}, guards)
        return [self.b.let(Get(acc, slot), e.op) for slot in range(acc.count)]

    @contextmanager
    def positions(
        self, e: Reduce, at: Mapping[str, Dim], ranges: Mapping[str, Range]
    ) -> Generator[Iterator[dict[str, Dim]]]:
        """Bindings of reduction axes: many unrolled ones, or one inside loops. What decides which
        lanes count is unrolled, if it has few positions."""
        apart = e.axes if are_unrolled(e.axes) else self.asked(e, at)
        apart = apart if are_unrolled(apart) else ()
        with ExitStack() as stack:
            bound: dict[str, Dim] = {}
            for axis in e.axes:
                if axis not in apart:
                    first, past = ranges.get(axis.name, (0, extent_of(axis)))
                    loop = self.b.serial(axis.name, past, first)
                    bound[axis.name] = stack.enter_context(loop)
            names = [axis.name for axis in apart]
            yield (
                {**bound, **dict(zip(names, position, strict=True))}
                for position in product(*(range(extent_of(axis)) for axis in apart))
            )

    def asked(self, e: Reduce, at: Mapping[str, Dim]) -> tuple[Axis, ...]:
        """The axes that tests of lanes move with, where no bound of theirs is known."""
        tests = [substitute(d, at) for node in expr.walk(e.body) for d in _compared(node)]
        tests = [d for d in tests if depends_on_lane(d)]
        names = {symbol.name for d in tests for symbol in symbols_of(d)}
        return tuple(axis for axis in e.axes if axis.name in names)

    def combine(
        self,
        e: Reduce,
        acc: nodes.Registers,
        slot: int,
        at: Mapping[str, Dim],
        guards: tuple[IndexTest, ...],
    ) -> None:
        old, body = Get(acc, slot), e.body
        exact = body.dtype is e.dtype and e.dtype.is_float
        if e.op == "sum" and exact and isinstance(body, expr.Binary) and body.op == "mul":
            a, b = self.emit(body.a, at, guards), self.emit(body.b, at, guards)
            self.b.set(acc, slot, Fma(a, b, old))
            return
        value = self.emit(body, at, guards)
        if body.dtype is not e.dtype:
            value = nodes.Cast(value, acc.type)
        self.b.set(acc, slot, nodes.Binary(REDUCTIONS[e.op].combine, old, value))


def are_unrolled(axes: Sequence[Axis]) -> bool:
    """Whether the positions of reduction axes are few enough to be unrolled."""
    return math.prod(map(extent_of, axes)) <= UNROLLED


def _compared(node: Expr) -> tuple[Dim, ...]:
    return (node.a, node.b) if isinstance(node, expr.IndexCompare) else ()


def extent_of(axis: Axis) -> int:
    """The extent of an axis as a number."""
    assert isinstance(axis.extent, int), "kernels are made for bound shapes"
    return axis.extent


def bounds_tests(position: Dim, extent: int) -> list[IndexTest]:
    """What must be checked for 0 <= position < extent; nothing that can be proven."""
    low, high = bounds(position)
    tests: list[IndexTest] = []
    if low is None or low < 0:
        tests.append(IndexTest("ge", position, 0))
    if high is None or high >= extent:
        tests.append(IndexTest("lt", position, extent))
    return tests


def index_tests(condition: Expr) -> list[IndexTest] | None:
    """The index tests that a condition joins by `and`; None where it holds anything else."""
    match condition:
        case expr.IndexCompare():
            return [IndexTest(condition.op, condition.a, condition.b)]
        case expr.Binary() if condition.op == "and":
            a, b = index_tests(condition.a), index_tests(condition.b)
            return None if a is None or b is None else a + b
        case _:
            return None
