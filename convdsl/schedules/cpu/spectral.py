"""Convolutions with large filters by products in the frequency domain, in tiles.

Channels that meet are run as Winograd's convolutions are: only the forms differ (`fourier`). Of
channels by themselves a tile goes through all stages at once, one vector of channels at a time:
transforms along the first axis; of every line the transform along the second, its products with
the filter, and the way back; and the way back along the first. What lies between takes the place
of what it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from math import prod

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Binary, Buffer, Value
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import Convolution
from convdsl.schedules.cpu import depthwise
from convdsl.schedules.cpu.epilogue import Draft, open_draft
from convdsl.schedules.cpu.filters import channels_packs, packing_cycles
from convdsl.schedules.cpu.memory import FAR
from convdsl.schedules.cpu.winograd import emit_as
from convdsl.schedules.cpu.winograd_filters import WinogradPack, transform_kernel
from convdsl.schedules.cpu.winograd_plan import Plan, filter_cycles, plan
from convdsl.schedules.cpu.winograd_stages import either, reading, writing
from convdsl.schedules.emission import extent_of
from convdsl.schedules.steps import transformed
from convdsl.schedules.task import Schedule, Scheduled, Scratch, Task
from convdsl.schedules.winograd_tiling import Tiling, spectral_tilings
from convdsl.tensor import Dim, DType
from convdsl.tensor.records import record

_FILTERS, _BETWEEN = "filters", "lines"


@record
class Alone:
    """How a convolution of channels by themselves is run. `late`: filters are known in calls
    only."""

    conv: Convolution
    tiling: Tiling
    lanes: int
    cycles: float
    late: bool

    @property
    def pack(self) -> WinogradPack:
        """U[vector of channels][product][lane]"""
        conv = self.conv
        return WinogradPack(
            (extent_of(conv.k), 1, *(s.taps for s in conv.space)),
            tuple(line.form.m for line in self.tiling.lines),
            tuple(s.flip for s in conv.space),
            self.lanes,
            1,
            (1,),
        )

    @property
    def lines(self) -> tuple[int, int]:
        """Lines of products, and how far apart they begin: one vector more than they need, so that
        a column of them does not meet in one set of the cache."""
        forms = [line.form for line in self.tiling.active]
        return (1 if len(forms) == 1 else forms[0].products), forms[-1].t + 1


_OPERATION = 0.6  # cycles of an operation of a transform, what it spills included
_NEAR = 32.0  # bytes a cycle from the second-level cache
_L2_SHARE = 0.75  # of the second-level cache, for what every tile goes through
_PASSES = 4  # how often what lies between the stages is written or read


@lru_cache(maxsize=512)
def alone(task: Task, target: Target) -> Alone | None:
    """The cheapest; None where none applies."""
    return min(plans_alone(task, target), key=lambda made: made.cycles, default=None)


def plans_alone(task: Task, target: Target) -> Iterator[Alone]:
    """All that apply."""
    conv, lanes = depthwise.applies(task), task.layout.block
    if conv is None or not _applies(task, conv) or lanes != target.lanes(DType.F32):
        return
    late = not task.operand(conv.w.tensor.name).static
    for tiling in spectral_tilings(conv):
        made = Alone(conv, tiling, lanes, 0.0, late)
        yield replace(made, cycles=_cycles(made, task, target))


def _applies(task: Task, conv: Convolution) -> bool:
    """Of f32, in steps of one, filters in the order of their axes."""
    if conv.order or task.over or task.ending or task.read_again(conv.w.tensor.name):
        return False
    dtypes = {conv.reduce.dtype, conv.x.dtype, conv.w.dtype}
    return dtypes == {DType.F32} and all(s.stride == 1 for s in conv.space)


def _cycles(made: Alone, task: Task, target: Target) -> float:
    """Operations, and the traffic of filters and lines: a Zen 5, on which others were tuned too."""
    tiling, forms = made.tiling, [line.form for line in made.tiling.active]
    last = forms[-1]
    each = made.lines[0] * (last.inputs.operations + last.products + last.outputs.operations)
    if len(forms) == 2:
        first = forms[0]
        each += first.inputs.operations * last.t + first.outputs.operations * last.m
    vectors = -(-extent_of(made.conv.k) // made.lanes)
    lines, room = 4 * prod(made.lines) * made.lanes, target.caches.l2_bytes * _L2_SHARE
    filters = 4 * tiling.products * made.lanes
    traffic = filters / (_NEAR if filters + lines <= room else FAR)
    if lines > target.caches.l1_bytes:
        traffic += _PASSES * lines / (_NEAR if lines <= room else FAR)
    packs = {made.conv.w.tensor.name: made.pack.plain, **channels_packs(task, made.conv.x)}
    packing = packing_cycles(task, packs)
    if made.late:
        packing += vectors * filter_cycles(tiling)
    return tiling.count * vectors * (_OPERATION * each + traffic) + packing


class _Alone:
    """Emits one convolution of channels by themselves."""

    def __init__(self, task: Task, made: Alone, name: str) -> None:
        self.task, self.plan, self.name = task, made, name
        self.conv, self.tiling, self.pack = made.conv, made.tiling, made.pack
        self.forms = [line.form for line in made.tiling.active]

    def emit(self) -> Scheduled:
        made, conv, w = self.plan, self.conv, self.conv.w.tensor
        task, packs = self.task, channels_packs(self.task, conv.x)
        if made.late:
            task = replace(task, operands=tuple(o for o in task.operands if o.var != w))
        else:
            packs = {w.name: self.pack, **packs}
        draft = open_draft(task, self.name, conv.reduce, made.lanes, conv.k, packs)
        b, own = draft.b, list[Buffer]()
        if made.late:
            own.append(b.buffer(_FILTERS, DType.F32, self.pack.size))
        size = prod(made.lines) * made.lanes
        own.append(b.private(_BETWEEN, size))
        filters = own[0] if made.late else draft.packed[w.name]
        extents = (-(-extent_of(conv.k) // made.lanes), self.tiling.count)
        with b.parallel(("kb", "tile"), extents) as (vector, tile):
            self._tile(draft, filters, own[-1], vector, tile)
        scratch = (Scratch(_BETWEEN, DType.F32, size, private=True),)
        finished = replace(draft.finish(own), scratch=scratch)
        return self._after_filters(finished) if made.late else finished

    def _after_filters(self, others: Scheduled) -> Scheduled:
        """The kernel that transforms filters, and what reads them."""
        first = transform_kernel(f"{self.name}_filters", self.pack)
        read = (self.conv.w.tensor.name, self.pack.plain)
        between = Scratch("between", DType.F32, self.pack.products * self.plan.lanes, private=True)
        own = (read, (_FILTERS, None), (between.name, None))
        scratch = (Scratch(_FILTERS, DType.F32, self.pack.size), between, *others.scratch)
        return Scheduled(((first, own), *others.kernels), scratch)

    def _tile(self, draft: Draft, filters: Buffer, between: Buffer, vector: Dim, tile: Dim) -> None:
        """All stages of one tile."""
        b, channel = draft.b, vector * draft.b.lanes
        image, firsts = self.tiling.place(tile)
        begin, start = (image, channel), self.pack.start(0, vector, 1)
        x = draft.view(self.conv.x.tensor.name)
        whole = len(self.forms) == 2
        made = writing(draft, self.conv, self.tiling, begin, firsts, across=whole)
        for guarded in either(b, self.tiling, firsts):
            given = reading(b, self.tiling, x, begin, firsts, guarded)
            if whole:
                self._forward(b, given, between)
                continue
            row = [b.let(given(0, j), "d") for j in range(self.forms[0].t)]
            for j, value in enumerate(self._line(b, filters, start, row)):
                made(0, j, value)
        if whole:
            self._across(b, filters, start, between)
            self._back(b, between, self.tiling.there(firsts)[1], made)

    def _place(self, b: Builder, i: Dim, j: Dim) -> Dim:
        """Of a number on a line, between the stages."""
        return (i * self.plan.lines[1] + j) * b.lanes

    def _forward(self, b: Builder, given: Callable[[Dim, Dim], Value], between: Buffer) -> None:
        """Along the first axis."""
        first, second = self.forms
        with b.serial("j", second.t) as j:
            column = [b.let(given(i, j), "d") for i in range(first.t)]
            for i, value in enumerate(transformed(b, first.inputs, column)):
                b.store(between, self._place(b, i, j), value)

    def _across(self, b: Builder, filters: Buffer, start: Dim, between: Buffer) -> None:
        """Every line along the second axis, there and back: results lie where inputs were."""
        first, second = self.forms
        with b.serial("i", first.products) as i:
            row = [b.load(between, self._place(b, i, j)) for j in range(second.t)]
            own = start + i * second.products * b.lanes
            for j, value in enumerate(self._line(b, filters, own, row)):
                b.store(between, self._place(b, i, j), value)

    def _line(self, b: Builder, filters: Buffer, start: Dim, row: Sequence[Value]) -> list[Value]:
        """Along the last axis: the transform, the products, and back."""
        last = self.forms[-1]
        products = [
            b.let(Binary("mul", value, b.load(filters, start + p * b.lanes)))
            for p, value in enumerate(transformed(b, last.inputs, row))
        ]
        return transformed(b, last.outputs, products)

    def _back(
        self, b: Builder, between: Buffer, columns: Dim, made: Callable[[Dim, Dim, Value], None]
    ) -> None:
        """Along the first axis, in the columns of outputs that there are."""
        first = self.forms[0]
        with b.serial("j", columns) as j:
            column = [b.load(between, self._place(b, i, j)) for i in range(first.products)]
            for i, value in enumerate(transformed(b, first.outputs, column)):
                made(i, j, value)


def spectral(target: Target) -> Schedule:
    """The schedule for a processor."""

    def together(task: Task) -> Plan | None:
        return plan(task, target, spectral_tilings)

    def cost(task: Task) -> float | None:
        """Cycles of the cheapest form."""
        bids = [made.cycles for made in (alone(task, target), together(task)) if made is not None]
        return min(bids, default=None)

    def emit(task: Task, name: str) -> Scheduled:
        """The kernels of the cheapest form."""
        single, several = alone(task, target), together(task)
        if single is not None and (several is None or single.cycles <= several.cycles):
            return emit_alone(task, name, single)
        assert several is not None
        return emit_as(task, name, several)

    def note(task: Task) -> str:
        """The form, and what errors it makes."""
        made = alone(task, target) or together(task)
        return "" if made is None else made.tiling.said

    return Schedule("spectral", cost, emit, note=note)


def emit_alone(task: Task, name: str, made: Alone) -> Scheduled:
    """One kernel; before it one that transforms filters which are known in calls only."""
    return _Alone(task, made, name).emit()
