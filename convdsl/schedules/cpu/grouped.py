"""Convolutions in groups that do not fill vectors: the input's lanes move to where they are needed.

    y[k] += x[g(k) C/G + c] w[k, c]     for the lanes k of a vector, which belong to several groups

For each c the inputs of all lanes are a shuffle of one or two vectors of x, so that every product
is one that counts. Which lanes go where depends on the vector of outputs, and repeats after some.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm

from convdsl.kernel.nodes import Registers, Shuffle, Value
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import Convolution, match_convolution
from convdsl.schedules.cpu.epilogue import open_draft
from convdsl.schedules.cpu.filters import channels_layout, channels_packs, packing_cycles
from convdsl.schedules.cpu.group_tiles import GroupTile, filter_pack
from convdsl.schedules.cpu.runs import runs_of
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Pack, Schedule, Scheduled, Task
from convdsl.tensor import Dim
from convdsl.tensor.records import record

_PATTERNS = 16  # ways in which lanes move: each is code of its own
_UNROLLED = 1024  # products of the innermost code


@record
class _Pattern:
    """The vectors of outputs `first`, `first` + `every` ...: for each channel c of a group, the
    vectors of x that it comes from, counted from that of the pattern's first lane (one or two), and
    the lanes of these. From one such vector to the next, x moves by `step` vectors."""

    first: int
    every: int
    count: int
    start: int
    step: int
    sources: tuple[tuple[int, ...], ...]
    lanes: tuple[tuple[int, ...], ...]


def patterns_of(conv: Convolution, block: int) -> tuple[_Pattern, ...]:
    """All of them; nothing where there are too many, or some lanes come from three vectors."""
    own, channels = conv.channels_out, conv.channels_in
    every = lcm(own, block) // block
    moved = every * block // own * channels
    every, moved = every * (lcm(moved, block) // moved), lcm(moved, block)
    blocks, whole = -(-extent_of(conv.k) // block), extent_of(conv.k) // block
    if min(every, blocks) > _PATTERNS:
        return ()
    found: list[_Pattern] = []
    firsts = [*range(min(every, whole)), *range(whole, blocks)]  # one that is ragged by itself
    for first in firsts:
        moves = _moves(conv, block, first)
        if moves is None:
            return ()
        count = len(range(first, whole, every)) if first < whole else 1
        start = first * block // own * channels // block
        found.append(_Pattern(first, every, count, start, moved // block, *moves))
    return tuple(found)


def _moves(
    conv: Convolution, block: int, number: int
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]] | None:
    """The vectors that a vector of outputs reads, and their lanes; what does not exist stays at the
    last channel that does."""
    own, channels, total = conv.channels_out, conv.channels_in, conv.x.tensor.type.sizes[1]
    groups = [min((number * block + lane) // own, conv.groups - 1) for lane in range(block)]
    start = groups[0] * channels // block
    sources: list[tuple[int, ...]] = []
    lanes: list[tuple[int, ...]] = []
    for c in range(channels):
        places = [min(group * channels + c, total - 1) for group in groups]
        used = sorted({place // block for place in places})
        if len(used) > 2:
            return None
        sources.append(tuple(vector - start for vector in used))
        lanes.append(tuple(used.index(p // block) * block + p % block for p in places))
    return tuple(sources), tuple(lanes)


def applies(task: Task) -> Convolution | None:
    """Vectors of channels; groups of several channels that are not whole vectors."""
    conv = match_convolution(task.root)
    block = task.layout.block
    if conv is None or task.ending is not None or task.layout.axis != 1 or block < 2:
        return None
    if channels_layout(task, conv.x) is None:
        return None
    if conv.groups == 1 or conv.channels_out % block == 0:
        return None
    if conv.channels_in == conv.channels_out == 1:
        return None
    small = conv.channels_in * conv.space[-1].taps <= _UNROLLED // 4
    return conv if small and patterns_of(conv, block) else None


def width_for(conv: Convolution, task: Task, target: Target) -> int:
    """Columns of the tile: as many as registers, and the size of the code, allow."""
    vectors = target.vector_registers // target.registers(task.layout.block, conv.reduce.dtype)
    code = _UNROLLED // (conv.channels_in * conv.space[-1].taps)
    most = max(1, min(vectors - 6, 14, code))
    tiles = -(-conv.space[-1].outs // most)
    return -(-conv.space[-1].outs // tiles)


def packs_for(conv: Convolution, task: Task) -> dict[str, Pack]:
    """How the filters are packed, and the input where it is plain."""
    filters = {conv.w.tensor.name: filter_pack(conv, task)}
    return {**filters, **channels_packs(task, conv.x)}


def cost(task: Task, target: Target) -> float | None:
    """A shuffle for each product, one a cycle; two where lanes come from two vectors."""
    conv = applies(task)
    if conv is None:
        return None
    block = task.layout.block
    vectors = task.layout.size / block * target.registers(block, conv.reduce.dtype)
    packing = packing_cycles(task, packs_for(conv, task))
    return vectors * conv.taps * conv.channels_in * 1.5 + packing


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """For each pattern rows of tiles; images, vectors and rows are shared out."""
    conv = applies(task)
    assert conv is not None
    lanes, pack = task.layout.block, filter_pack(conv, task)
    draft = open_draft(task, name, conv.reduce, lanes, conv.k, packs_for(conv, task))
    outer = conv.space[:-1]
    names = ["n", "kb", *(space.out.name for space in outer), *(axis.name for axis in task.over)]
    runs = runs_of(conv.space[-1], width_for(conv, task, target))
    for pattern in patterns_of(conv, lanes):
        extents = [extent_of(conv.n), pattern.count, *(space.outs for space in outer)]
        extents += map(extent_of, task.over)
        with draft.b.parallel(names, extents) as places:
            at = dict(zip(names, places, strict=True))
            for run in runs:
                with draft.b.serial("tile", run.count) as tile:
                    start = run.start + tile * run.width
                    _Tile(draft, conv, pack, at, run, start, pattern).all()
    return draft.finish()


@record
class _Tile(GroupTile):
    """Channels are unrolled: each moves its lanes in a way of its own."""

    pattern: _Pattern

    @property
    def block(self) -> Dim:
        return self.pattern.first + self.at["kb"] * self.pattern.every

    def sweep(self, acc: Registers, taps: Sequence[Dim], reach: Sequence[int]) -> None:
        for c in range(self.conv.channels_in):
            self.products(acc, taps, reach, c)

    def input(self, places: Sequence[Dim], c: Dim) -> Value:
        draft, pattern = self.draft, self.pattern
        assert isinstance(c, int)
        x, lanes = draft.view(self.conv.x.tensor.name), draft.b.lanes
        start = pattern.start + self.at["kb"] * pattern.step
        found = [
            draft.b.load(x.buffer, x.layout.offset([self.at["n"], (start + s) * lanes, *places]))
            for s in pattern.sources[c]
        ]
        return draft.b.let(Shuffle(found[0], found[-1], pattern.lanes[c]), "x")


def grouped(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "grouped",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
