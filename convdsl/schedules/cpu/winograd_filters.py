"""Filters as Winograd's products want them: transformed once, in double precision."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Stage, TensorVar
from convdsl.kernel.nodes import Buffer, Kernel, Load, Value, ValueType
from convdsl.schedules.cpu.filters import FilterPack
from convdsl.schedules.cpu.winograd_transform import Transform
from convdsl.schedules.filtering import Form
from convdsl.schedules.forms import form, of_filters
from convdsl.schedules.steps import transformed
from convdsl.schedules.winograd import PointForm
from convdsl.tensor import Dim, DType
from convdsl.tensor.records import record

_IN_CACHE = 1 << 16  # doubles: half a megabyte, as second-level caches have at least
_AT_ONCE = 64  # results of a transform that is unrolled; more are loops


@record
class WinogradPack:
    """Filters [G..., K, C, taps...] as U = G g G^T, for each product p of t x t:

        [G][tile of K][p][C][channel of the tile]

    K is filled up to whole vectors of `lanes`, tiles have `tile` of them; where these do not divide
    the vectors of K, what is left of every G follows behind all whole tiles. `outputs` is m of the
    form of each spatial axis, `flips` says along which of them filters are turned round; the
    rest is as in `FilterPack`.
    """

    shape: tuple[int, ...]  # [K, C, taps...] of one G
    outputs: tuple[int, ...]
    flips: tuple[bool, ...]
    lanes: int
    tile: int
    outer: tuple[int, ...] = ()
    order: tuple[int, ...] = ()

    @property
    def plain(self) -> FilterPack:
        """The same filters before they are transformed."""
        return FilterPack(self.shape, self.lanes, self.tile, 1, self.outer, self.order)

    @property
    def forms(self) -> tuple[Form, ...]:
        """Of each spatial axis."""
        return tuple(form(m, r) for m, r in zip(self.outputs, self.shape[2:], strict=True))

    @property
    def has_rows(self) -> bool:
        """Whether products lie in rows, each of which only some sums along the first axis of the
        filters go into: those of a form along either of two axes."""
        active = [made for made in self.forms if made.r > 1]
        return len(active) == 2 and all(isinstance(made, PointForm) for made in active)

    @property
    def products(self) -> int:
        """Of a tile, for each of C."""
        return prod(made.products for made in self.forms)

    @property
    def block_size(self) -> int:
        """Elements that belong to one vector of K."""
        return self.products * self.shape[1] * self.lanes

    @property
    def size(self) -> int:
        return prod(self.outer) * self.plain.blocks * self.block_size

    def start(self, group: Dim, block: Dim, blocks: int) -> Dim:
        """Offset of the tile of so many vectors of K that begins at a vector of a group."""
        plain = self.plain
        if blocks == self.tile:
            return (group * plain.whole + block) * self.block_size
        behind = prod(self.outer) * plain.whole + group * (plain.blocks - plain.whole)
        return (behind + block - plain.whole) * self.block_size

    def pack(self, array: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        plain = self.plain
        k, c = self.shape[:2]
        filters = plain.in_order(array)
        for group, own in enumerate(filters):
            for first in range(0, plain.blocks, self.tile):
                blocks = min(self.tile, plain.blocks - first)
                width = blocks * self.lanes
                start = self.start(group, first, blocks)
                assert isinstance(start, int)
                tile = out[start : start + self.products * c * width]
                kept = own[first * self.lanes : first * self.lanes + width]
                self._transform(kept, tile.reshape(self.products, c, width))
        assert k <= plain.blocks * self.lanes

    def _transform(self, kept: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        """A tile, a few channels at a time: what is in doubles between stays in cache."""
        products, c, width = out.shape
        taps = self.shape[2:]
        step = max(1, _IN_CACHE // (products * width))
        for low in range(0, c, step):
            part = out[:, low : low + step]
            wide = np.zeros((prod(taps), part.shape[1], width))
            wide[:, :, : len(kept)] = kept[:, low : low + step].transpose(2, 1, 0)
            made = of_filters(self.forms, self.flips, wide.reshape(*taps, -1, width))
            part[:] = made.reshape(part.shape)

    def stages(self, source: TensorVar) -> Iterator[tuple[int, Stage]]:
        raise TypeError("filters that are known in calls only are transformed by a kernel")


def transform_kernel(name: str, pack: WinogradPack) -> Kernel:
    """U of filters that are known in calls only, from `pack.plain`."""
    plain, taps = pack.plain, pack.shape[2:]
    b = Builder(name, DType.F32, pack.lanes)
    w = b.buffer("w", DType.F32, plain.size)
    u = b.buffer("u", DType.F32, pack.size, written=True)
    groups, channels = prod(pack.outer), pack.shape[1]
    forms = [made for made in pack.forms if made.r > 1]
    turned = [flip for flip, r in zip(pack.flips, taps, strict=True) if r > 1]
    between = b.private("between", pack.products * pack.lanes)
    at_once = len(forms) == 2 and pack.products <= _AT_ONCE
    transform = Transform(b, tuple(f.filters for f in forms), between, at_once)
    width, across = forms[-1].products, forms[-1].r
    for first, count, blocks in plain.parts():
        wide = blocks * pack.lanes
        extents = (groups, count, channels)
        with b.parallel(("g", "kt", "c"), extents) as (group, kt, c), b.serial("kb", blocks) as kb:
            vector = first + kt * blocks
            begin = plain.start([group], vector, blocks) + c * plain.taps * wide + kb * b.lanes
            made_at = pack.start(group, vector, blocks) + c * wide + kb * b.lanes

            def given(i: Dim, j: Dim, begin: Dim = begin, wide: int = wide) -> Value:
                numbers = zip(forms, (i, j)[-len(forms) :], turned, strict=True)
                at = [f.r - 1 - n if turn else n for f, n, turn in numbers]
                tap = at[0] if len(at) == 1 else at[0] * across + at[1]
                return Load(w, begin + tap * wide, ValueType(w.dtype, b.lanes))

            def made(i: Dim, j: int, value: Value, at: Dim = made_at, wide: int = wide) -> None:
                b.store(u, at + (i * width + j) * channels * wide, value)

            transform.emit(given, made)
    return b.kernel()


class Rows:
    """U of one tile of output channels, a row of its products at a time: first the sums along the
    first axis of all its filters, then of each row those along the second.

        half[row][C][tap of the second axis][channel of the tile]
        row[product of the row][C][channel of the tile]

    What is asked for of memory are filters as they are, and a row stays in the second-level cache.
    """

    def __init__(self, b: Builder, pack: WinogradPack) -> None:
        self.b, self.pack = b, pack
        self._first, self._second = (made for made in pack.forms if made.r > 1)
        self._turned = [flip for flip, r in zip(pack.flips, pack.shape[2:], strict=True) if r > 1]
        self.count, self.width = len(self._first.filters.results), self._second.products
        self._channels = pack.shape[1]
        wide = self._channels * pack.tile * pack.lanes
        self.half = b.private("half", self.count * self._second.r * wide)
        self.row = b.private("row", self.width * wide)

    def begin(self, filters: Buffer, group: Dim, vector: Dim, blocks: int) -> None:
        """The sums along the first axis for the tile of so many blocks that begins at a vector."""
        b, plain, wide = self.b, self.pack.plain, blocks * self.b.lanes
        start = plain.start([group], vector, blocks)
        rows, columns = self._first.r, self._second.r
        with b.serial("c", self._channels) as c, b.serial("kb", blocks) as kb:
            for j in range(columns):
                taps = [
                    (rows - 1 - i if self._turned[0] else i) * columns
                    + (columns - 1 - j if self._turned[1] else j)
                    for i in range(rows)
                ]
                begin = start + c * plain.taps * wide + kb * b.lanes
                given = [b.vector(filters, begin + tap * wide) for tap in taps]
                column = [b.let(value, "g") for value in given]
                for i, value in enumerate(transformed(b, self._first.filters, column)):
                    b.store(self.half, self._at(i, c, j, wide) + kb * b.lanes, value)

    def make(self, i: Dim, blocks: int) -> None:
        """Row i."""
        b, wide = self.b, blocks * self.b.lanes
        with b.serial("c", self._channels) as c, b.serial("kb", blocks) as kb:
            given = [
                b.load(self.half, self._at(i, c, j, wide) + kb * b.lanes)
                for j in range(self._second.r)
            ]
            for j, value in enumerate(transformed(b, self._second.filters, given)):
                b.store(self.row, (j * self._channels + c) * wide + kb * b.lanes, value)

    def _at(self, i: Dim, c: Dim, j: int, wide: int) -> Dim:
        return ((i * self._channels + c) * self._second.r + j) * wide
