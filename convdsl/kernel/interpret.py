"""Executes loop IR slowly, one statement after the other: the oracle of the printers.

Accesses out of bounds and loop counters outside their stated range are errors here, where
machine code would go on; in grids also reads of shared memory that nothing was stored in, threads
that wait where others do not come, and two threads, or two blocks, of which one touches what the
other writes with no barrier between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.kernel.behind import Behind, Registers
from convdsl.kernel.grid import (
    Arrival,
    Ledger,
    Order,
    Party,
    Stuck,
    Thread,
    ascending,
    names_of,
    run_threads,
)
from convdsl.kernel.meaning import Meanings
from convdsl.kernel.mma import SUMS, as_tf32
from convdsl.kernel.nodes import (
    Barrier,
    Blocks,
    Buffer,
    CommitCopies,
    CommitProducts,
    CopyAsync,
    Exchange,
    For,
    Get,
    GroupMma,
    If,
    Kernel,
    Let,
    LetIndex,
    Mma,
    OpenProducts,
    Parallel,
    Prefetch,
    Set,
    ShowProducts,
    Space,
    Statement,
    Store,
    Threads,
    Value,
    WaitCopies,
    WaitProducts,
    is_met,
)
from convdsl.kernel.program import Argument, Place, Program
from convdsl.kernel.verify import KernelError
from convdsl.kernel.verify_program import verify_program
from convdsl.tensor import Dim, DType, evaluate
from convdsl.tensor.conversion import convert
from convdsl.tensor.records import record

Array = npt.NDArray[Any]


def interpret(kernel: Kernel, buffers: Mapping[str, Array], order: Order = ascending) -> None:
    """Run the kernel on flat arrays by buffer name; written ones change in place. Blocks, and
    threads from one meeting to the next, run in the given order. Raises KernelError."""
    for buffer in kernel.buffers:
        array = buffers[buffer.name]
        if array.shape != (buffer.size,) or array.dtype != np.dtype(buffer.dtype.numpy):
            raise KernelError(f"{buffer.name}: {array.dtype}{array.shape} does not fit {buffer}")
    with np.errstate(all="ignore"):
        _Machine(kernel, buffers, _Grid(kernel, order)).run(kernel.body)


def interpret_program(
    program: Program,
    weights: npt.NDArray[np.uint8],
    inputs: Sequence[Array],
    states: Sequence[Array] = (),
    order: Order = ascending,
) -> list[Array]:
    """All steps of a program, on an arena that starts out as NaN; states, in the program's order,
    are changed in place. Blocks and threads run in the given order. Slow; for small shapes."""
    verify_program(program)
    kernels = {kernel.name: kernel for kernel in program.kernels}
    arena = np.full(program.arena_bytes, 0xFF, np.uint8)
    private = np.full(program.private_bytes, 0xFF, np.uint8)
    memories = {Place.WEIGHTS: weights, Place.ARENA: arena, Place.PRIVATE: private}
    outputs = [np.empty(port.type.sizes, port.type.dtype.numpy) for port in program.outputs]
    for array in outputs:
        array.reshape(-1).view(np.uint8)[:] = 0xFF

    def part(array: Array, number: int) -> Array:
        return np.ascontiguousarray(array).reshape(program.rounds, -1)[number]

    def buffer(argument: Argument, wanted: Buffer, number: int) -> Array:
        match argument.place:
            case Place.INPUT:
                return part(inputs[argument.slot], number)
            case Place.OUTPUT:
                return part(outputs[argument.slot], number)
            case Place.STATE:
                return states[argument.slot].reshape(-1)
            case _:
                memory = memories[argument.place]
                end = argument.offset + wanted.size * wanted.dtype.bytes
                return memory[argument.offset : end].view(wanted.dtype.numpy)

    for number, step in product(range(program.rounds), program.steps):
        kernel = kernels[step.kernel]
        pairs = zip(kernel.buffers, step.arguments, strict=True)
        given = {wanted.name: buffer(where, wanted, number) for wanted, where in pairs}
        interpret(kernel, given, order)
    return outputs


@record
class _Open:
    """A copy that was begun: where it goes, where its elements lie, and what they were then."""

    copy: CopyAsync
    start: int
    source: Array
    found: bytes


class _Grid:
    """What the blocks of a kernel have in common. Nothing orders them, of whichever grid."""

    def __init__(self, kernel: Kernel, order: Order) -> None:
        self.order = order
        self.meanings = Meanings()
        self.ledger = Ledger(kernel.buffers)
        self.names = [
            name
            for grid in kernel.body
            if isinstance(grid, Blocks)
            for name in names_of("block", grid.vars, grid.extents)
        ]
        self.ledger.begin(len(self.names))
        self.entered = 0  # blocks of the grids before

    def block(self, number: int) -> Party:
        return Party(self.ledger, self.entered + number, self.names, "")


class _Machine:
    """One thread: its counters, values and registers, on memory that others may share."""

    def __init__(
        self,
        kernel: Kernel,
        buffers: Mapping[str, Array],
        grid: _Grid,
        indices: Mapping[str, int] | None = None,
        parties: Sequence[Party] = (),
    ) -> None:
        self.kernel = kernel
        self.buffers = buffers
        self.grid = grid
        self.parties = parties
        self.indices: dict[str, int] = dict(indices or {})
        self.lets: dict[str, Array] = {}
        self.registers: dict[tuple[str, int], Array] = Registers()
        self.groups: list[list[_Open]] = [[]]  # of copies; the last one is not committed yet
        self.behind = Behind(self)

    def fail(self, message: str) -> None:
        raise KernelError(f"{self.kernel.name}: {message}")

    def index(self, dim: Dim) -> int:
        return int(evaluate(dim, self.indices))

    def run(self, body: tuple[Statement, ...]) -> None:
        for statement in body:
            match statement:
                case Let():
                    self.lets[statement.var.name] = self.value(statement.value)
                case LetIndex():
                    (at,) = self.value(statement.value).tolist()
                    var = statement.var
                    self.indices[var.name] = min(max(at, var.lowest), var.highest)
                case Set():
                    key = (statement.registers.name, statement.slot)
                    self.behind.set(key)
                    self.registers[key] = self.value(statement.value)
                case Store():
                    self.store(statement)
                case Prefetch():
                    self.index(statement.index)
                case For():
                    self.loop(statement)
                case Parallel():
                    for number in range(math.prod(statement.extents)):
                        self.bind(statement, number)
                        self.forget()
                        self.run(statement.body)
                case If():
                    self.run(self.taken(statement))
                case Blocks():
                    self.blocks(statement)
                case CopyAsync() if self.parties:
                    self.begin_copy(statement)
                case CommitCopies() if self.parties:
                    self.groups.append([])
                case WaitCopies() if self.parties:
                    while len(self.groups) - 1 > statement.left:
                        for begun in self.groups.pop(0):
                            self.finish_copy(begun)
                case OpenProducts() if self.parties:
                    self.behind.closed.clear()
                case CommitProducts() if self.parties:
                    self.behind.groups.append([])
                case WaitProducts() if self.parties:
                    self.behind.wait(statement.left)
                case ShowProducts() if self.parties:
                    self.behind.show()
                case (
                    Threads() | Barrier() | Exchange() | Mma() | GroupMma()
                    | CopyAsync() | CommitCopies() | WaitCopies()
                    | OpenProducts() | CommitProducts() | WaitProducts() | ShowProducts()
                ):  # fmt: skip
                    self.fail(f"{type(statement).__name__.lower()} outside of blocks")

    def forget(self) -> None:
        """An iteration begins: private memory holds nothing."""
        for buffer in self.kernel.buffers:
            if buffer.space is Space.PRIVATE:
                self.buffers[buffer.name].view(np.uint8)[:] = 0xFF

    def bind(self, loop: Parallel | Blocks | Threads, number: int) -> None:
        position = np.unravel_index(number, loop.extents) if loop.extents else ()
        self.indices |= {v.name: int(i) for v, i in zip(loop.vars, position, strict=True)}

    def taken(self, branch: If) -> tuple[Statement, ...]:
        return branch.then if self.value(branch.test)[0] else branch.otherwise

    def loop(self, loop: For) -> None:
        for i in self.counting(loop):
            self.indices[loop.var.name] = i
            self.run(loop.body)

    def counting(self, loop: For) -> Iterator[int]:
        for i in range(self.index(loop.start), self.index(loop.stop)):
            if not loop.var.lowest <= i <= loop.var.highest:
                self.fail(f"{loop.var.name} = {i} outside its stated range")
            yield i

    def store(self, store: Store) -> None:
        value = self.value(store.value)
        count = len(value) if store.valid is None else store.valid
        self.at(store.buffer, self.index(store.index), count, write=True)[:] = value[:count]

    def begin_copy(self, copy: CopyAsync) -> None:
        start, valid = self.index(copy.index), self.index(copy.valid)
        self.at(copy.target, start, copy.elements, write=True)
        self.parties[-1].ledger.hide(copy.target.name, slice(start, start + copy.elements))
        if not all(self.value(guard)[0] for guard in copy.guards):
            valid = 0
        source = np.zeros(0, copy.source.dtype.numpy)
        if valid:
            source = self.at(copy.source, self.index(copy.source_index), valid)
        self.groups[-1].append(_Open(copy, start, source, source.tobytes()))

    def finish_copy(self, begun: _Open) -> None:
        target, start, count = begun.copy.target, begun.start, begun.copy.elements
        if not self.parties[-1].ledger.hidden(target.name, slice(start, start + count)):
            self.fail(f"{target.name}[{start}:{start + count}] is written while it is copied to")
        if begun.source.tobytes() != begun.found:
            self.fail(f"{begun.copy.source.name} is written while it is copied from")
        out = self.at(target, start, count, write=True)
        out[:] = 0
        out[: len(begun.source)] = begun.source

    def at(self, buffer: Buffer, start: int, count: int, *, write: bool = False) -> Array:
        name = buffer.name
        array, part = self.buffers[name], slice(start, start + count)
        if start < 0 or start + count > len(array):
            self.fail(f"{name}[{start}:{start + count}] is out of bounds ({len(array)})")
        for party in self.parties:
            objection = party.objection(name, part, write=write)
            if objection is not None:
                self.fail(objection)
        if write and buffer.space is Space.SHARED:
            self.behind.hidden.append((name, part))
        return array[part]

    # Grids

    def blocks(self, grid: Blocks) -> None:
        (threads,) = grid.body
        assert isinstance(threads, Threads)
        ledger = Ledger((*self.kernel.buffers, *grid.shared))
        for number in self.grid.order(math.prod(grid.extents)):
            self.bind(grid, number)
            shared: dict[str, Array] = {}
            for buffer in grid.shared:
                ledger.forget(buffer.name)
                poison = np.full(buffer.size * buffer.dtype.bytes, 0xFF, np.uint8)
                shared[buffer.name] = poison.view(buffer.dtype.numpy)
            self.block(threads, {**self.buffers, **shared}, ledger, self.grid.block(number))
        self.grid.entered += math.prod(grid.extents)

    def block(
        self, threads: Threads, buffers: Mapping[str, Array], ledger: Ledger, block: Party
    ) -> None:
        count = math.prod(threads.extents)
        names = names_of("thread", threads.vars, threads.extents)
        ledger.begin(count)
        running: list[Thread] = []
        for number in range(count):
            own = Party(ledger, number, names, ", with no barrier between")
            thread = _Machine(self.kernel, buffers, self.grid, self.indices, (block, own))
            thread.bind(threads, number)
            running.append(thread.whole(threads.body))
        try:
            run_threads(running, self.grid.order, lambda: ledger.begin(count))
        except Stuck as stuck:
            waiting, other = names[stuck.waiting], names[stuck.elsewhere]
            self.fail(f"{waiting} waits where {other} does not come")

    def whole(self, body: tuple[Statement, ...]) -> Thread:
        """All that a thread does."""
        yield from self.advance(body)
        self.ended()

    def advance(self, body: tuple[Statement, ...]) -> Thread:
        """Run, and stop wherever threads meet."""
        for statement in body:
            match statement:
                case Barrier():
                    yield Arrival(statement)
                case Exchange():
                    met = yield Arrival(statement, self.value(statement.value))
                    assert met is not None
                    self.lets[statement.var.name] = met
                case Mma():
                    met = yield Arrival(statement, self.fragments(statement))
                    assert met is not None
                    for slot, total in enumerate(met, statement.slot):
                        self.registers[statement.sums.name, slot] = np.array([total])
                case GroupMma():
                    met = yield Arrival(statement, self.behind.begin(statement))
                    assert met is not None
                    self.behind.take(met)
                case For() if is_met(statement):
                    for i in self.counting(statement):
                        self.indices[statement.var.name] = i
                        yield from self.advance(statement.body)
                case If() if is_met(statement):
                    yield from self.advance(self.taken(statement))
                case _:
                    self.run((statement,))

    def ended(self) -> None:
        """A thread is done: nobody would see what it has not waited for."""
        left = [begun.copy.target.name for group in self.groups for begun in group]
        if left:
            own = self.parties[-1]
            self.fail(f"{own.names[own.number]} ends before its copies to {left[0]}")
        if self.behind.totals:
            own = self.parties[-1]
            self.fail(f"{own.names[own.number]} ends before its products")

    def fragments(self, mma: Mma) -> Array:
        """What a thread brings to a product, in f64."""
        sums = [Get(mma.sums, mma.slot + i) for i in range(SUMS)]
        parts = [convert(self.value(v), v.type.dtype, DType.F64) for v in (*mma.a, *mma.b, *sums)]
        if mma.form.dtype is DType.F32:
            factors = len(parts) - SUMS
            parts[:factors] = [as_tf32(self.value(v)) for v in (*mma.a, *mma.b)]
        return np.concatenate(parts)

    # Values

    def load(self, buffer: Buffer, start: int, count: int) -> Array:
        """What a value reads."""
        found = self.at(buffer, start, count).copy()
        if buffer.space is Space.SHARED:
            own = self.parties[-1]
            hole = own.ledger.unwritten(buffer.name, slice(start, start + count))
            if hole is not None:
                reader = own.names[own.number]
                self.fail(f"{reader} reads {buffer.name}[{hole}], where nothing is stored yet")
        return found

    def value(self, value: Value) -> Array:
        return self.grid.meanings(value)(self)
