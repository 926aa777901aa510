"""The machine record of an NVIDIA card."""

from __future__ import annotations

from functools import lru_cache

from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.layout import Layout
from convdsl.schedules.cuda.gemm import rounded_factors
from convdsl.schedules.cuda.generic import generic
from convdsl.schedules.cuda.implicit_gemm import implicit_gemm
from convdsl.schedules.cuda.layouts import layout_of
from convdsl.schedules.cuda.matrix_pack import MatrixPack
from convdsl.schedules.cuda.phases import phases
from convdsl.schedules.cuda.ranks import ranks
from convdsl.schedules.cuda.reduction import reduction
from convdsl.schedules.cuda.rows import rows
from convdsl.schedules.cuda.running import running
from convdsl.schedules.cuda.scatter import scatter
from convdsl.schedules.cuda.transposed import transposed
from convdsl.schedules.cuda.vectors import vectors
from convdsl.schedules.cuda.windows import windows
from convdsl.schedules.cuda.winograd import winograd
from convdsl.schedules.cuda.winograd_filters import FilterMatrices
from convdsl.schedules.machine import Machine, pack_forms

_ALIGNMENT = 256
"""What allocations on a card begin at a multiple of: vectors, and whole sectors."""

_PART = 16
"""What kernels rely on: that vectors begin at a multiple of their size."""


@lru_cache(maxsize=64)
def cuda_machine(target: CudaTarget) -> Machine:
    """All that lowering must know of a card."""
    made = (
        winograd,
        implicit_gemm,
        phases,
        ranks,
        rows,
        reduction,
        scatter,
        running,
        transposed,
        windows,
        vectors,
        generic,
    )
    return Machine(
        name="cuda",
        facts=repr(target),
        layout=lambda stage, operands, _: layout_of(stage, operands),
        schedules=tuple(schedule(target) for schedule in made),
        packs=pack_forms(Layout, MatrixPack, FilterMatrices),
        alignment=_ALIGNMENT,
        parts=_PART,
        rounded=rounded_factors(target),
    )
