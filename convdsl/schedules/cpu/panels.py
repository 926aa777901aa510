"""Panels of a factor of a product, brought into memory of the iteration's own where they are used.

    w[v, k] with k side by side, as in x w^T        turned:  panel[k, v] in vectors of v
    w[k, v] with rows far from each other           copied:  the same

Packing all of w first is a pass through memory that few rows do not repay. And vectors read in
place from rows that lie a quarter of a page apart fall into a few sets of the first-level cache; a
page apart they take a translation of their address each. A panel is as much of w as stays in the
second-level cache: some positions of k, of a few tiles of vectors abreast, so that w is read in
runs. All rows of x meet it there; from one panel to the next their sums wait in the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Buffer, Const, IndexTest, Load, Value, ValueType
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import Product, coefficient, depends
from convdsl.schedules.cpu.transpose import transposed
from convdsl.schedules.emission import View, extent_of
from convdsl.schedules.task import Task
from convdsl.tensor import Dim, dim_min, substitute
from convdsl.tensor.records import record

TURNING, COPYING = 0.4, 0.2
"""Cycles of an element, in the cache: loads, shuffles and stores of a square of vectors, or a load
and a store."""

_APART = 1024  # bytes: rows so far from each other share 4 of the 64 sets of a first-level cache
_OWN = Fraction(1, 4)  # of the second-level cache: for a panel
_LONG, _SHORT = 256, 64  # positions of k: runs of a page's quarter where w lies along k
_UNITS = 8  # pieces of work that two threads share out evenly
_ROWS = 64  # that a panel should be met by, for turning it to be a fifth of the work at most


def bands_of(panels: int, rows: int) -> int:
    """Into how many bands rows are cut, each of which brings the panels anew: one where panels are
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


def is_far(task: Task, product: Product) -> bool:
    """Whether w is plain, given in calls, and its positions of the sum lie far from each other; its
    elements are as wide as sums."""
    layout, w = task.operand(product.w.tensor.name).layout, product.w
    if layout is None or layout.axis is not None or len(product.k) != 1:
        return False
    if w.dtype is not product.reduce.dtype:
        return False
    step = coefficient(layout.offset(w.index), product.k[0])
    return step is not None and step * w.dtype.bytes >= _APART


@record
class Piece:
    """What of w is a panel: `depth` positions of the sum of `abreast` tiles, of so many blocks of
    vectors each. `turned`, or copied."""

    depth: int
    abreast: int
    blocks: int
    turned: bool

    def elements(self, lanes: int) -> int:
        """Of a whole one."""
        return self.depth * self.abreast * self.blocks * lanes


def choose_piece(
    target: Target, product: Product, lanes: int, blocks: int, others: int, *, turned: bool
) -> Piece:
    """As much as stays in the second-level cache, and leaves work to share out between threads;
    `others`: positions of the axes outside. Deeper than `depth` positions of k sums have to wait
    from one panel to the next."""
    depth = extent_of(product.k[0])
    wide = blocks * lanes * product.reduce.dtype.bytes
    room = int(target.caches.l2_bytes * _OWN)
    if turned and depth * wide <= room:
        return Piece(depth, 1, blocks, turned)
    own = min(depth, _LONG if turned else _SHORT)
    tiles = -(-extent_of(product.v) // (blocks * lanes))
    shared = max(1, tiles * others // _UNITS)
    return Piece(own, max(1, min(tiles, shared, room // (own * wide))), blocks, turned)


@record
class Wanted:
    """Which tiles a panel is to hold: so many of `blocks` vectors from vector `first` on, `valid`
    lanes of the last of which exist; `at` binds the axes outside."""

    at: Mapping[str, Dim]
    first: Dim
    tiles: Dim
    blocks: int
    valid: int | None

    def vectors(self, lanes: int) -> list[tuple[int, int]]:
        """(number, lanes that exist) of the vectors of a tile."""
        exist = lanes if self.valid is None else self.valid
        return [(i, lanes if i < self.blocks - 1 else exist) for i in range(self.blocks)]


@record
class OwnPanel:
    """A panel in `buffer`: of each tile, at each position of the sum its vectors side by side."""

    b: Builder
    buffer: Buffer
    w: View
    product: Product
    piece: Piece

    @property
    def lanes(self) -> int:
        return self.b.lanes

    @property
    def depth(self) -> int:
        return extent_of(self.product.k[0])

    def load(self, at: Mapping[str, Dim], tile: Dim, start: Dim, i: int, blocks: int) -> Load:
        """Vector i of a tile of the panel, whose positions of the sum begin at `start`, at one."""
        position = at[self.product.k[0].name] - start
        return self.b.vector(self.buffer, self._where(tile, position, i, blocks))

    def _where(self, tile: Dim, position: Dim, i: int, blocks: int) -> Dim:
        return ((tile * self.piece.depth + position) * blocks + i) * self.lanes

    def fill(self, wanted: Wanted, number: Dim) -> None:
        """Bring panel `number` along the sum."""
        bring = self._turn if self.piece.turned else self._copy
        bring(wanted, number)

    def _copy(self, wanted: Wanted, number: Dim) -> None:
        start = number * self.piece.depth
        stop = dim_min(start + self.piece.depth, self.depth)
        b = self.b
        with b.serial("k", stop, start) as k, b.serial("tile", wanted.tiles) as tile:
            for i, exist in wanted.vectors(self.lanes):
                v = (wanted.first + tile * wanted.blocks + i) * self.lanes
                vector = self._vector(wanted, v, k, exist)
                b.store(self.buffer, self._where(tile, k - start, i, wanted.blocks), vector)

    def _turn(self, wanted: Wanted, number: Dim) -> None:
        start = number * self.piece.depth
        whole, rest = divmod(self.depth, self.lanes)
        each = -(-self.piece.depth // self.lanes)
        last = -(-self.depth // self.piece.depth) - 1
        stop = dim_min((number + 1) * each, whole)
        with self.b.serial("tile", wanted.tiles) as tile:
            with self.b.serial("square", stop, number * each) as square:
                self._squares(wanted, tile, start, square * self.lanes, self.lanes)
            if rest and not last:
                self._squares(wanted, tile, start, whole * self.lanes, rest)
            elif rest:
                with self.b.when(IndexTest("eq", number, last)):
                    self._squares(wanted, tile, start, whole * self.lanes, rest)

    def _squares(self, wanted: Wanted, tile: Dim, start: Dim, first: Dim, count: int) -> None:
        """`count` positions of the sum from `first` on, of all vectors of a tile."""
        none = Const(0, ValueType(self.buffer.dtype, self.lanes))
        for i, exist in wanted.vectors(self.lanes):
            v = (wanted.first + tile * wanted.blocks + i) * self.lanes
            rows = [self._vector(wanted, v + row, first, count) for row in range(exist)]
            turned = transposed(self.b, [*rows, *[none] * (self.lanes - exist)])
            for k, vector in enumerate(turned[:count]):
                where = self._where(tile, first - start + k, i, wanted.blocks)
                self.b.store(self.buffer, where, vector)

    def _vector(self, wanted: Wanted, v: Dim, k: Dim, exist: int) -> Value:
        """The vector of w that lies there, `exist` lanes of it."""
        bound = {**wanted.at, self.product.v.name: v, self.product.k[0].name: k}
        where = self.w.layout.offset([substitute(index, bound) for index in self.product.w.index])
        type = ValueType(self.w.buffer.dtype, self.lanes)
        valid = exist if exist < self.lanes else None
        return self.b.let(Load(self.w.buffer, where, type, valid=valid), "row")
