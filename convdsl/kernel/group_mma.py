"""Products of matrices in shared memory that the 128 threads of a warp group begin together, and
that go on behind them.

    D[64][n] += A[64][k] B[n][k]

Rows of both factors are lines of 128 bytes, of which a product takes 32, from a multiple of 32 on.
The sixteen bytes number c of a line lie at number c ^ (line % 8), so that eight rows' pieces meet
in no bank: line r of a tile that begins at a multiple of 1024 bytes is found at

    byte   swizzled(128 r + c 16 + b) = 128 r + (c ^ (r % 8)) 16 + b

("128-byte swizzle", "K-major": PTX ISA 8.5, 9.7.15.5, "Shared Memory Matrix Layout", "Matrix
Descriptor"). Sums are in registers of f32: with w the number of the warp in its group,
g = lane // 4, t = lane % 4, thread (w, lane) holds as its number i

    D   row 16 w + g + 8 (i // 2 % 2)   column 8 (i // 4) + 2 t + i % 2

(9.7.15.5.1, "Register Fragments", figure of the accumulator of wgmma .m64nNk8). The element f32
stands for tf32: tensor units read its upper 19 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.kernel.mma import COLUMNS, ROWS, WARP, Place
from convdsl.tensor import DType

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


@dataclass(frozen=True, slots=True)
class GroupForm:
    """One instruction: what its factors hold, and how many columns it has."""

    dtype: DType
    columns: int

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
        return f"m{GROUP_ROWS}n{self.columns}k{self.k}.{name}"


GROUP_FORMS = tuple(
    GroupForm(dtype, columns)
    for dtype in (DType.F32, DType.BF16, DType.F16)
    for columns in (64, 128, 256)
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
