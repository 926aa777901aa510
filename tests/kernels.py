"""Single kernels in tests: run by machine code and by the loop interpreter, on flat arrays."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np

from convdsl.backends.llvm import module as llvm_module
from convdsl.backends.llvm import objects as llvm
from convdsl.kernel.builder import Builder
from convdsl.kernel.interpret import interpret
from convdsl.kernel.nodes import Binary, Buffer, Const, Get, Kernel, ReduceLanes, Space
from convdsl.kernel.program import Access, Argument, Place, Port, Program, Step
from convdsl.kernel.target import Target
from convdsl.runtime.code import Code
from convdsl.runtime.cpu.code import LoadedCode
from convdsl.tensor import DType, TensorType

Array = np.ndarray[Any, Any]


def program_of(kernel: Kernel) -> Program:
    """One kernel alone: what it reads are the inputs, what it writes the outputs."""
    read = [b for b in kernel.buffers if not b.written]
    private = [b for b in kernel.buffers if b.space is Space.PRIVATE]
    written = [b for b in kernel.buffers if b.written and b not in private]
    starts = dict(zip(private, accumulate((64 * b.size for b in private), initial=0), strict=False))

    def argument(b: Buffer) -> Argument:
        if b in starts:
            return Argument(Place.PRIVATE, 0, starts[b], Access.WRITE)
        if b.written:
            return Argument(Place.OUTPUT, written.index(b), access=Access.WRITE)
        return Argument(Place.INPUT, read.index(b))

    arguments = tuple(map(argument, kernel.buffers))
    ports = [
        tuple(Port(b.name, TensorType(b.dtype, (b.size,))) for b in group)
        for group in (read, written)
    ]
    step = Step(kernel.name, arguments, (kernel.name,))
    own = sum(64 * b.size for b in private)
    return Program(kernel.name, (kernel,), (step,), ports[0], ports[1], 0, 0, private_bytes=own)


def print_kernel(kernel: Kernel, target: Target) -> str:
    return llvm_module.print_module(program_of(kernel), target)


def run_machine_code(
    kernel: Kernel, arrays: Mapping[str, Array], target: Target | None = None, threads: int = 1
) -> dict[str, Array]:
    """What the kernel writes, by buffer name."""
    target = target or llvm.find_target()
    program = program_of(kernel)
    object_code = llvm.emit_object(llvm_module.print_module(program, target), target)
    code = Code.of(program, object_code)
    inputs = [np.ascontiguousarray(arrays[port.name]) for port in program.inputs]
    outputs = LoadedCode(code, np.empty(0, np.uint8)).run(inputs, threads)
    return {port.name: array for port, array in zip(program.outputs, outputs, strict=True)}


def run_interpreter(kernel: Kernel, arrays: Mapping[str, Array]) -> dict[str, Array]:
    written = {b.name: np.zeros(b.size, b.dtype.numpy) for b in kernel.buffers if b.written}
    interpret(kernel, {**arrays, **written})
    return written


def row_sums() -> Kernel:
    """y[row] = max(sum of x[row, :], 0) for 4 rows of 3 vectors: small enough to read in full."""
    lanes = 4
    b = Builder("row_sums", DType.F32, lanes)
    x = b.buffer("x", DType.F32, 48)
    y = b.buffer("y", DType.F32, 4, written=True)
    acc = b.registers(1)
    with b.parallel(("row",), (4,)) as (row,):
        b.zero(acc)
        with b.serial("block", 3) as block:
            b.set(acc, 0, Binary("add", Get(acc, 0), b.load(x, row * 12 + block * lanes)))
        total = b.let(ReduceLanes("sum", Get(acc, 0)), "total")
        b.store(y, row, Binary("max", total, Const(0.0, total.type)))
    return b.kernel()
