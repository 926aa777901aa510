"""How filters and matrices are packed for register tiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.kernel.expr import Axis, Read, Stage, TensorVar, reads
from convdsl.kernel.layout import Layout
from convdsl.schedules.contraction import coefficient
from convdsl.schedules.task import Operand, Pack, Task
from convdsl.tensor import Dim, TensorType, floor_div
from convdsl.tensor.records import record


@record
class FilterPack:
    """Filters [G..., K, C, taps...] in the order that the register tile reads them:

        [G...][tile][C / c_block][taps...][c in block][block of the tile][lane]

    K is filled up to whole vectors, C to whole blocks, which are not read. Where tiles do not
    divide the blocks of K, what is left of every G follows behind all whole tiles.

    `order`: how the array lies, if not in the order above; for each of its axes, those of extent 1
    left out, its position there. Neighbouring axes may be one in the array: [G K, C, taps...].

    `part`: for each axis of the array where the filters begin, how far apart they are, and how many
    are taken, one after the other; of all of it if that is empty. With `repeats` so many such parts
    are packed in a row.

    `groups`: K counts the outputs of so many groups, which are an axis of the array: [G, K / G, C].
    """

    shape: tuple[int, ...]  # [K, C, taps...] of one G
    lanes: int
    tile: int
    c_block: int
    outer: tuple[int, ...] = ()  # extents of G: groups, or batches of matrices
    order: tuple[int, ...] = ()
    part: tuple[int, ...] = ()
    groups: int = 1
    repeats: int = 1

    @property
    def blocks(self) -> int:
        """Vectors of K."""
        return -(-self.shape[0] // self.lanes)

    @property
    def c_blocks(self) -> int:
        return -(-self.shape[1] // self.c_block)

    @property
    def taps(self) -> int:
        return prod(self.shape[2:])

    @property
    def _extents(self) -> tuple[int, ...]:
        """Of the array, in the order above."""
        k, *rest = self.shape
        split = (k,) if self.groups == 1 else (self.groups, k // self.groups)
        return (*self.outer, *split, *rest)

    @property
    def block_size(self) -> int:
        """Elements that belong to one vector of output channels."""
        return self.c_blocks * self.taps * self.c_block * self.lanes

    @property
    def whole(self) -> int:
        """Blocks of K in whole tiles."""
        return self.blocks // self.tile * self.tile

    @property
    def part_size(self) -> int:
        """Elements of one of the parts."""
        return prod(self.outer) * self.blocks * self.block_size

    @property
    def size(self) -> int:
        return self.repeats * self.part_size

    def each(self) -> Iterator[tuple[int, FilterPack]]:
        """The parts, and where they begin."""
        numbers = len(self.part) // self.repeats
        for i in range(self.repeats):
            own = self.part[i * numbers : (i + 1) * numbers]
            yield i * self.part_size, replace(self, part=own, repeats=1)

    def start(self, outer: Sequence[Dim], block: Dim, blocks: int) -> Dim:
        """Offset of the tile of so many blocks of K that begins at a block."""
        place: Dim = 0
        for at, extent in zip(outer, self.outer, strict=True):
            place = place * extent + at
        if blocks == self.tile:
            return (place * self.whole + block) * self.block_size
        behind = prod(self.outer) * self.whole + place * (self.blocks - self.whole)
        return (behind + block - self.whole) * self.block_size

    def in_order(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The filters as [G, K, C, taps], each of them one axis."""
        k, c = self.shape[:2]
        if self.part:
            taken = zip(*self._taken(), strict=True)
            array = array[tuple(slice(a, a + count * step, step) for a, step, count in taken)]
        if self.order:
            extents = self._extents
            absent = [p for p in range(len(extents)) if p not in self.order]
            view = array.reshape([extents[p] for p in (*absent, *self.order)])
            array = view.transpose(np.argsort((*absent, *self.order)))
        return array.reshape(prod(self.outer), k, c, self.taps)

    def pack(self, array: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        if self.repeats > 1:
            for first, part in self.each():
                part.pack(array, out[first : first + self.part_size])
            return
        k, c = self.shape[:2]
        outer, flat = prod(self.outer), self.in_order(array)
        more_k, more_c = self.blocks * self.lanes - k, self.c_blocks * self.c_block - c
        widths = [(0, 0), (0, more_k), (0, more_c), (0, 0)]
        padded = np.pad(flat, widths) if more_k or more_c else flat
        split_up = padded.reshape(
            outer, self.blocks, self.lanes, self.c_blocks, self.c_block, self.taps
        )
        for first, count, size in self.parts():
            part = split_up[:, first : first + count * size]
            tiles = part.reshape(outer, count, size, *part.shape[2:])
            moved = tiles.transpose(0, 1, 4, 6, 5, 2, 3)
            start = self._start_of_part(first)
            np.copyto(out[start : start + moved.size].reshape(moved.shape), moved)

    def stages(self, source: TensorVar) -> Iterator[tuple[int, Stage]]:
        """The same by arithmetic: stages that each write a part of the buffer, with where it
        begins."""
        if self.repeats > 1:
            for first, part in self.each():
                yield from ((first + start, stage) for start, stage in part.stages(source))
            return
        k, c = self.shape[:2]
        ragged = k % self.lanes or c % self.c_block
        for first, count, size in self.parts():
            outer = tuple(Axis(f"g{i}", extent) for i, extent in enumerate(self.outer))
            tile, panel = Axis("t", count), Axis("cb", self.c_blocks)
            taps = tuple(Axis(f"r{i}", extent) for i, extent in enumerate(self.shape[2:]))
            channel, lane = Axis("c", self.c_block), Axis("k", size * self.lanes)
            at = (
                *(axis.i for axis in outer),
                (tile.i * size + first) * self.lanes + lane.i,
                panel.i * self.c_block + channel.i,
                *(axis.i for axis in taps),
            )
            axes = (*outer, tile, panel, *taps, channel, lane)
            read = Read(source, self._index(source, at), 0.0 if ragged else None)
            type = TensorType(source.type.dtype, tuple(axis.extent for axis in axes))
            yield self._start_of_part(first), Stage(TensorVar("t0", type), axes, read)

    def parts(self) -> Iterable[tuple[int, int, int]]:
        """(first block, tiles, blocks of each): whole tiles, then the one left over."""
        if self.whole:
            yield 0, self.whole // self.tile, self.tile
        if self.whole < self.blocks:
            yield self.whole, 1, self.blocks - self.whole

    def _start_of_part(self, first: int) -> int:
        return prod(self.outer) * first * self.block_size

    def _index(self, source: TensorVar, at: Sequence[Dim]) -> tuple[Dim, ...]:
        """The index into the array of a position in [G..., K, C, taps...]."""
        extents = self._extents
        order = [p for p in self.order or range(len(extents)) if extents[p] > 1]
        if self.groups > 1:
            outer, (k, *rest) = at[: len(self.outer)], at[len(self.outer) :]
            own = self.shape[0] // self.groups
            group = floor_div(k, own)
            at = (*outer, group, k - group * own, *rest)
        index: list[Dim] = []
        starts, steps, sizes = self._taken() if self.part else ((), (), source.type.sizes)
        for extent in sizes:
            position, covered = 0, 1
            while covered < extent:
                axis = order.pop(0)
                position = position * extents[axis] + at[axis]
                covered *= extents[axis]
            index.append(position)
        if self.part:
            return tuple(a + i * step for i, a, step in zip(index, starts, steps, strict=True))
        return tuple(index)

    def _taken(self) -> tuple[tuple[int, ...], ...]:
        """Starts, steps and counts of a part."""
        return self.part[::3], self.part[1::3], self.part[2::3]


_COPIED, _TURNED, _GATHERED = 0.25, 0.6, 1.5
"""Cycles of an element: in whole vectors, from rows to vectors, or one by one."""


def packing_cycles(task: Task, packs: Mapping[str, Pack]) -> float:
    """Cycles of the steps that pack operands in every call. Weights are packed before."""
    return sum(
        pack.size * _cycles_of_element(task.operand(name), pack)
        for name, pack in packs.items()
        if not task.operand(name).static
    )


def _cycles_of_element(operand: Operand, pack: Pack) -> float:
    if operand.layout is None or operand.layout.axis is not None:
        return _GATHERED
    for _, stage in pack.stages(operand.var):
        (read,) = reads(stage.body)
        offset = operand.layout.offset(read.index)
        if coefficient(offset, stage.axes[-1]) == 1:
            return _COPIED
        return _TURNED if isinstance(pack, Layout) and pack.axis is not None else _GATHERED
    return 0.0


def channels_layout(task: Task, read: Read) -> Layout | None:
    """How a tensor is read in vectors of channels: as it lies, or, where it is plain, packed so in
    every call; None where neither will do."""
    layout = task.operand(read.tensor.name).layout
    if layout is None or layout.axis not in (None, 1):
        return None
    wanted = Layout(layout.shape, 1, task.layout.block)
    return wanted if layout.axis is None or layout == wanted else None


def channels_packs(task: Task, read: Read) -> dict[str, Pack]:
    """What must be packed for that."""
    name, wanted = read.tensor.name, channels_layout(task, read)
    assert wanted is not None
    return {} if task.operand(name).layout == wanted else {name: wanted}
