"""What a block of threads computes of a product, and how its warps share that out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from convdsl.kernel.cuda_target import REGISTERS_SM, CudaTarget
from convdsl.kernel.mma import BF16, COLUMNS, ROWS, TF32, WARP, MmaForm

CHUNK = 16
"""Depths that lie side by side for one row in shared memory. Sixteen f32 are half of a line of its
banks: two rows are one."""

STAGES = 3
"""Steps in shared memory: one is computed with while two are on their way."""

VECTOR = 4
"""Elements that are stored and copied together where they lie side by side: sixteen bytes."""

_LANES = (4, 8)
"""Of a warp on the plain units, along rows and columns."""


@dataclass(frozen=True, slots=True)
class Tile:
    """`warps` along rows and columns, each with `rows` x `columns` sums: on the tensor units in
    pieces of a form, on the plain ones (no form) each thread a rectangle of them."""

    form: MmaForm | None
    warps: tuple[int, int]
    warp_rows: int
    warp_columns: int
    chunks: int = 1  # of depths in one step

    @property
    def depth(self) -> int:
        """Of one step."""
        return CHUNK * self.chunks

    @property
    def rows(self) -> int:
        return self.warps[0] * self.warp_rows

    @property
    def columns(self) -> int:
        return self.warps[1] * self.warp_columns

    @property
    def threads(self) -> int:
        return WARP * prod(self.warps)

    @property
    def thread_rows(self) -> int:
        """Rows of a thread, on the plain units."""
        return self.warp_rows // _LANES[0]

    @property
    def thread_vectors(self) -> int:
        """Vectors of columns of a thread, on the plain units."""
        return self.warp_columns // _LANES[1] // VECTOR

    @property
    def row_pieces(self) -> int:
        """Pieces of a warp along the rows, on the tensor units."""
        return self.warp_rows // ROWS

    @property
    def column_pieces(self) -> int:
        """Pairs of pieces of a warp along the columns."""
        return self.warp_columns // (2 * COLUMNS)

    @property
    def sums(self) -> int:
        """Of a thread."""
        return self.warp_rows * self.warp_columns // WARP

    @property
    def stage_bytes(self) -> int:
        """Of both factors for one step."""
        return (self.rows + self.columns) * self.depth * 4

    @property
    def registers(self) -> int:
        """Of a thread: sums, one step's fragments of both factors, and addresses."""
        if self.form is None:
            factors = VECTOR * self.thread_rows + 2 * VECTOR * self.thread_vectors
        else:
            factors = VECTOR * 2 * (self.row_pieces + self.column_pieces)
        return min(255, self.sums + factors + _ADDRESSES)

    def blocks_on(self, target: CudaTarget) -> int:
        """Blocks that a multiprocessor holds at a time."""
        facts = target.facts
        shared = facts.shared_bytes_sm // (self.stage_bytes * STAGES + _RESERVED)
        registers = REGISTERS_SM // (-(-self.registers // 8) * 8 * self.threads)
        return max(1, min(shared, registers, facts.threads_sm // self.threads, facts.blocks_sm))

    @property
    def slots(self) -> float:
        """Issue slots of a warp in one step: products, loads of fragments, rounding, copies."""
        copies = (self.rows + self.columns) * self.depth / VECTOR / self.threads * _COPY
        if self.form is None:
            products = self.thread_rows * self.thread_vectors * VECTOR * self.depth
            loads = self.depth / VECTOR * self.thread_rows + self.depth * self.thread_vectors
            return products + loads + copies + _LOOP
        halves = 2 * (self.row_pieces + self.column_pieces) * self.chunks
        rounding = halves * VECTOR // 2  # two at a time
        if self.form is TF32:  # of the first factor: weights are rounded before
            rounding = 2 * self.row_pieces * self.chunks * VECTOR * _ROUNDED
        return self.mmas + halves + rounding + copies + _LOOP

    @property
    def mmas(self) -> int:
        """Products of small matrices that a warp makes in one step."""
        form = self.form
        if form is None:
            return 0
        return self.row_pieces * 2 * self.column_pieces * self.depth // form.k


_SMALL = 1024  # sums of a warp
_ADDRESSES = 40  # registers
_RESERVED = 1024  # bytes of shared memory that a block takes besides
_COPY = 12.0  # issue slots around one copy: address, tests of the border, the copy
_ROUNDED = 4  # issue slots of rounding to TF32: no card does it in one
_LOOP = 24.0  # issue slots of a step besides: where it is, the barrier, the wait


def _plain() -> Iterator[Tile]:
    for warps, rows, columns in (
        ((4, 2), 32, 64),
        ((4, 1), 32, 64),
        ((2, 2), 32, 32),
        ((4, 1), 32, 32),
        ((2, 1), 32, 32),
        ((2, 2), 16, 32),
        ((2, 1), 16, 32),
    ):
        yield Tile(None, warps, rows, columns)


def _on_tensor_units(form: MmaForm) -> Iterator[Tile]:
    for warps, rows, columns in (
        ((2, 2), 64, 64),
        ((4, 1), 64, 64),
        ((2, 1), 64, 64),
        ((1, 2), 64, 64),
        ((2, 2), 64, 32),
        ((2, 2), 32, 64),
        ((4, 1), 32, 32),
        ((2, 2), 32, 32),
        ((2, 1), 32, 32),
        ((2, 2), 16, 16),
        ((4, 1), 16, 16),
    ):
        yield Tile(form, warps, rows, columns, 2)
        if rows * columns > _SMALL:  # small tiles would be held up by what is done once a step
            yield Tile(form, warps, rows, columns)


def form_of(target: CudaTarget) -> MmaForm | None:
    """The products that a precision allows, where the card has them; none on the plain units."""
    if target.precision == "highest" or not target.has_bf16:
        return None
    return TF32 if target.precision == "high" else BF16


def tiles_for(target: CudaTarget) -> tuple[Tile, ...]:
    """The tiles to choose from."""
    form = form_of(target)
    return tuple(_plain() if form is None else _on_tensor_units(form))
