"""Loops over many positions, in rounds of an innermost loop, several accumulators side by side.

Near accumulators take so many terms each, and are added into far ones: so that the error of a sum
of n terms in f32 grows as their logarithm, not as n.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TypeAlias

from convdsl.kernel.builder import Builder
from convdsl.schedules.cpu.totals import PIECE, Loop, cut
from convdsl.schedules.totals import RUN
from convdsl.tensor import Dim, dim_min, floor_div
from convdsl.tensor.records import record

Position: TypeAlias = "dict[str, Dim]"


@record
class Rounds:
    """Walks `loops`, outermost first, `slots` positions of the innermost one side by side."""

    b: Builder
    loops: tuple[Loop, ...]
    slots: int

    @property
    def count(self) -> int:
        """How often the innermost loop runs."""
        outer, _ = cut(self.loops)
        return prod(loop.extent for loop in outer)

    def walk(
        self,
        first: Dim,
        past: Dim,
        most: int,
        position: Callable[[Position, int], None],
        begin: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        """The rounds from `first` to `past`, at most so many: each `position` with the slot that it
        falls to, between the `begin` and the `end` of what near accumulators take."""
        if any(loop.extent == 0 for loop in self.loops):
            return
        b = self.b
        outer, inner = cut(self.loops)
        together = max(1, RUN * self.slots // min(inner, PIECE))
        with b.serial("run", -(-most // together)) as run:
            start = first + run * together
            begin()
            with b.serial("round", dim_min(start + together, past), start) as number:
                self._round(outer, inner, number, position)
            end()

    def _round(
        self,
        outer: tuple[Loop, ...],
        inner: int,
        number: Dim,
        position: Callable[[Position, int], None],
    ) -> None:
        """The innermost loop once, its positions on one accumulator after the other."""
        b, slots = self.b, self.slots
        at: Position = {}
        for loop in reversed(outer[1:]):
            above = floor_div(number, loop.extent)
            at[loop.axis.name] = number - above * loop.extent
            number = above
        if outer:
            at[outer[0].axis.name] = number
        base: Dim = 0
        count: Dim = inner
        if len(outer) == len(self.loops) and self.loops:  # the last outer one counts pieces
            base = at.pop(outer[-1].axis.name) * PIECE
            count = PIECE if inner % PIECE == 0 else dim_min(PIECE, inner - base)

        def meet(counter: Dim, slot: int) -> None:
            position({**at, self.loops[-1].axis.name: counter} if self.loops else at, slot)

        tiles = floor_div(count, slots)
        with b.serial("tile", tiles) as tile:
            for slot in range(slots):
                meet(base + tile * slots + slot, slot)
        if isinstance(count, int) and isinstance(tiles, int):
            for slot in range(count - tiles * slots):
                meet(base + tiles * slots + slot, slot)
            return
        with b.serial("left", count, tiles * slots) as left:
            meet(base + left, 0)
