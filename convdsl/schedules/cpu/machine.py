"""The machine record of a processor: channel-blocked layouts, schedules in registers and caches."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from convdsl.kernel.expr import Stage
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.depthwise import depthwise
from convdsl.schedules.cpu.direct import direct
from convdsl.schedules.cpu.filters import FilterPack
from convdsl.schedules.cpu.gemm import gemm
from convdsl.schedules.cpu.generic import generic
from convdsl.schedules.cpu.reduction import reduction
from convdsl.schedules.machine import Machine, pack_forms
from convdsl.tensor import DType, TensorType

_CACHE_LINE = 64


@lru_cache(maxsize=64)
def cpu_machine(target: Target) -> Machine:
    """All that lowering must know of a processor."""

    def layout(stage: Stage, operands: Mapping[str, Layout | None]) -> Layout:
        return layout_of(stage.target.type, target)

    return Machine(
        name="cpu",
        facts=repr(target),
        layout=layout,
        schedules=(
            direct(target),
            depthwise(target),
            gemm(target),
            reduction(target),
            generic(target),
        ),
        packs=pack_forms(FilterPack, Layout),
        alignment=_CACHE_LINE,
    )


def layout_of(type: TensorType, target: Target) -> Layout:
    """Tensors of rank 3 and more are blocked along the channels, by the lanes that a vector has for
    their elements (smaller elements are worked on beside f32, larger ones beside f64); the rest
    is plain."""
    shape = type.sizes
    block = target.lanes(DType.F64 if type.dtype is DType.F64 else DType.F32)
    if len(shape) >= 3 and block > 1:
        return Layout(shape, 1, block)
    return Layout(shape)
