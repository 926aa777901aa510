"""Convolutions to few channels, in vectors along the rows of planes.

    to k channels, U phases: for c, r, s: acc[k, f, p] += x[c, r, 16 p + s ..] w[k, c, r, s]

Inputs that are blocked are turned, and those whose rows have borders copied, into memory of the
iteration's own, a band of rows with zeros around; no tap tests anything then.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from convdsl.kernel.builder import Builder
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import (
    Buffer,
    Const,
    Get,
    IndexTest,
    Load,
    Registers,
    Shuffle,
    Value,
    ValueType,
)
from convdsl.kernel.target import Target
from convdsl.schedules.chain import emit_chain
from convdsl.schedules.contraction import Convolution, Space
from convdsl.schedules.cpu.planar_plan import Numbers, Taps, Way, cost, plan
from convdsl.schedules.cpu.tiles import evenly
from convdsl.schedules.cpu.transpose import transposed
from convdsl.schedules.emission import Emitter, View, bounds_tests, extent_of, lane_symbol
from convdsl.schedules.frame import Frame
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, dim_max, dim_min, substitute
from convdsl.tensor.records import record

_UNROLLED = 256  # multiply-adds of a row of taps; beyond, its taps are a loop


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """Images, bands of rows and strips of them in parallel."""
    way = plan(task, target)
    assert way is not None
    planar, filters = way.planar, way.planar.conv.w.tensor
    layouts = {filters.name: Layout(filters_shape(way))}
    frame = Frame.open(way.task, name, way.lanes, layouts)
    size, dtype = way.channels * way.channel, planar.reduce.dtype
    held = frame.b.private("held", size, dtype) if way.held else None
    _Planar(way, frame, held).all()
    return frame.finish([] if held is None else [held])


def filters_shape(way: Way) -> tuple[int, ...]:
    """Of the whole array of filters, of which phases have parts."""
    return way.task.operand(way.planar.conv.w.tensor.name).var.type.sizes


@record
class _At:
    """Where the emitter stands: the image, positions of the axes but the last, the first one of
    the band, the strip; the group, where each has loops of its own."""

    n: Dim
    places: tuple[Dim, ...]
    first: Dim
    strip: Dim
    group: Dim | None


@record
class _Piece:
    """A tile: channels of a group from k on, vectors of a row from v on; `left` are the outputs of
    the row that there are from there on, if not all are."""

    group: Dim
    k: Dim
    channels: int
    v: Dim
    vectors: int
    left: int | None = None


class _Planar:
    """Emits one such convolution."""

    def __init__(self, way: Way, frame: Frame, held: Buffer | None) -> None:
        self.way, self.b, self.views = way, frame.b, frame.views
        self.planar, self.conv, self.held = way.planar, way.planar.conv, held
        self.phases = way.planar.strides[-1]
        self.type = ValueType(way.planar.reduce.dtype, way.lanes)

    def all(self) -> None:
        """Everything."""
        way, planar, b = self.way, self.planar, self.b
        outer = len(planar.outs) - 1
        strips = -(-way.vectors // way.strip)
        others = [planar.count(axis) for axis in range(max(0, outer - 1))]
        bands = -(-planar.count(-2) // way.band) if outer else 1
        n = extent_of(way.task.axes[0])
        # Groups that read what lies elsewhere are met one after the other: few rows of few channels
        # at a time are what a processor foresees.
        groups = 1 if self.held is not None else self.conv.groups
        names = ["n", "g", *(f"i{axis}" for axis in range(len(others))), "band", "strip"]
        extents = [n, groups, *others, bands, strips]
        with b.parallel(names, extents) as (image, group, *places, band, strip):
            own = group if self.held is None else None
            at = _At(image, tuple(places), band * way.band, strip, own)
            if self.held is not None:
                _Filling(self, self.held, at).all()
            for row in planar.rows:
                self.phase(row, at)

    def phase(self, row: Numbers, at: _At) -> None:
        """All positions of one phase of the axes but the last."""
        way, planar, b = self.way, self.planar, self.b
        with ExitStack() as stack:
            for axis, place in enumerate(at.places):
                if planar.count(axis, row[axis]) < planar.count(axis):
                    test = IndexTest("lt", place, planar.count(axis, row[axis]))
                    stack.enter_context(b.when(test))
            places = at.places
            if row:
                past = dim_min(at.first + way.band, planar.count(-2, row[-1]))
                places = (*places, stack.enter_context(b.serial("i", past, at.first)))
            for piece in self.pieces(at):
                self.tile(row, at, places, piece)

    def pieces(self, at: _At) -> Generator[_Piece]:
        """The tiles of a row's strip, each in its loops."""
        way, b = self.way, self.b
        wide = way.tile.vectors
        outs, each = self.planar.outs[-1], self.phases * way.lanes * wide
        whole, left = divmod(outs, each)
        strips = -(-way.vectors // way.strip)
        channel, own = 0, self.conv.channels_out
        for size, count in evenly(own, way.tile.channels):
            with ExitStack() as loops:
                group = at.group
                if group is None:
                    group = loops.enter_context(b.serial("g", self.conv.groups))
                kt = loops.enter_context(b.serial("kt", count))
                k = group * own + channel + kt * size
                first = at.strip * (way.strip // wide) if strips > 1 else 0
                past = dim_min(first + way.strip // wide, whole) if strips > 1 else whole
                if whole:
                    with b.serial("tile", past, first) as tile:
                        yield _Piece(group, k, size, tile * wide, wide)
                if left:
                    vectors = -(-left // (self.phases * way.lanes))
                    with ExitStack() as stack:
                        if strips > 1:
                            last = IndexTest("eq", at.strip, strips - 1)
                            stack.enter_context(b.when(last))
                        yield _Piece(group, k, size, whole * wide, vectors, left)
            channel += count * size

    # A tile

    def tile(self, row: Numbers, at: _At, places: Sequence[Dim], piece: _Piece) -> None:
        """Sum all channels and taps, then what follows, and the stores."""
        b = self.b
        acc = b.registers(piece.channels * self.phases * piece.vectors, self.type)
        b.zero(acc)
        across = self.planar.across(row)
        met = next((taps for taps in across if taps is not None), None)
        if met is not None:
            with b.serial("c", self.conv.channels_in) as c, self.taps(met.conv) as taps:
                bound = taps if met.conv.c is None else {**taps, met.conv.c.name: c}
                channel = piece.group * self.conv.channels_in + c
                where = self.row(met.conv, at, places, channel, bound)
                self.products(acc, across, bound, where, piece)
        for k in range(piece.channels):
            for v in range(piece.vectors):
                slots = (self.slot(piece, k, f, v) for f in range(self.phases))
                sums = [Get(acc, slot) for slot in slots]
                self.store(row, at, places, piece, k, v, self.woven(sums))

    def slot(self, piece: _Piece, k: int, f: int, v: int) -> int:
        return (k * self.phases + f) * piece.vectors + v

    @contextmanager
    def taps(self, conv: Convolution) -> Generator[dict[str, Dim]]:
        """The taps of the axes but the last, as loops."""
        with ExitStack() as stack:
            yield {
                space.tap.name: stack.enter_context(self.b.serial("r", space.taps))
                for space in conv.space[:-1]
                if space.tap is not None
            }

    def row(
        self, conv: Convolution, at: _At, places: Sequence[Dim], c: Dim, taps: Mapping[str, Dim]
    ) -> tuple[Buffer, Dim]:
        """Where a channel's row begins that a tap of the other axes reads."""
        way, planar = self.way, self.planar
        outs = {s.out.name: place for s, place in zip(conv.space, places, strict=False)}
        read = [substitute(d, {**outs, **taps}) for d in conv.x.index[2:-1]]
        if self.held is None:
            view = self.views[conv.x.tensor.name]
            return view.buffer, view.layout.offset([at.n, c, *read, 0])
        line: Dim = 0
        for axis, place in enumerate(read):
            own = at.first if axis == len(read) - 1 else places[axis]
            start = own * conv.space[axis].stride + planar.low(axis)
            line = line * way.span(axis) + place - start
        before = way.before * way.lanes - at.strip * (way.strip * way.lanes)
        return self.held, c * way.channel + line * way.pitch + before

    def products(
        self,
        acc: Registers,
        across: Sequence[Taps | None],
        bound: Mapping[str, Dim],
        where: tuple[Buffer, Dim],
        piece: _Piece,
    ) -> None:
        """One channel, one tap of the axes but the last, all taps along the row."""
        met = {f: taps for f, taps in enumerate(across) if taps is not None}
        counts = {f: taps.conv.space[-1].taps for f, taps in met.items()}
        if len(across) == 1 and counts[0] > 1 and acc.count * counts[0] > _UNROLLED:
            space = met[0].conv.space[-1]
            with self.b.serial("s", space.taps) as tap:
                shift = substitute(met[0].conv.x.index[-1], {**_tap(space, tap), space.out.name: 0})
                self.shifted(acc, [(0, met[0], tap)], bound, where, piece, shift)
            return
        shifts: dict[int, list[tuple[int, Taps, Dim]]] = {}
        for f, taps in met.items():
            for tap in range(counts[f]):
                shifts.setdefault(taps.shift(tap), []).append((f, taps, tap))
        for shift in sorted(shifts):
            self.shifted(acc, shifts[shift], bound, where, piece, shift)

    def shifted(
        self,
        acc: Registers,
        own: Sequence[tuple[int, Taps, Dim]],
        bound: Mapping[str, Dim],
        where: tuple[Buffer, Dim],
        piece: _Piece,
        shift: Dim,
    ) -> None:
        """What reads the row so far from its positions: the phases, and their taps."""
        b, lanes = self.b, self.way.lanes
        buffer, start = where
        rows: list[Value] = []
        for v in range(piece.vectors):
            index = start + (piece.v + v) * lanes + shift
            valid = None
            if self.held is None and piece.left is not None:
                left = -(-piece.left // self.phases) - v * lanes
                valid = left if left < lanes else None
            rows.append(b.let(Load(buffer, index, self.type, valid=valid), "row"))
        for k in range(piece.channels):
            for f, taps, tap in own:
                at = {**bound, **_tap(taps.conv.space[-1], tap), taps.conv.k.name: piece.k + k}
                view = self.views[taps.conv.w.tensor.name]
                weight = b.splat(view.buffer, view.layout.offset(taps.filter(at)))
                for v, value in enumerate(rows):
                    b.accumulate(acc, self.slot(piece, k, f, v), value, weight)

    def woven(self, phases: Sequence[Value]) -> list[Value]:
        """Neighbouring outputs: element e is of phase e mod U."""
        count, lanes = len(phases), self.way.lanes
        if count == 1:
            return [*phases]
        known = [self.b.let(value) for value in phases]
        made: list[Value] = []
        for u in range(count):
            wanted = [divmod(u * lanes + lane, count) for lane in range(lanes)]
            value: Value = known[0]
            here = {lane: at for lane, (at, f) in enumerate(wanted) if f == 0}
            for f in range(1, count):
                new = {lane: lanes + at for lane, (at, own) in enumerate(wanted) if own == f}
                order = {**here, **new}
                picks = tuple(order.get(lane, lane) for lane in range(lanes))
                value = self.b.let(Shuffle(value, known[f], picks), "woven")
                here = {lane: lane for lane in order}
            made.append(value)
        return made

    def store(
        self,
        row: Numbers,
        at: _At,
        places: Sequence[Dim],
        piece: _Piece,
        k: int,
        v: int,
        sums: Sequence[Value],
    ) -> None:
        """The task's stages on vectors of neighbouring outputs."""
        task, planar, lanes = self.way.task, self.planar, self.way.lanes
        image, channel, *space = task.axes
        bound: dict[str, Dim] = {image.name: at.n, channel.name: piece.k + k}
        for axis, place in enumerate(places):
            bound[space[axis].name] = place * planar.strides[axis] + row[axis]
        for u, value in enumerate(sums):
            begin = (v * self.phases + u) * lanes
            left = None if piece.left is None else piece.left - begin
            if left is not None and left <= 0:
                continue
            valid = left if left is not None and left < lanes else None
            first = piece.v * (self.phases * lanes) + begin
            known = ((planar.reduce, value),)
            emitter = Emitter(self.b, self.views, lanes, valid, known, spans=True)
            along = {**bound, space[-1].name: first + lane_symbol(lanes)}
            emit_chain(emitter, task, along, {**bound, space[-1].name: first}, valid)


def _tap(space: Space, tap: Dim) -> dict[str, Dim]:
    return {} if space.tap is None else {space.tap.name: tap}


@record
class _Filling:
    """Brings the inputs of a band to where they are held."""

    made: _Planar
    held: Buffer
    at: _At

    @property
    def way(self) -> Way:
        return self.made.way

    @property
    def b(self) -> Builder:
        return self.made.b

    @property
    def view(self) -> View:
        return self.made.views[self.made.conv.x.tensor.name]

    @property
    def zero(self) -> Value:
        return Const(0.0, self.made.type)

    def all(self) -> None:
        """Row after row; those that are not there are zeros."""
        way, planar, at, b = self.way, self.made.planar, self.at, self.b
        spaces = self.made.conv.space[:-1]
        with ExitStack() as stack:
            read: list[Dim] = []
            line: Dim = 0
            tests: list[IndexTest] = []
            for axis, place in enumerate(at.places):
                e = stack.enter_context(b.serial("e", way.span(axis)))
                read.append(place * spaces[axis].stride + planar.low(axis) + e)
                tests += bounds_tests(read[-1], spaces[axis].extent)
                line = line * way.span(axis) + e
            if tests:
                self.nothing(line * way.span(len(spaces) - 1), way.span(len(spaces) - 1))
                for test in tests:
                    stack.enter_context(b.when(test))
            if spaces:
                self.rows(read, line * way.span(len(spaces) - 1), spaces[-1])
            else:
                self.row(read, line)

    def rows(self, read: Sequence[Dim], line: Dim, space: Space) -> None:
        """Those of the band: some ahead of the first of the input, some of it, some behind."""
        axis = len(self.made.conv.space) - 2
        span = self.way.span(axis)
        base = self.at.first * space.stride + self.made.planar.low(axis)
        low = dim_min(dim_max(-base, 0), span)
        high = dim_max(dim_min(space.extent - base, span), low)
        self.nothing(line, low)
        with self.b.serial("line", high, low) as e:
            self.row([*read, base + e], line + e)
        self.nothing(line + high, span - high)

    def nothing(self, line: Dim, count: Dim) -> None:
        """Zeros for some rows of all channels."""
        if count == 0:
            return
        with self.b.serial("c", self.way.channels) as c, self.b.serial("e", count) as e:
            self.vectors(c * self.way.channel + (line + e) * self.way.pitch, 0, self.pitch)

    @property
    def pitch(self) -> int:
        """Vectors of a row that is held."""
        return self.way.pitch // self.way.lanes

    def vectors(self, start: Dim, first: Dim, past: Dim) -> None:
        """Zeros for some vectors of a row."""
        with self.b.serial("zero", past, first) as m:
            self.b.store(self.held, start + m * self.way.lanes, self.zero)

    def row(self, read: Sequence[Dim], line: Dim) -> None:
        """One row of all channels, and zeros on both sides."""
        way, b = self.way, self.b
        whole, rest = divmod(self.made.conv.space[-1].extent, way.lanes)
        ahead = way.before - self.at.strip * way.strip  # vectors before the first of the input
        low = dim_min(dim_max(ahead, 0), self.pitch)
        high = dim_max(dim_min(whole + ahead, self.pitch), low)
        behind = dim_max(dim_min(whole + ahead + (rest > 0), self.pitch), low)
        together = way.lanes if way.turned else 1
        with b.serial("c", way.channels // together) as c:
            where = [(c * together + i) * way.channel + line * way.pitch for i in range(together)]
            for start in where:
                self.vectors(start, 0, low)
                self.vectors(start, behind, self.pitch)
            with b.serial("m", high, low) as m:
                self.copy(read, c * together, m - ahead, where, m, way.lanes)
            if rest:
                m = whole + ahead
                with ExitStack() as stack:
                    for test in bounds_tests(m, self.pitch):
                        stack.enter_context(b.when(test))
                    self.copy(read, c * together, m - ahead, where, m, rest)

    def copy(
        self,
        read: Sequence[Dim],
        c: Dim,
        vector: Dim,
        where: Sequence[Dim],
        m: Dim,
        valid: int,
    ) -> None:
        """A vector of a row of one channel, or of a block of them that is turned."""
        lanes, layout = self.way.lanes, self.view.layout
        if len(where) == 1:
            index = layout.offset([self.at.n, c, *read, vector * lanes])
            part = valid if valid < lanes else None
            made: list[Value] = [Load(self.view.buffer, index, self.made.type, valid=part)]
        else:
            places = [
                layout.offset([self.at.n, c, *read, vector * lanes + i]) for i in range(valid)
            ]
            loads: list[Value] = [self.b.load(self.view.buffer, place) for place in places]
            made = transposed(self.b, [*loads, *[self.zero] * (lanes - valid)])
        for start, value in zip(where, made, strict=True):
            self.b.store(self.held, start + m * lanes, value)


def planar(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "planar",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
