"""Gradients of filters with a fraction of the products (Winograd): sums over tiles.

    M[p][v, c] = sum over tiles of U[p][tile, v] V[p][tile, c]          y[v, c] = A^T M[v, c] A

A piece of the parallel work has some channels of either factor and a share of the tiles. It
transforms a block of tiles into memory of its own, where those of a vector of channels lie side by
side, and adds the block's products to sums that are its own, too; A comes once, at the end. What
the shares have found goes on as that of direct sums does (`shares`).
"""

from __future__ import annotations

from collections.abc import Mapping

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Read
from convdsl.kernel.nodes import Binary, Buffer, Const, Get, Load, Registers, Value, ValueType
from convdsl.kernel.target import Target
from convdsl.schedules.cpu import shares
from convdsl.schedules.cpu.winograd_stages import either, reading
from convdsl.schedules.cpu.winograd_sums_plan import Plan, plan
from convdsl.schedules.cpu.winograd_transform import Transform
from convdsl.schedules.emission import View
from convdsl.schedules.steps import Steps
from convdsl.schedules.task import Schedule, Scheduled, Scratch, Task
from convdsl.schedules.winograd_tiling import Tiling
from convdsl.tensor import Dim, ceil_div, dim_min, floor_div
from convdsl.tensor.records import record


def emit_as(task: Task, name: str, made: Plan, target: Target) -> Scheduled:
    """The kernel that adds up shares, and those that make rows of them."""
    found = made.found
    b, views, arguments = shares.opened(found, task, name, made.partial, dict(made.packs))
    kernel = _Kernel(b, made, views)
    kernel.all()
    private = kernel.private
    own = (*arguments, *((buffer.name, None) for buffer in private))
    scratch = tuple(Scratch(x.name, x.dtype, x.size, private=True) for x in private)
    taps = (0 if s.tap is None else s.tap.i for s in found.space)
    index = (found.v.i, 0 if found.c is None else found.c.i, *taps)
    last = shares.finished(task, found.reduce, made.partial, index, name, target)
    between = Scratch(shares.PARTIAL, found.reduce.dtype, made.partial.size)
    return Scheduled(((b.kernel(), own),), scratch).then(last, between)


@record
class _Tiles:
    """One factor: where it lies, how it is cut and transformed, and the memory for a block of its
    tiles, [product][vector][tile][lane]. Products lie a vector further apart than they need, so
    that they do not meet in one set of the cache."""

    view: View
    tiling: Tiling
    transform: Transform
    buffer: Buffer
    vectors: int
    block: int

    def at(self, product: Dim, vector: Dim, tile: Dim) -> Dim:
        """Where a vector of channels lies."""
        lanes = self.transform.b.lanes
        own = (self.vectors * self.block + 1) * lanes
        return product * own + (vector * self.block + tile) * lanes


@record
class _Piece:
    """A piece of the work: its share, and of either factor the first vector of channels, in all
    maps, and how many there are; `start` is the first channel of b within its group, `channels`
    are those that there are."""

    share: Dim
    a: Dim
    b: Dim
    vectors_a: Dim
    vectors_b: Dim
    start: Dim
    channels: Dim


