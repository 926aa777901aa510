"""Products of matrices in shared memory that the 128 threads of a warp group begin together, and
that go on behind them.

    D[64][n] += A[64][k] B[n][k]

Rows of both factors are lines of 128 bytes, of which a product takes 32, from a multiple of 32 on.
The sixteen bytes number c of a line lie at number c ^ (line % 8), so that eight rows' pieces meet
in no bank: line r of a tile that begins at a multiple of 1024 bytes is found at

    byte   swizzled(128 r + c 16 + b) = 128 r + (c ^ (r % 8)) 16 + b

("128-byte swizzle", "K-major": PTX ISA 8.5, 9.7.15.5, "Shared Memory Matrix Layout", "Matrix
Descriptor"). Halves may lie across ("MN-major"): a line is 64 neighbouring rows at one depth, and a
block of 64 rows has so many lines, one for each depth of a tile; the next block follows it.

    byte of row r at depth d, L lines a block    swizzled(128 (r // 64 L + d) + 2 (r % 64))

Sums are in registers of f32: with w the number of the warp in its group,
g = lane // 4, t = lane % 4, thread (w, lane) holds as its number i

    D   row 16 w + g + 8 (i // 2 % 2)   column 8 (i // 4) + 2 t + i % 2

(9.7.15.5.1, "Register Fragments", figure of the accumulator of wgmma .m64nNk8). The element f32
stands for tf32: tensor units read its upper 19 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.kernel.mma import COLUMNS, ROWS, WARP, Place
from convdsl.tensor import DType
from convdsl.tensor.records import record

Array = npt.NDArray[Any]

GROUP = 128
"""Threads of a warp group: four warps, each of which multiplies its own sixteen rows."""

GROUP_ROWS = GROUP // WARP * ROWS
"""Of the sums, in every form."""

LINE = 128
"""Bytes of a row in shared memory."""

ATOM = 8 * LINE
"""Bytes of the eight lines among which pieces change places; tiles begin at multiples of it."""

TAKEN = 32
"""Bytes of a row that one product takes."""

PIECE = 16
"""Bytes that stay together."""


@record
class GroupForm:
    """One instruction: what its factors hold, and how many columns it has. `across`: lines of a
    block of rows where both factors lie across."""

    dtype: DType
    columns: int
    across: int = 0

    @property
    def k(self) -> int:
        """How many products a sum gains."""
        return TAKEN // self.dtype.bytes

    @property
    def sums(self) -> int:
        """Of a thread."""
        return GROUP_ROWS * self.columns // GROUP

    @property
    def line(self) -> int:
        """Elements of a row in shared memory."""
        return LINE // self.dtype.bytes

    @property
    def begins(self) -> int:
        """Bytes at whose multiples, from the start of eight lines on, a factor may begin."""
        return ATOM if self.across else TAKEN

    def at(self, row: Any, depth: Any) -> Any:
        """How many elements after its first one a factor's row at a depth lies, before pieces
        change places: numbers or indices; rows are multiples of 64."""
        if self.across:
            return row * self.across + depth * self.line
        return row * self.line + depth

    def reach(self, rows: int) -> int:
        """From the first of a product's elements to the last one, of so many rows of a factor."""
        if self.across:
            return ((rows - 1) // self.line * self.across + self.k) * self.line
        return (rows - 1) * self.line + self.k

    def pieces(self, first: int, count: int) -> list[int]:
        """Where sixteen bytes that a product takes of some rows begin, in bytes after the start: of
        one row after the other, or, across, of one depth after the other."""
        if not self.across:
            found = ((row, piece) for row in range(first, first + count) for piece in (0, PIECE))
            return [row * LINE + piece for row, piece in found]
        size = self.dtype.bytes
        return [
            (row // self.line * self.across + depth) * LINE + row % self.line * size
            for depth in range(self.k)
            for row in range(first, first + count, PIECE // size)
        ]

    def sum_places(self, thread: int) -> list[Place]:
        """(row, column) of each sum that a thread of a group holds."""
        warp, lane = divmod(thread, WARP)
        g, t = divmod(lane, 4)
        return [
            (ROWS * warp + g + 8 * (i // 2 % 2), COLUMNS * (i // 4) + 2 * t + i % 2)
            for i in range(self.sums)
        ]

    def __str__(self) -> str:
        name = "tf32" if self.dtype is DType.F32 else str(self.dtype)
        lying = f".across{self.across}" if self.across else ""
        return f"m{GROUP_ROWS}n{self.columns}k{self.k}.{name}{lying}"


ACROSS = 64
"""Lines of a block, where factors lie across: of the depths of a step."""

GROUP_FORMS = tuple(
    GroupForm(dtype, columns, across)
    for dtype in (DType.F32, DType.BF16, DType.F16)
    for columns in (64, 128, 192, 256)
    for across in ((0,) if dtype is DType.F32 else (0, ACROSS))
)
"""Those of the hardware that schedules make use of: it has every multiple of eight columns."""


def swizzled(byte: int) -> int:
    """Where a byte of a tile lies: see above."""
    return byte ^ (byte // LINE % 8 * PIECE)


def warp_multiplied(form: GroupForm, brought: Sequence[Array]) -> list[Array]:
    """The new sums of each thread of a warp, all in f64: the first thread brings the warp's
    sixteen rows of A, and B, before its sums. Each sum is rounded once."""
    sizes = ROWS * form.k, form.columns * form.k
    a, b, own = np.split(brought[0], np.cumsum(sizes))
    product = a.reshape(ROWS, form.k) @ b.reshape(form.columns, form.k).T
    made: list[Array] = []
    for lane, sums in enumerate((own, *brought[1:])):
        rows, columns = np.array(form.sum_places(lane)).T
        made.append((sums + product[rows, columns]).astype(np.float32))
    return made
