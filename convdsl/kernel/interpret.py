"""Executes loop IR slowly, one statement after the other: the oracle of the printers.

Reads of elements that nothing has written, accesses out of bounds and loop counters outside
their stated range are errors here, where machine code would go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.kernel.nodes import (
    Binary,
    Buffer,
    Cast,
    Compare,
    Const,
    Fma,
    For,
    Gather,
    Get,
    If,
    IndexAsValue,
    IndexTest,
    Kernel,
    Let,
    Load,
    Parallel,
    Prefetch,
    ReduceLanes,
    Select,
    Set,
    Splat,
    Statement,
    Store,
    Unary,
    Value,
    ValueType,
    Var,
)
from convdsl.kernel.program import Argument, Place, Program
from convdsl.kernel.scalar import FUNCTIONS, REDUCTIONS
from convdsl.kernel.verify import KernelError
from convdsl.tensor import Dim, evaluate

Array = npt.NDArray[Any]


def interpret(kernel: Kernel, buffers: Mapping[str, Array]) -> None:
    """Run the kernel on flat arrays by buffer name; written ones change in place."""
    for buffer in kernel.buffers:
        array = buffers[buffer.name]
        if array.shape != (buffer.size,) or array.dtype != np.dtype(buffer.dtype.numpy):
            raise KernelError(f"{buffer.name}: {array.dtype}{array.shape} does not fit {buffer}")
    with np.errstate(all="ignore"):
        _Machine(kernel, buffers).run(kernel.body)


def interpret_program(
    program: Program, weights: npt.NDArray[np.uint8], inputs: Sequence[Array]
) -> list[Array]:
    """All steps of a program, on an arena that starts out as NaN. Slow; for small shapes."""
    kernels = {kernel.name: kernel for kernel in program.kernels}
    arena = np.full(program.arena_bytes, 0xFF, np.uint8)
    outputs = [np.empty(port.type.sizes, port.type.dtype.numpy) for port in program.outputs]
    for array in outputs:
        array.reshape(-1).view(np.uint8)[:] = 0xFF

    def buffer(argument: Argument, wanted: Buffer) -> Array:
        match argument.place:
            case Place.INPUT:
                return np.ascontiguousarray(inputs[argument.slot]).reshape(-1)
            case Place.OUTPUT:
                return outputs[argument.slot].reshape(-1)
            case _:
                memory = weights if argument.place is Place.WEIGHTS else arena
                end = argument.offset + wanted.size * wanted.dtype.bytes
                return memory[argument.offset : end].view(wanted.dtype.numpy)

    for step in program.steps:
        kernel = kernels[step.kernel]
        pairs = zip(kernel.buffers, step.arguments, strict=True)
        interpret(kernel, {wanted.name: buffer(given, wanted) for wanted, given in pairs})
    return outputs


class _Machine:
    def __init__(self, kernel: Kernel, buffers: Mapping[str, Array]) -> None:
        self.kernel = kernel
        self.buffers = buffers
        self.indices: dict[str, int] = {}
        self.lets: dict[str, Array] = {}
        self.registers: dict[tuple[str, int], Array] = {}

    def fail(self, message: str) -> None:
        raise KernelError(f"{self.kernel.name}: {message}")

    def index(self, dim: Dim) -> int:
        return int(evaluate(dim, self.indices))

    def run(self, body: tuple[Statement, ...]) -> None:
        for statement in body:
            match statement:
                case Let():
                    self.lets[statement.var.name] = self.value(statement.value)
                case Set():
                    key = (statement.registers.name, statement.slot)
                    self.registers[key] = self.value(statement.value)
                case Store():
                    self.store(statement)
                case Prefetch():
                    self.index(statement.index)
                case For():
                    self.loop(statement)
                case Parallel():
                    for position in np.ndindex(*statement.extents):
                        for var, i in zip(statement.vars, position, strict=True):
                            self.indices[var.name] = i
                        self.run(statement.body)
                case If():
                    holds = bool(self.value(statement.test)[0])
                    self.run(statement.then if holds else statement.otherwise)

    def loop(self, loop: For) -> None:
        for i in range(self.index(loop.start), self.index(loop.stop)):
            if not loop.var.lowest <= i <= loop.var.highest:
                self.fail(f"{loop.var.name} = {i} outside its stated range")
            self.indices[loop.var.name] = i
            self.run(loop.body)

    def store(self, store: Store) -> None:
        value = self.value(store.value)
        count = len(value) if store.valid is None else store.valid
        self.at(store.buffer.name, store.index, count)[:] = value[:count]

    def at(self, name: str, index: Dim, count: int) -> Array:
        array, start = self.buffers[name], self.index(index)
        if start < 0 or start + count > len(array):
            self.fail(f"{name}[{start}:{start + count}] is out of bounds ({len(array)})")
        return array[start : start + count]

    def value(self, value: Value) -> Array:
        """The lanes of a value; a scalar is an array of one."""
        numpy_type = np.dtype(value.type.dtype.numpy)
        match value:
            case Const():
                return np.full(value.type.lanes, value.value, numpy_type)
            case Var():
                return self.lets[value.name]
            case Load():
                if all(self.value(guard)[0] for guard in value.guards):
                    return self.at(value.buffer.name, value.index, value.type.lanes).copy()
                return np.full(value.type.lanes, value.otherwise, numpy_type)
            case Get():
                return self.registers[(value.registers.name, value.slot)]
            case IndexTest():
                test = FUNCTIONS[value.op].meaning
                return np.array([test(self.index(value.a), self.index(value.b))])
            case IndexAsValue():
                lanes = np.arange(value.type.lanes) * value.step
                return (self.index(value.index) + lanes).astype(numpy_type)
            case Gather():
                return np.concatenate([self.value(lane) for lane in value.lanes])
            case _:
                return self.computed(value, value.type)

    def computed(self, value: Value, type: ValueType) -> Array:
        numpy_type = np.dtype(type.dtype.numpy)
        match value:
            case Unary():
                return FUNCTIONS[value.op].meaning(self.value(value.x))
            case Binary() | Compare():
                return FUNCTIONS[value.op].meaning(self.value(value.a), self.value(value.b))
            case Fma():
                a, b, c = (self.value(v).astype(np.longdouble) for v in (value.a, value.b, value.c))
                return (a * b + c).astype(numpy_type)
            case Select():
                parts = (self.value(value.condition), self.value(value.yes), self.value(value.no))
                return np.where(*parts)
            case Cast():
                return self.value(value.x).astype(numpy_type)
            case Splat():
                return np.repeat(self.value(value.x), type.lanes)
            case ReduceLanes():
                return np.array([REDUCTIONS[value.op].whole(self.value(value.x))], numpy_type)
            case _:
                raise KernelError(f"{self.kernel.name}: no rule for {type} {value}")
