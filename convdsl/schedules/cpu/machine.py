"""The machine record of a processor: channel-blocked layouts, schedules in registers and caches."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import prod

from convdsl.kernel.expr import Stage, reads
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import find_contraction, match_convolution
from convdsl.schedules.cpu.depthwise import depthwise
from convdsl.schedules.cpu.direct import direct
from convdsl.schedules.cpu.filters import FilterPack
from convdsl.schedules.cpu.gemm import gemm
from convdsl.schedules.cpu.generic import generic
from convdsl.schedules.cpu.reduction import reduction
from convdsl.schedules.cpu.scatter import scatter
from convdsl.schedules.machine import Machine, pack_forms
from convdsl.tensor import DType

_CACHE_LINE = 64


@lru_cache(maxsize=64)
def cpu_machine(target: Target) -> Machine:
    """All that lowering must know of a processor."""

    def layout(stage: Stage, operands: Mapping[str, Layout | None]) -> Layout:
        return layout_of(stage, operands, target)

    return Machine(
        name="cpu",
        facts=repr(target),
        layout=layout,
        schedules=(
            direct(target),
            depthwise(target),
            gemm(target),
            reduction(target),
            scatter(target),
            generic(target),
        ),
        packs=pack_forms(FilterPack, Layout),
        alignment=_CACHE_LINE,
    )


def layout_of(stage: Stage, operands: Mapping[str, Layout | None], target: Target) -> Layout:
    """Tensors of rank 3 and more are blocked along the channels, by the lanes that a vector has for
    their elements (smaller elements are worked on beside f32, larger ones beside f64); the rest
    is plain.

    So is what products of matrices make (its second axis is a batch or rows, nothing like
    channels), and what follows from it up to the next convolution: heads of attention
    are not filled up to whole vectors."""
    type = stage.target.type
    block = target.lanes(DType.F64 if type.dtype is DType.F64 else DType.F32)
    if type.rank < 3 or block < 2 or _runs_along_rows(stage, operands):
        return Layout(type.sizes)
    return Layout(type.sizes, 1, block)


def _runs_along_rows(stage: Stage, operands: Mapping[str, Layout | None]) -> bool:
    """Whether a stage is a product of matrices, or reads what lies as those do: the largest of
    its operands, one of them if there are several as large."""
    contraction = find_contraction(stage)
    if contraction is not None:
        return contraction.of_matrices and match_convolution(stage) is None
    names = {read.tensor.name for read in reads(stage.body)}
    found = [operands[name] for name in names if name in operands]
    made = [layout for layout in found if layout is not None and len(layout.shape) >= 3]
    sizes = [prod(layout.shape) for layout in made]
    return any(
        layout.axis is None and size == max(sizes) for layout, size in zip(made, sizes, strict=True)
    )
