"""Convolutions of stride 1 with a fraction of the products (Winograd), in blocks of tiles.

A piece of the parallel work takes a block of tiles through all three stages (`winograd_stages`),
which hand on to each other in memory of its own, within the second-level cache. Where filters are
large and tiles few, inputs are transformed by a kernel before, and pieces are of output channels:
each reads filters that no other piece reads, transformed when weights were bound, or as they are
written, and transforms them itself (`Plan.rows`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Buffer
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.epilogue import Draft, open_draft
from convdsl.schedules.cpu.filters import channels_layout, channels_packs
from convdsl.schedules.cpu.winograd_filters import Rows, transform_kernel
from convdsl.schedules.cpu.winograd_plan import Plan, plan
from convdsl.schedules.cpu.winograd_stages import Panel, Stages
from convdsl.schedules.emission import View
from convdsl.schedules.task import Pack, Schedule, Scheduled, Scratch, Task
from convdsl.tensor import Dim, dim_min, floor_div

_INPUTS, _FILTERS, _PRODUCTS = "tiles", "filters", "products"


def cost(task: Task, target: Target) -> float | None:
    """Cycles of the cheapest form."""
    found = plan(task, target)
    return None if found is None else found.cycles


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """The kernels of the cheapest form."""
    found = plan(task, target)
    assert found is not None
    return emit_as(task, name, found)


def emit_as(task: Task, name: str, made: Plan) -> Scheduled:
    """One kernel, or one for the inputs and one for the rest; before them one that transforms
    filters which are known in calls only."""
    emitter = _Winograd(task, made, name)
    kernels = emitter.apart() if made.apart else emitter.whole()
    return emitter.with_filters(kernels) if made.before else kernels


def note(task: Task, target: Target) -> str:
    """The form, and what errors it makes."""
    made = plan(task, target)
    return "" if made is None else made.tiling.said


class _Winograd:
    """Emits one convolution."""

    def __init__(self, task: Task, made: Plan, name: str) -> None:
        self.task, self.plan, self.name = task, made, name
        self.conv, self.pack = made.conv, made.pack
        self.dtype = self.conv.reduce.dtype
        whole, rest = divmod(made.vectors, made.tile.blocks)
        self.regions = [(0, whole, made.tile.blocks)] if whole else []
        self.regions += [(whole * made.tile.blocks, 1, rest)] if rest else []

        layout = channels_layout(task, self.conv.x)
        assert layout is not None
        self.layout, self.packs = layout, channels_packs(task, self.conv.x)

    def input(self, draft: Draft) -> View:
        """In vectors of channels."""
        name = self.conv.x.tensor.name
        packed = draft.packed.get(name)
        return draft.views[name] if packed is None else View(packed, self.layout)

    def panel_size(self, channels: int) -> int:
        made = self.plan
        return Panel.size(made.tiling.products, made.block, channels, made.lanes)

    def panel(self, buffer: Buffer, start: Dim, channels: int) -> Panel:
        return Panel(buffer, start, self.plan.block, channels, self.plan.lanes)

    def whole(self) -> Scheduled:
        """All stages in one kernel."""
        made, conv = self.plan, self.conv
        draft = self.draft(self.task, self.packs)
        b, x = draft.b, self.input(draft)
        v = b.private(_INPUTS, self.panel_size(made.channels))
        stages = Stages(b, conv, made.tiling, self.rows(b))
        m = self.products(b)
        extents = (conv.groups, made.parts, made.blocks)
        with b.parallel(("g", "part", "block"), extents) as (group, part, block):
            here = self.panel(v, 0, made.channels)
            with b.serial("tile", self.tiles(block)) as tile:
                stages.inputs(x, here, group, block * made.block + tile, tile)
            for first, count, blocks in self.regions:
                start, stop = (floor_div(at * count, made.parts) for at in (part, part + 1))
                with b.serial("kt", stop, start) as kt:
                    self.channels(draft, stages, here, m, group, first + kt * blocks, blocks, block)
        return self.finish(draft, (v, *stages.private, m.buffer))

    def apart(self) -> Scheduled:
        """The inputs' stage, then the others."""
        made, conv, x = self.plan, self.conv, self.conv.x.tensor
        size = self.panel_size(made.channels)
        total = conv.groups * made.blocks * size
        layout = self.layout
        b = Builder(f"{self.name}_inputs", self.dtype, made.lanes)
        view = View(b.buffer(x.name, x.type.dtype, layout.size), layout)
        v = b.buffer(_INPUTS, self.dtype, total, written=True)
        stages = Stages(b, conv, made.tiling)
        with b.parallel(("g", "tile"), (conv.groups, made.tiling.count)) as (group, tile):
            block = floor_div(tile, made.block)
            here = self.panel(v, (group * made.blocks + block) * size, made.channels)
            stages.inputs(view, here, group, tile, tile - block * made.block)
        read = (x.name, self.packs.get(x.name))
        own = (read, (_INPUTS, None), (stages.between.name, None))
        kept = tuple(o for o in self.task.operands if o.var != x or self.task.read_again(x.name))
        draft = self.draft(replace(self.task, operands=kept), {})
        given = draft.b.buffer(_INPUTS, self.dtype, total)
        stages = Stages(draft.b, conv, made.tiling, self.rows(draft.b))
        m = self.products(draft.b)
        for first, count, blocks in self.regions:
            extents = (conv.groups, made.blocks, count)  # inputs of a block while they are near
            with draft.b.parallel(("g", "block", "kt"), extents) as (group, block, kt):
                here = self.panel(given, (group * made.blocks + block) * size, made.channels)
                self.channels(draft, stages, here, m, group, first + kt * blocks, blocks, block)
        rest = self.finish(draft, (*stages.private, m.buffer), (given,))
        return Scheduled.one(b.kernel(), own).then(rest, Scratch(_INPUTS, self.dtype, total))

    def draft(self, task: Task, packs: Mapping[str, Pack]) -> Draft:
        conv, w = self.conv, self.conv.w.tensor
        if self.plan.before:
            task = replace(task, operands=tuple(o for o in task.operands if o.var != w))
        else:
            packs = {w.name: self.plan.read, **packs}
        draft = open_draft(task, self.name, conv.reduce, self.plan.lanes, conv.k, packs)
        if self.plan.before:
            draft.b.buffer(_FILTERS, self.dtype, self.pack.size)
        return draft

    def filters(self, draft: Draft) -> Buffer:
        """Transformed, or as they are where who needs them does it."""
        if not self.plan.before:
            return draft.packed[self.conv.w.tensor.name]
        return next(buffer for buffer in draft.b.declared if buffer.name == _FILTERS)

    def with_filters(self, others: Scheduled) -> Scheduled:
        """The kernel that transforms filters, and what reads them."""
        first = transform_kernel(f"{self.name}_filters", self.pack)
        read = (self.conv.w.tensor.name, self.pack.plain)
        own = (read, (_FILTERS, None), ("between", None))
        scratch = (Scratch(_FILTERS, self.dtype, self.pack.size), *others.scratch)
        return Scheduled(((first, own), *others.kernels), scratch)

    def rows(self, b: Builder) -> Rows | None:
        return Rows(b, self.pack) if self.plan.rows else None

    def products(self, b: Builder) -> Panel:
        wide = self.plan.tile.blocks * self.plan.lanes
        return self.panel(b.private(_PRODUCTS, self.panel_size(wide)), 0, wide)

    def tiles(self, block: Dim) -> Dim:
        """How many tiles a block has: the last may have fewer."""
        made = self.plan
        return dim_min(made.block, made.tiling.count - block * made.block)

    def channels(
        self,
        draft: Draft,
        stages: Stages,
        v: Panel,
        m: Panel,
        group: Dim,
        vector: Dim,
        blocks: int,
        block: Dim,
    ) -> None:
        """All outputs of a block of tiles for one tile of output channels."""
        made, filters = self.plan, self.filters(draft)
        if stages.rows is None:
            start = self.pack.start(group, vector, blocks)
            stages.products(filters, start, v, m, made.tile, blocks, made.ahead)
        else:
            rows = stages.rows
            rows.begin(filters, group, vector, blocks)
            with draft.b.serial("row", rows.count) as i:
                rows.make(i, blocks)
                one = (i * rows.width, rows.width)
                stages.products(rows.row, 0, v, m, made.tile, blocks, False, one)
        own = made.vectors if self.conv.groups > 1 else 0
        with draft.b.serial("tile", self.tiles(block)) as tile:
            number = block * made.block + tile
            stages.outputs(draft, m, group * own + vector, blocks, number, tile)

    def finish(
        self, draft: Draft, private: tuple[Buffer, ...], more: tuple[Buffer, ...] = ()
    ) -> Scheduled:
        """The draft with its scratch, in the order in which it was declared."""
        names = [_FILTERS, *(buffer.name for buffer in (*private, *more))]
        declared = [buffer for buffer in draft.b.declared if buffer.name in names]
        scratch = tuple(Scratch(p.name, p.dtype, p.size, private=True) for p in private)
        return replace(draft.finish(declared), scratch=scratch)


def winograd(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "winograd",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
        note=lambda task: note(task, target),
    )