class _Kernel:
    """Emits the kernel of the shares."""

    def __init__(self, b: Builder, made: Plan, views: Mapping[str, View]) -> None:
        self.b, self.plan, self.partial = b, made, views[shares.PARTIAL]
        found, cut, lanes = made.found, made.cut, b.lanes
        first, second, last = cut.matrices
        self.between = b.private("between", made.products * lanes)
        own, other = made.part

        def room(
            name: str, read: Read, tiling: Tiling, steps: tuple[Steps, ...], vectors: int
        ) -> _Tiles:
            buffer = b.private(name, made.products * (vectors * made.block + 1) * lanes)
            transform = Transform(b, steps, self.between)
            view = views[read.tensor.name]
            return _Tiles(view, tiling, transform, buffer, vectors, made.block)

        self.left = room("left", found.a, cut.a, first, own)
        self.right = room("right", found.b, cut.b, second, other)
        self.outputs = Transform(b, last, self.between)
        self.width = cut.a.active[-1].form.products
        self.sums = b.private("sums", made.products * (own * other * lanes + 1) * lanes)
        self._registers: dict[int, Registers] = {}

    @property
    def private(self) -> tuple[Buffer, ...]:
        """Memory of an iteration's own."""
        return self.between, self.left.buffer, self.right.buffer, self.sums

    def all(self) -> None:
        """All pieces, in parallel."""
        b, made = self.b, self.plan
        (a, other), lanes = made.vectors, b.lanes
        extents = (made.found.groups, made.shares, *made.parts)
        with b.parallel(("g", "share", "va", "vb"), extents) as (group, share, va, vb):
            first, second = va * made.part[0], vb * made.part[1]
            piece = _Piece(
                share,
                group * a + first,
                group * other + second,
                dim_min(made.part[0], a - first),
                dim_min(made.part[1], other - second),
                second * lanes,
                dim_min(made.part[1] * lanes, made.found.channels - second * lanes),
            )
            start = share * made.blocks_of_share
            past = dim_min(start + made.blocks_of_share, made.blocks)
            if made.blocks_of_share > 1:
                with b.serial("i", self.sums.size // lanes) as i:
                    b.store(self.sums, i * lanes, Const(0.0, ValueType(b.dtype, lanes)))
            with b.serial("block", past, start) as block:
                tiles = dim_min(made.block, made.cut.a.count - block * made.block)
                self.factor(self.left, piece.a, piece.vectors_a, block, tiles)
                self.factor(self.right, piece.b, piece.vectors_b, block, tiles)
                self.products(piece, tiles)
            self.finish(piece)

    def factor(self, own: _Tiles, first: Dim, vectors: Dim, block: Dim, tiles: Dim) -> None:
        """The transformed tiles of a block, so many vectors of channels from `first` on."""
        b = self.b
        with b.serial("vector", vectors) as vector, b.serial("tile", tiles) as tile:
            image, firsts = own.tiling.place(block * own.block + tile)
            begin = [image, (first + vector) * b.lanes]
            for guarded in either(b, own.tiling, firsts):
                given = reading(b, own.tiling, own.view, begin, firsts, guarded)

                def made(i: Dim, j: int, value: Value) -> None:
                    b.store(own.buffer, own.at(i * self.width + j, vector, tile), value)

                own.transform.emit(given, made)

    def products(self, piece: _Piece, tiles: Dim) -> None:
        """What a block adds to all sums of a piece."""
        b, made = self.b, self.plan
        blocks, columns = made.tile.blocks, made.tile.columns
        whole, rest = floor_div(piece.vectors_a, blocks), made.vectors[0] % blocks
        regions: list[tuple[int, Dim, Dim]] = [(blocks, 0, whole)]
        if rest:  # of the last part alone
            left = piece.vectors_a - whole * blocks
            regions.append((rest, whole * blocks, floor_div(left, rest)))
        with b.serial("p", made.products) as p:
            for count, first, times in regions:
                with b.serial("kt", times) as kt, b.serial("vector", piece.vectors_b) as vector:
                    channels = piece.channels - vector * b.lanes
                    pieces = dim_min(b.lanes // columns, ceil_div(channels, columns))
                    with b.serial("column", pieces) as column:
                        lane = column * columns
                        self.tile(p, first + kt * count, count, vector, lane, tiles)

    def tile(self, p: Dim, first: Dim, blocks: int, vector: Dim, lane: Dim, tiles: Dim) -> None:
        """One product's sums of so many vectors by the columns of the register tile."""
        b, columns = self.b, self.plan.tile.columns
        acc = self._accumulators(blocks * columns)
        b.zero(acc)
        with b.serial("tile", tiles) as tile:
            own = [
                b.load(self.left.buffer, self.left.at(p, first + i, tile)) for i in range(blocks)
            ]
            start = self.right.at(p, vector, tile) + lane
            for j in range(columns):
                x = b.splat(self.right.buffer, start + j)
                for i in range(blocks):
                    b.accumulate(acc, i * columns + j, x, own[i])
        for i in range(blocks):
            for j in range(columns):
                where = self.sum_at(p, first + i, vector * b.lanes + lane + j)
                value: Value = Get(acc, i * columns + j)
                if self.plan.blocks_of_share > 1:
                    value = Binary("add", Load(self.sums, where, value.type), value)
                b.store(self.sums, where, value)

    def _accumulators(self, count: int) -> Registers:
        if count not in self._registers:
            self._registers[count] = self.b.registers(count)
        return self._registers[count]

    def sum_at(self, product: Dim, vector: Dim, channel: Dim) -> Dim:
        """Where the sums of a vector of a's channels and one channel of b are."""
        lanes, (own, other) = self.b.lanes, self.plan.part
        apart = (own * other * lanes + 1) * lanes
        return product * apart + (vector * other * lanes + channel) * lanes

    def finish(self, piece: _Piece) -> None:
        """What a share has found, from its sums."""
        b, cut = self.b, self.plan.cut
        type = ValueType(b.dtype, b.lanes)
        with b.serial("vector", piece.vectors_a) as vector, b.serial("c", piece.channels) as c:

            def given(i: Dim, j: Dim) -> Value:
                return Load(self.sums, self.sum_at(i * self.width + j, vector, c), type)

            def made(i: Dim, j: int, value: Value) -> None:
                places = zip(cut.a.lines, cut.flips, cut.a.spread(i, j), strict=True)
                taps = [line.space.taps - 1 - r if flip else r for line, flip, r in places]
                index = [piece.share, (piece.a + vector) * b.lanes, piece.start + c, *taps]
                b.store(self.partial.buffer, self.partial.layout.offset(index), value)

            self.outputs.emit(given, made)


def winograd_sums(target: Target) -> Schedule:
    """The schedule for a processor."""

    def cost(task: Task) -> float | None:
        found = plan(task, target)
        return None if found is None else found.cycles

    def emit(task: Task, name: str) -> Scheduled:
        found = plan(task, target)
        assert found is not None
        return emit_as(task, name, found, target)

    def note(task: Task) -> str:
        found = plan(task, target)
        return "" if found is None else found.said

    return Schedule("winograd_sums", cost, emit, note=note)
