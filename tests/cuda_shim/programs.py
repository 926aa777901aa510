"""Whole programs through the CUDA C that is printed of them, on a processor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import convdsl
from convdsl.kernel.cuda_module import CudaModule, Launch
from convdsl.kernel.nodes import Blocks, Buffer, Kernel
from convdsl.kernel.program import Access, Argument, Place, Program
from cuda_shim.modules import Library, compile_module
from cuda_shim.running import FORWARD, Launched, Memory, Order, launch

Array = npt.NDArray[Any]

_PRELUDE = Path(convdsl.__file__).parent / "backends" / "cuda" / "prelude.cuh"


def library_of(module: CudaModule, *, noted: bool) -> Library:
    """The module's source with the shim in place of the prelude."""
    prelude = _PRELUDE.read_text(encoding="utf-8") if _PRELUDE.exists() else ""
    assert prelude in module.source, "the source does not hold the prelude as it is"
    return compile_module(module.source.replace(prelude, "", 1), noted=noted)


def launching(
    program: Program, module: CudaModule
) -> Iterator[tuple[list[tuple[Kernel, Blocks]], Launch]]:
    """Each launch with the grids that it is of, and their kernels."""
    kernels = {kernel.name: kernel for kernel in program.kernels}
    grids = [
        (kernels[step.kernel], grid)
        for step in program.steps
        for grid in kernels[step.kernel].body
        if isinstance(grid, Blocks)
    ]
    for one in module.launches:
        yield grids[: one.steps], one
        del grids[: one.steps]
    assert not grids, "steps that nothing launches"


def run_on_cpu(
    program: Program,
    module: CudaModule,
    weights: npt.NDArray[np.uint8],
    inputs: Sequence[Array],
    states: Sequence[Array] = (),
    order: Order = FORWARD,
    *,
    noted: bool = True,
) -> list[Array]:
    """All launches in order, on an arena and outputs that start out as NaN; states, in the
    program's order, are changed in place. Raises Caught, with a detector's finding."""
    library = library_of(module, noted=noted)
    return run_launches(program, module, library, weights, inputs, states, order, noted=noted)


def run_launches(
    program: Program,
    module: CudaModule,
    library: Library,
    weights: npt.NDArray[np.uint8],
    inputs: Sequence[Array],
    states: Sequence[Array] = (),
    order: Order = FORWARD,
    *,
    noted: bool = True,
) -> list[Array]:
    """The same with the module compiled already, from its source or from PTX."""
    arena = np.full(program.arena_bytes + 256, 0xFF, np.uint8)
    arena = arena[-arena.ctypes.data % 256 :]
    outputs = [np.empty(port.type.sizes, port.type.dtype.numpy) for port in program.outputs]
    for array in outputs:
        array.reshape(-1).view(np.uint8)[:] = 0xFF
    given = [np.ascontiguousarray(array) for array in inputs]

    def memory(wanted: Buffer, argument: Argument) -> Memory:
        written = argument.access is not Access.READ
        match argument.place:
            case Place.INPUT:
                array = given[argument.slot].reshape(-1)
            case Place.OUTPUT:
                array = outputs[argument.slot].reshape(-1)
            case Place.STATE:
                array = states[argument.slot].reshape(-1)
            case _:
                whole = weights if argument.place is Place.WEIGHTS else arena
                end = argument.offset + wanted.size * wanted.dtype.bytes
                array = whole[argument.offset : end].view(wanted.dtype.numpy)
        return Memory(wanted.name, array, written)

    for grids, one in launching(program, module):
        buffers = [
            replace(buffer, name=f"{step}_{buffer.name}") if step else buffer
            for step, (kernel, _) in enumerate(grids)
            for buffer in kernel.buffers
        ]
        memories = [
            memory(wanted, argument)
            for wanted, argument in zip(buffers, one.arguments, strict=True)
        ]
        granule = min((b.dtype.bytes for _, grid in grids for b in grid.shared), default=4)
        launched = Launched(one.function, one.grid, one.block, one.shared_bytes, granule)
        launch(library, launched, memories, order, noted=noted)
    return outputs
