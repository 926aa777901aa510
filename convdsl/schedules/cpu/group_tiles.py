"""Register tiles of convolutions in groups that do not fill vectors of outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from math import prod

from convdsl.kernel.nodes import Get, Registers, Value
from convdsl.schedules.contraction import Convolution
from convdsl.schedules.cpu.epilogue import Draft, Sum
from convdsl.schedules.cpu.filters import FilterPack
from convdsl.schedules.cpu.runs import Run, taps_inside
from convdsl.schedules.emission import extent_of, lane_symbol
from convdsl.schedules.task import Task
from convdsl.tensor import Dim
from convdsl.tensor.records import record


def filter_pack(conv: Convolution, task: Task) -> FilterPack:
    """[K / lanes][taps...][c][lane]"""
    shape = (extent_of(conv.k), conv.channels_in, *(space.taps for space in conv.space))
    lanes, repeats = task.layout.block, prod(map(extent_of, task.over))
    return FilterPack(shape, lanes, 1, conv.channels_in, (), conv.order, (), conv.groups, repeats)


@record
class GroupTile(ABC):
    """One vector of outputs at the columns of a run. What the lanes read differs: `input` says."""

    draft: Draft
    conv: Convolution
    pack: FilterPack
    at: Mapping[str, Dim]
    run: Run
    column: Dim

    @property
    def block(self) -> Dim:
        """The vector of outputs."""
        return self.at["kb"]

    @abstractmethod
    def sweep(self, acc: Registers, taps: Sequence[Dim], reach: Sequence[int]) -> None:
        """All channels of every group at one tap: `products` of each."""

    @abstractmethod
    def input(self, places: Sequence[Dim], c: Dim) -> Value:
        """For each lane of outputs channel c of its group, at a place of space."""

    def all(self) -> None:
        """All taps, then what follows, and the stores."""
        draft, conv, run = self.draft, self.conv, self.run
        acc = draft.registers(run.width)
        draft.b.zero(acc)
        with ExitStack() as stack:
            taps: list[Dim] = []
            for space in conv.space[:-1]:
                start, stop = taps_inside(space, self.at[space.out.name])
                taps.append(stack.enter_context(draft.b.serial("r", stop, start)))
            for tap, reach in enumerate(run.reach):
                if reach:
                    self.sweep(acc, (*taps, tap), reach)
        first = self.block * draft.b.lanes
        found: list[Sum] = []
        for j in range(run.width):
            bound = {axis.name: self.at[axis.name] for axis in draft.task.over}
            bound |= {space.out.name: self.at[space.out.name] for space in conv.space[:-1]}
            bound |= {conv.n.name: self.at["n"], conv.space[-1].out.name: self.column + j}
            bound[conv.k.name] = first + lane_symbol(draft.b.lanes)
            found.append(Sum(bound, first, Get(acc, j)))
        draft.store_all(found, {})

    def products(self, acc: Registers, taps: Sequence[Dim], reach: Sequence[int], c: Dim) -> None:
        """acc[j] += x[j] * filter for one tap and one channel of every group."""
        draft, conv, pack = self.draft, self.conv, self.pack
        tap: Dim = 0
        for space, index in zip(conv.space, taps, strict=True):
            tap = tap * space.taps + space.of_filter(index)
        where = draft.repeat(self.at) * pack.part_size
        where += self.block * pack.block_size + (tap * conv.channels_in + c) * pack.lanes
        weights = draft.b.load(draft.packed[conv.w.tensor.name], where)
        for j in reach:
            outs = [*(self.at[s.out.name] for s in conv.space[:-1]), self.column + j]
            places = [
                out * s.stride + tap * s.dilation - s.pad
                for s, out, tap in zip(conv.space, outs, taps, strict=True)
            ]
            draft.b.accumulate(acc, j, self.input(places, c), weights)
