"""Panels of a factor that lies along the sum, turned where they are used.

    w[v, k] with k side by side, as in x w^T        ->        panel[k, v] in vectors of v

Turning all of w first is a pass through memory that few rows do not repay. A panel of as many
vectors as a tile of registers has is turned into memory of the iteration's own, where it is met by
all rows while it is in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Buffer, Const, Load, Value, ValueType, Var
from convdsl.schedules.contraction import Product, coefficient, depends
from convdsl.schedules.cpu.transpose import transposed
from convdsl.schedules.emission import View, extent_of
from convdsl.schedules.task import Task
from convdsl.tensor import Dim, substitute

TURNING = 0.4
"""Cycles of an element: loads, shuffles and stores of a square of vectors, in the cache."""


_UNITS = 8  # pieces of work that two threads share out evenly
_ROWS = 64  # that a panel should be met by, for turning it to be a fifth of the work at most


def bands_of(panels: int, rows: int) -> int:
    """Into how many bands rows are cut, each of which turns the panels anew: one where panels are
    enough to share out."""
    return max(1, min(-(-_UNITS // panels), rows // _ROWS))


def is_along_sum(task: Task, product: Product, lanes: int) -> bool:
    """Whether w is plain, given in calls, and side by side along the only axis of the sum; its
    elements are as wide as sums, so that squares of them are."""
    layout, w = task.operand(product.w.tensor.name).layout, product.w
    if layout is None or layout.axis is not None or len(product.k) != 1:
        return False
    if w.dtype is not product.reduce.dtype or lanes & (lanes - 1):
        return False
    offset = layout.offset(w.index)
    return (
        coefficient(offset, product.k[0]) == 1
        and coefficient(offset, product.v) is not None
        and not any(depends(index, product.v) and depends(index, product.k[0]) for index in w.index)
    )


@dataclass(frozen=True, slots=True)
class TurnedPanel:
    """A panel in `buffer`: at each position of the sum the vectors of a tile, side by side."""

    b: Builder
    buffer: Buffer
    w: View
    product: Product

    @property
    def lanes(self) -> int:
        return self.b.lanes

    def load(self, at: Mapping[str, Dim], i: int, blocks: int) -> Var:
        """Vector i of the tile at a position of the sum."""
        where = (at[self.product.k[0].name] * blocks + i) * self.lanes
        return self.b.load(self.buffer, where)

    def fill(self, at: Mapping[str, Dim], block: Dim, blocks: int, valid: int | None) -> None:
        """Turn the vectors from number `block` on; `valid` lanes of the last one exist."""
        whole, rest = divmod(extent_of(self.product.k[0]), self.lanes)
        with self.b.serial("square", whole) as square:
            self.squares(at, block, blocks, valid, square * self.lanes, self.lanes)
        if rest:
            self.squares(at, block, blocks, valid, whole * self.lanes, rest)

    def squares(
        self,
        at: Mapping[str, Dim],
        block: Dim,
        blocks: int,
        valid: int | None,
        start: Dim,
        count: int,
    ) -> None:
        """`count` positions of the sum, of all vectors of the tile."""
        for i in range(blocks):
            rows = self.lanes if valid is None or i < blocks - 1 else valid
            first = (block + i) * self.lanes
            loaded = [self.row(at, first + row, start, count) for row in range(rows)]
            none = Const(0, ValueType(self.buffer.dtype, self.lanes))
            turned = transposed(self.b, [*loaded, *[none] * (self.lanes - rows)])
            for k, vector in enumerate(turned[:count]):
                self.b.store(self.buffer, ((start + k) * blocks + i) * self.lanes, vector)

    def row(self, at: Mapping[str, Dim], v: Dim, start: Dim, count: int) -> Value:
        """A vector along the sum."""
        bound = {**at, self.product.v.name: v, self.product.k[0].name: start}
        where = self.w.layout.offset([substitute(index, bound) for index in self.product.w.index])
        type = ValueType(self.buffer.dtype, self.lanes)
        valid = count if count < self.lanes else None
        return self.b.let(Load(self.w.buffer, where, type, valid=valid), "row")
