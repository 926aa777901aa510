"""The three stages of a Winograd convolution, as loops: inputs, products, outputs.

V[p, tile, c] = B^T d B       U[p, c, k] = G g G^T
M[p, tile, k] = sum over c of V[p, tile, c] U[p, c, k]
y[tile]       = A^T M A
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from convdsl.kernel.builder import Builder
from convdsl.kernel.counting import decide
from convdsl.kernel.nodes import (
    Buffer,
    Get,
    IndexTest,
    Load,
    Registers,
    Value,
    ValueType,
)
from convdsl.schedules.contraction import Convolution
from convdsl.schedules.cpu.epilogue import Draft
from convdsl.schedules.cpu.tiles import Tile, split
from convdsl.schedules.cpu.winograd_filters import Rows
from convdsl.schedules.cpu.winograd_transform import Transform
from convdsl.schedules.emission import View, lane_symbol
from convdsl.schedules.winograd_tiling import Tiling
from convdsl.tensor import Dim, floor_div
from convdsl.tensor.records import record


@record
class Panel:
    """A buffer of [product][tile][channel] from an element on. Products lie further apart than they
    need, by a `gap` of one vector: so their channels do not meet in one set of the cache."""

    buffer: Buffer
    start: Dim
    tiles: int
    channels: int
    gap: int

    @staticmethod
    def size(products: int, tiles: int, channels: int, gap: int) -> int:
        return products * (tiles * channels + gap)

    def at(self, product: Dim, tile: Dim, channel: Dim) -> Dim:
        """Where an element lies."""
        apart = self.tiles * self.channels + self.gap
        return self.start + product * apart + tile * self.channels + channel


def either(b: Builder, tiling: Tiling, firsts: Sequence[Dim]) -> Iterator[bool]:
    """Whether inputs have to be guarded, for a tile whose outputs begin there: code is emitted for
    either case that there is, and runs in its own."""
    leaves = tiling.leaves(firsts)
    for guarded in (False, True):
        if leaves is None if guarded else not tiling.has_inner:
            continue
        with ExitStack() as stack:
            if leaves is not None and tiling.has_inner:
                test = leaves if guarded else IndexTest("le", leaves.a, leaves.b)
                stack.enter_context(b.when(test))
            yield guarded


def reading(
    b: Builder,
    tiling: Tiling,
    x: View,
    begin: Sequence[Dim],
    firsts: Sequence[Dim],
    guarded: bool,
) -> Callable[[Dim, Dim], Value]:
    """A vector of a tile's inputs by its place in it; `begin` is the image and the channel."""
    type = ValueType(x.buffer.dtype, b.lanes)

    def given(i: Dim, j: Dim) -> Value:
        places = zip(tiling.lines, firsts, tiling.spread(i, j), strict=True)
        index = [line.input(first, number) for line, first, number in places]
        where = x.layout.offset([*begin, *index])
        return Load(x.buffer, where, type, tiling.guards(index) if guarded else ())

    return given


def writing(
    draft: Draft,
    conv: Convolution,
    tiling: Tiling,
    begin: tuple[Dim, Dim],
    firsts: Sequence[Dim],
    across: bool = False,
) -> Callable[[Dim, Dim, Value], None]:
    """What takes a tile's outputs through the epilogue, if they are there along its last axis; with
    `across`, along its first."""
    b, (image, channel) = draft.b, begin
    there = tiling.there(firsts)[0 if across else -1]

    def made(i: Dim, j: Dim, value: Value) -> None:
        test = IndexTest("lt", i if across else j, there)
        known = decide(test)
        if known is False:
            return
        places = zip(tiling.lines, firsts, tiling.spread(i, j), strict=True)
        positions = [line.output(first, number) for line, first, number in places]
        at = {conv.n.name: image, conv.k.name: channel + lane_symbol(b.lanes)}
        with ExitStack() as stack:
            if known is None:
                stack.enter_context(b.when(test))
            draft.store({**at, **tiling.bind(positions)}, channel, value)

    return made


