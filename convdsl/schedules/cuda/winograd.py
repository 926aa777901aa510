"""Convolutions of stride 1 with a fraction of the products (Winograd), on the plain units and in
TF32."""

from __future__ import annotations

from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.nodes import Kernel
from convdsl.schedules.cuda import implicit_gemm
from convdsl.schedules.cuda.matrix_pack import MatrixPack
from convdsl.schedules.cuda.winograd_filters import filter_matrices
from convdsl.schedules.cuda.winograd_plan import (
    FILTERS,
    PRODUCTS,
    TILES,
    Winograd,
    winograd_for,
)
from convdsl.schedules.cuda.winograd_stages import filters_kernel, inputs_kernel, outputs_kernel
from convdsl.schedules.task import Arguments, Pack, Schedule, Scheduled, Scratch, Task
from convdsl.tensor import DType


def winograd(target: CudaTarget) -> Schedule:
    """The schedule for a card."""

    def cost(task: Task) -> float | None:
        made = winograd_for(task, target)
        return None if made is None else made.nanoseconds(target)

    def emit(task: Task, name: str) -> Scheduled:
        made = winograd_for(task, target)
        assert made is not None
        return emit_as(made, target, name)

    def note(task: Task) -> str:
        made = winograd_for(task, target)
        return "" if made is None else made.said

    return Schedule("winograd", cost, emit, note=note)


def emit_as(made: Winograd, target: CudaTarget, name: str) -> Scheduled:
    """The kernels of one form."""
    x, w = made.conv.x.tensor.name, made.conv.w.tensor.name
    inputs = inputs_kernel(made, target, f"{name}_inputs")
    kernels: list[tuple[Kernel, Arguments]] = [
        (inputs, ((x, made.x if made.packs_input else None), (TILES, None)))
    ]
    scratch = [
        Scratch(TILES, made.stored, made.inputs_size),
        Scratch(PRODUCTS, DType.F32, made.products_size),
    ]
    if made.late:
        kernels.append(
            (filters_kernel(made, target, f"{name}_filters"), ((w, None), (FILTERS, None)))
        )
        scratch.append(Scratch(FILTERS, made.stored, made.filters_size))
    products = implicit_gemm.emit(made.product, made.plan, target, f"{name}_products")
    for kernel, arguments in products.kernels:
        kernels.append((kernel, tuple(_argument(made, *pair) for pair in arguments)))
    outputs = outputs_kernel(made, target, name)
    return Scheduled((*kernels, *outputs.kernels), (*scratch, *products.scratch))


def _argument(made: Winograd, name: str, pack: Pack | None) -> tuple[str, Pack | None]:
    """What a buffer of the products holds: their filters are transformed when they are packed."""
    if name != FILTERS or made.late:
        return name, pack
    assert isinstance(pack, MatrixPack)
    outputs = [line.form.m for line in made.tiling.lines]
    return made.conv.w.tensor.name, filter_matrices(made.conv, outputs, pack)
