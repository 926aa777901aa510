"""What a block of threads computes of a product, and how its warps share that out."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from convdsl.kernel.cuda_target import REGISTERS_SM, CudaTarget
from convdsl.kernel.group_mma import GROUP, GROUP_ROWS, LINE, GroupForm
from convdsl.kernel.mma import BF16, COLUMNS, F16, ROWS, SHORT_F16, TF32, WARP, MmaForm
from convdsl.tensor import DType
from convdsl.tensor.records import record

_CHUNK = 64
"""Bytes that lie side by side for one row in shared memory: half of a line of its banks, so that
two rows are one."""

REGISTER = 4  # bytes

LEAST_COPY = 4
"""Bytes of the smallest copy that goes on behind."""

_VECTOR = 16
"""Bytes that are copied and loaded together where they lie side by side."""

STAGES = 3
"""Steps in shared memory: one is computed with while two are on their way."""

VECTOR = 4
"""Neighbouring sums of a row that a thread holds: sixteen bytes of f32."""

MOST_REGISTERS = 255
"""Of a thread."""

SKEW = 32
"""Bytes by which the rows of one thread's depths begin further on than the thread's before, so that
the loads of a warp meet in no bank."""

_LANES = (4, 8)
"""Of a warp on the plain units, along rows and columns."""


@record
class Tile:
    """`warps` along rows and columns, each with `rows` x `columns` sums: on the tensor units in
    pieces of a form, on the plain ones (no form) each thread a rectangle of them. `halves`: both
    factors lie in shared memory as the form takes them, in two bytes an element. `grouped`: four
    warps below each other multiply together, from shared memory (`kernel.group_mma`), where both
    factors may lie `across`, along their rows."""

    form: MmaForm | None
    warps: tuple[int, int]
    warp_rows: int
    warp_columns: int
    chunks: int = 1  # of depths in one step
    halves: bool = False
    grouped: bool = False
    stages: int = STAGES
    across: bool = False

    @property
    def group_form(self) -> GroupForm:
        """Of one product of a warp group."""
        assert self.form is not None
        return GroupForm(self.form.dtype, self.warp_columns, self.depth if self.across else 0)

    @property
    def groups(self) -> int:
        """Of warps."""
        return self.threads // GROUP

    @property
    def ahead(self) -> int:
        """Steps whose copies are on their way while one is computed with. Products of warp groups
        go on while the next step begins: what that copies to is what the step before them read."""
        return self.stages - (2 if self.grouped else 1)

    @property
    def element(self) -> int:
        """Bytes of an element of a factor, at most."""
        return 2 if self.halves else 4

    @property
    def chunk(self) -> int:
        """Depths that lie side by side for one row."""
        return (LINE if self.grouped else _CHUNK) // self.element

    @property
    def vector(self) -> int:
        """Depths of a chunk that one thread takes."""
        return _VECTOR // self.element

    @property
    def depth(self) -> int:
        """Of one step."""
        return self.chunk * self.chunks

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
        """Of both factors for one step, at most."""
        skew = 0 if self.grouped else 2 * SKEW * self.chunks * 4
        return (self.rows + self.columns) * self.depth * self.element + skew

    @property
    def registers(self) -> int:
        """Of a thread: sums, one step's fragments of both factors, and addresses."""
        if self.grouped:
            factors = 0
        elif self.form is None:
            factors = VECTOR * self.thread_rows + 2 * VECTOR * self.thread_vectors
        else:
            factors = VECTOR * 2 * (self.row_pieces + self.column_pieces)
        return min(MOST_REGISTERS, self.sums + factors + _ADDRESSES)

    def blocks_on(self, target: CudaTarget, held: int = 0) -> int:
        """Blocks that a multiprocessor holds at a time, each thread of which holds registers
        besides."""
        facts = target.facts
        shared = facts.shared_bytes_sm // (self.stage_bytes * self.stages + _RESERVED)
        each = min(MOST_REGISTERS, self.registers + held)
        registers = REGISTERS_SM // (-(-each // 8) * 8 * self.threads)
        return max(1, min(shared, registers, facts.threads_sm // self.threads, facts.blocks_sm))

    @property
    def touched(self) -> int:
        """Bytes of shared memory that copies write and products of warp groups read in one step:
        each of these reads its 64 rows and all columns."""
        products = self.rows // GROUP_ROWS * (GROUP_ROWS + self.columns)
        return (products + self.rows + self.columns) * self.depth * self.element

    @property
    def mmas(self) -> int:
        """Products of small matrices that a warp makes in one step."""
        form = self.form
        if form is None:
            return 0
        if self.grouped:
            return self.row_pieces * self.depth // self.group_form.k
        return self.row_pieces * 2 * self.column_pieces * self.depth // form.k


_SMALL = 1024  # sums of a warp
_ADDRESSES = 40  # registers
_RESERVED = 1024  # bytes of shared memory that a block takes besides


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


def _on_tensor_units(form: MmaForm, *, halves: bool) -> Iterator[Tile]:
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
        yield Tile(form, warps, rows, columns, 2, halves)
        if rows * columns > _SMALL:  # small tiles would be held up by what is done once a step
            yield Tile(form, warps, rows, columns, 1, halves)


def _grouped(form: MmaForm, *, halves: bool) -> Iterator[Tile]:
    """Groups below each other, the rows of each, columns, stages."""
    for groups, rows, columns, stages in (
        (2, 64, 256, 4),
        (2, 64, 192, 4),
        (1, 64, 192, 3),
        (4, 64, 128, 4),
        (2, 64, 128, 4),
        (2, 64, 128, 3),
        (2, 128, 64, 4),
        (2, 64, 64, 4),
        (1, 64, 64, 4),
    ):
        warp_rows = rows * ROWS // GROUP_ROWS
        yield Tile(form, (4 * groups, 1), warp_rows, columns, 1, halves, True, stages)


def form_of(target: CudaTarget, a: DType, b: DType) -> tuple[MmaForm | None, bool]:
    """How factors that are stored in two types are multiplied, and whether the form takes them as
    they are; no form on the plain units. Products of halves of one type are exact, so that it is no
    matter of precision; else it is what the precision allows, where the card has it."""
    halves = F16 if target.has_async_copies else SHORT_F16
    if a is b is DType.F16 or target.precision == "float16":
        return halves, a is b is DType.F16
    if not target.has_bf16:
        return None, False
    if a is b is DType.BF16:
        return BF16, True
    if target.precision == "highest":
        return None, False
    return TF32 if target.precision == "high" else BF16, False


def tiles_for(target: CudaTarget, a: DType, b: DType) -> tuple[Tile, ...]:
    """The tiles to choose from for factors of two types."""
    form, halves = form_of(target, a, b)
    if form is None:
        return tuple(_plain())
    tiles = tuple(_on_tensor_units(form, halves=halves))
    if target.has_group_products and (halves or DType.TF32 in (a, b)):
        return (*_grouped(form, halves=halves), *tiles)
    return tiles
