"""Products of small matrices that the 32 threads of a warp hold together.

    D[16][8] += A[16][k] B[k][8]

Each thread holds a few elements of each matrix, in 32-bit registers: one f32 (of which tensor
units read the upper 19 bits: tf32), or two neighbours of f16 or bf16. The hardware says which ones:
with g = thread // 4 and t = thread % 4, register i, half h,

    A   row g + 8 (i % 2)   column (t + 4 (i // 2)) lanes + h
    B   row (t + 4 i) lanes + h                            column g
    D   row g + 8 (i // 2)  column 2 t + i % 2

(PTX ISA 8.5, 9.7.13.4, "Matrix fragments for mma.m16n8k8" and "mma.m16n8k16".)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.tensor import DType
from convdsl.tensor.conversion import CUT
from convdsl.tensor.records import record

Array = npt.NDArray[Any]

WARP = 32
"""Threads that meet."""

ROWS, COLUMNS = 16, 8
"""Of the sums, in every form."""

SUMS = ROWS * COLUMNS // WARP
"""Sums that each thread holds, in f32."""

Place: TypeAlias = tuple[int, int]


@record
class MmaForm:
    """One instruction: what its factors hold, and how many products a sum gains."""

    dtype: DType
    k: int

    @property
    def lanes(self) -> int:
        """Elements in a register."""
        return 4 // self.dtype.bytes

    @property
    def a_registers(self) -> int:
        return ROWS * self.k // WARP // self.lanes

    @property
    def b_registers(self) -> int:
        return COLUMNS * self.k // WARP // self.lanes

    def a_places(self, thread: int) -> list[Place]:
        """(row, column) of each element of A that a thread holds, register after register."""
        g, t = divmod(thread, 4)
        return [
            (g + 8 * (i % 2), (t + 4 * (i // 2)) * self.lanes + h)
            for i in range(self.a_registers)
            for h in range(self.lanes)
        ]

    def b_places(self, thread: int) -> list[Place]:
        """(row, column) of each element of B."""
        g, t = divmod(thread, 4)
        return [
            ((t + 4 * i) * self.lanes + h, g)
            for i in range(self.b_registers)
            for h in range(self.lanes)
        ]

    def __str__(self) -> str:
        name = "tf32" if self.dtype is DType.F32 else str(self.dtype)
        return f"m{ROWS}n{COLUMNS}k{self.k}.{name}"


def sum_places(thread: int) -> list[Place]:
    """(row, column) of each sum that a thread holds."""
    g, t = divmod(thread, 4)
    return [(g + 8 * (i // 2), 2 * t + i % 2) for i in range(SUMS)]


TF32 = MmaForm(DType.F32, 8)
BF16 = MmaForm(DType.BF16, 16)
F16 = MmaForm(DType.F16, 16)
SHORT_F16 = MmaForm(DType.F16, 8)
"""The only one of these that sm_75 has."""

FORMS = (TF32, BF16, F16, SHORT_F16)


# What they compute


def as_tf32(x: Array) -> Array:
    """What tensor units read of f32, in f64."""
    return (x.view(np.uint32) >> CUT << CUT).view(np.float32).astype(np.float64)


def multiplied(form: MmaForm, fragments: Sequence[Array]) -> list[Array]:
    """The new sums of each thread of a warp, which brings its elements of A and of B and its sums,
    all in f64. Each sum is rounded once."""
    a, b = np.empty((ROWS, form.k)), np.empty((form.k, COLUMNS))
    sums = np.empty((ROWS, COLUMNS))
    for thread, fragment in enumerate(fragments):
        places = (form.a_places(thread), form.b_places(thread), sum_places(thread))
        values = iter(fragment.tolist())
        for matrix, own in zip((a, b, sums), places, strict=True):
            for place in own:
                matrix[place] = next(values)
    sums = (a @ b + sums).astype(np.float32)
    return [np.array([sums[p] for p in sum_places(thread)]) for thread in range(WARP)]