class Stages:
    """Emits the stages of one kernel; with `rows` filters are transformed in it."""

    def __init__(
        self, b: Builder, conv: Convolution, tiling: Tiling, rows: Rows | None = None
    ) -> None:
        self.b, self.conv, self.tiling, self.rows = b, conv, tiling, rows
        forms = [line.form for line in tiling.active]
        self.between = b.private("between", tiling.products * b.lanes)
        self._inputs = Transform(b, tuple(form.inputs for form in forms), self.between)
        self._outputs = Transform(b, tuple(form.outputs for form in forms), self.between)
        self._width = forms[-1].products
        self._registers: dict[int, Registers] = {}

    @property
    def private(self) -> tuple[Buffer, ...]:
        """What lies between the stages' own steps."""
        return (self.between, *((self.rows.half, self.rows.row) if self.rows else ()))

    def inputs(self, x: View, v: Panel, group: Dim, tile: Dim, place: Dim) -> None:
        """V of one tile, which lies at a place of the panel."""
        image, firsts = self.tiling.place(tile)
        for guarded in either(self.b, self.tiling, firsts):
            self._tile(x, v, group, image, firsts, place, guarded)

    def _tile(
        self,
        x: View,
        v: Panel,
        group: Dim,
        image: Dim,
        firsts: Sequence[Dim],
        place: Dim,
        guarded: bool,
    ) -> None:
        b, conv = self.b, self.conv
        with b.serial("cb", -(-conv.channels_in // b.lanes)) as cb:
            channel = cb * b.lanes
            begin = [image, group * conv.channels_in + channel]
            given = reading(b, self.tiling, x, begin, firsts, guarded)

            def made(i: Dim, j: int, value: Value) -> None:
                b.store(v.buffer, v.at(i * self._width + j, place, channel), value)

            self._inputs.emit(given, made)

    def products(
        self,
        filters: Buffer,
        start: Dim,
        v: Panel,
        m: Panel,
        tile: Tile,
        blocks: int,
        ahead: bool,
        row: tuple[Dim, int] | None = None,
    ) -> None:
        """M of all tiles of a panel for so many blocks of output channels, whose filters begin at
        `start`; those of the next product are asked for `ahead`. With `row` there are filters of
        so many products, from one on."""
        b, channels = self.b, self.conv.channels_in
        wide = blocks * b.lanes
        product, number = (0, self.tiling.products) if row is None else row
        with b.serial("p", number) as own_p:
            p = product + own_p
            for width, count in split(v.tiles, tile.columns):
                acc = self._accumulators(blocks * width)
                lines = -(-blocks // count)
                with b.serial("group", count) as group:
                    first = v.tiles - width if width < tile.columns else group * width
                    b.zero(acc)
                    with b.serial("c", channels) as c:
                        where = start + (own_p * channels + c) * wide
                        if ahead:
                            next_one = where + channels * wide
                            begin = floor_div(group * blocks, count)
                            for i in range(lines):
                                b.prefetch(filters, next_one + (begin + i) * b.lanes)
                        own = tile.filters(
                            b,
                            blocks,
                            width,
                            lambda i, where=where: b.vector(filters, where + i * b.lanes),
                        )
                        for j in range(width):
                            x = b.splat(v.buffer, v.at(p, first + j, c))
                            for i in range(blocks):
                                b.accumulate(acc, i * width + j, x, own[i])
                    for j in range(width):
                        for i in range(blocks):
                            at = m.at(p, first + j, i * b.lanes)
                            b.store(m.buffer, at, Get(acc, i * width + j))

    def _accumulators(self, count: int) -> Registers:
        if count not in self._registers:
            self._registers[count] = self.b.registers(count)
        return self._registers[count]

    def outputs(
        self, draft: Draft, m: Panel, block: Dim, blocks: int, tile: Dim, place: Dim
    ) -> None:
        """y of one tile and of so many vectors of channels from vector `block` on, through the
        epilogue."""
        b, conv = self.b, self.conv
        image, firsts = self.tiling.place(tile)
        with b.serial("kb", blocks) as kb:
            channel = (block + kb) * b.lanes

            def given(i: Dim, j: Dim) -> Value:
                return Load(
                    m.buffer,
                    m.at(i * self._width + j, place, kb * b.lanes),
                    ValueType(m.buffer.dtype, b.lanes),
                )

            made = writing(draft, conv, self.tiling, (image, channel), firsts)
            self._outputs.emit(given, made, self.tiling.there(firsts)[0])
