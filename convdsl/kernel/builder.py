"""Builds loop IR: a schedule is Python that calls this.

`with b.serial(...)` makes a loop of the machine code; a Python loop is unrolled.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

from convdsl.kernel.group_mma import GroupForm
from convdsl.kernel.mma import SUMS, MmaForm
from convdsl.kernel.nodes import (
    Barrier,
    Blocks,
    Buffer,
    CommitCopies,
    CommitProducts,
    Const,
    CopyAsync,
    Exchange,
    Fma,
    For,
    Get,
    GroupMma,
    If,
    IndexTest,
    Kernel,
    Let,
    LetIndex,
    Load,
    LoopVar,
    Mma,
    OpenProducts,
    Parallel,
    Prefetch,
    Registers,
    Set,
    ShowProducts,
    Space,
    Splat,
    Statement,
    Store,
    Threads,
    Value,
    ValueType,
    Var,
    WaitCopies,
    WaitProducts,
)
from convdsl.tensor import Dim, DType, bounds


class Builder:
    """Collects the statements of one kernel. `lanes` is the vector width in elements."""

    def __init__(self, name: str, dtype: DType, lanes: int) -> None:
        self.name = name
        self.dtype = dtype
        self.lanes = lanes
        self._buffers: list[Buffer] = []
        self._registers: list[Registers] = []
        self._bodies: list[list[Statement]] = [[]]
        self._shared: list[Buffer] | None = None  # of the blocks under construction
        self._counts: dict[str, int] = {}

    # Parameters

    def buffer(self, name: str, dtype: DType, size: int, written: bool = False) -> Buffer:
        """The next parameter: a flat array of `size` elements. Names are unique in a kernel."""
        made = Buffer(name, dtype, size, written)
        self._counts[name] = 1  # what is loaded from it is called name_1, name_2 ...
        self._buffers.append(made)
        return made

    def private(self, name: str, size: int, dtype: DType | None = None) -> Buffer:
        """The next parameter, memory that each iteration has for itself: `size` elements."""
        made = Buffer(name, dtype or self.dtype, size, True, Space.PRIVATE)
        self._counts[name] = 1
        self._buffers.append(made)
        return made

    def registers(self, count: int, type: ValueType | None = None, name: str = "acc") -> Registers:
        """An array of registers, by default vectors of the kernel's type. They hold nothing yet."""
        made = Registers(self._fresh(name), count, type or ValueType(self.dtype, self.lanes))
        self._registers.append(made)
        return made

    @property
    def declared(self) -> tuple[Buffer, ...]:
        """The parameters so far, in order."""
        return tuple(self._buffers)

    def kernel(self) -> Kernel:
        """What has been built, once all loops are closed."""
        (body,) = self._bodies
        return Kernel(self.name, tuple(self._buffers), tuple(self._registers), tuple(body))

    def shared(
        self, name: str, size: int, dtype: DType | None = None, alignment: int = 0
    ) -> Buffer:
        """Memory of each block: `size` elements, the first at a multiple of `alignment` bytes."""
        if self._shared is None:
            raise ValueError(f"shared memory {name} outside of blocks")
        made = Buffer(self._fresh(name), dtype or self.dtype, size, True, Space.SHARED, alignment)
        self._shared.append(made)
        return made

    # Loops

    @contextmanager
    def parallel(self, names: Sequence[str], extents: Sequence[int]) -> Generator[list[Dim]]:
        """Independent iterations over all combinations, shared out among the threads."""
        loop_vars = self._counters(names, extents)
        self._bodies.append([])
        yield [var.i for var in loop_vars]
        body = tuple(self._bodies.pop())
        self._emit(Parallel(loop_vars, tuple(extents), body))

    @contextmanager
    def blocks(self, names: Sequence[str], extents: Sequence[int]) -> Generator[list[Dim]]:
        """A grid of independent blocks, over all combinations; inside: `shared`, `threads`."""
        loop_vars = self._counters(names, extents)
        self._shared = []
        self._bodies.append([])
        yield [var.i for var in loop_vars]
        body, shared = tuple(self._bodies.pop()), tuple(self._shared)
        self._shared = None
        self._emit(Blocks(loop_vars, tuple(extents), shared, body))

    @contextmanager
    def threads(self, names: Sequence[str], extents: Sequence[int]) -> Generator[list[Dim]]:
        """The threads of a block, over all combinations, numbered with the last name fastest."""
        loop_vars = self._counters(names, extents)
        self._bodies.append([])
        yield [var.i for var in loop_vars]
        body = tuple(self._bodies.pop())
        self._emit(Threads(loop_vars, tuple(extents), body))

    @contextmanager
    def serial(self, name: str, stop: Dim, start: Dim = 0) -> Generator[Dim]:
        """start <= i < stop. A loop known to run once, or never, costs nothing."""
        if isinstance(start, int) and isinstance(stop, int) and stop - start == 1:
            yield start
            return
        lowest, _ = bounds(start)
        _, past = bounds(stop)
        if lowest is None or past is None:
            raise ValueError(f"loop {name}: unbounded range {start} .. {stop}")
        var = LoopVar(self._fresh(name), lowest, max(past - 1, lowest))
        self._bodies.append([])
        yield var.i
        body = tuple(self._bodies.pop())
        if past > lowest:
            self._emit(For(var, start, stop, body))

    @contextmanager
    def when(self, test: IndexTest) -> Generator[None]:
        """Statements that run only where the test holds."""
        self._bodies.append([])
        yield
        self._emit(If(test, tuple(self._bodies.pop())))

    # Statements

    @contextmanager
    def aside(self) -> Generator[list[Statement]]:
        """Statements that are collected, for `add` to put where they belong."""
        self._bodies.append([])
        yield self._bodies[-1]
        self._bodies.pop()

    def add(self, statements: Iterable[Statement]) -> None:
        """Statements that were collected, or made of such."""
        self._bodies[-1].extend(statements)

    def let(self, value: Value, name: str = "v") -> Var:
        """Compute once, here."""
        var = Var(self._fresh(name), value.type)
        self._emit(Let(var, value))
        return var

    def index(self, value: Value, extent: int, name: str = "at", *, beyond: bool = False) -> Dim:
        """An i64 that is data as an index within 0 .. extent - 1: what lies beyond is the end, or
        one `beyond` it."""
        var = LoopVar(self._fresh(name), -beyond, extent - 1 + beyond)
        self._emit(LetIndex(var, value))
        return var.i

    def load(self, buffer: Buffer, index: Dim) -> Var:
        """One vector, in a register."""
        return self.let(self.vector(buffer, index))

    def vector(self, buffer: Buffer, index: Dim) -> Load:
        """One vector, wherever it is used."""
        return Load(buffer, index, ValueType(buffer.dtype, self.lanes))

    def splat(self, buffer: Buffer, index: Dim) -> Var:
        """One element in every lane."""
        scalar = Load(buffer, index, ValueType(buffer.dtype))
        return self.let(Splat(scalar, ValueType(buffer.dtype, self.lanes)))

    def set(self, registers: Registers, slot: int, value: Value) -> None:
        """registers[slot] = value"""
        self._emit(Set(registers, slot, value))

    def zero(self, registers: Registers) -> None:
        """Set all registers to 0."""
        for slot in range(registers.count):
            self.set(registers, slot, Const(0.0, registers.type))

    def accumulate(self, registers: Registers, slot: int, a: Value, b: Value) -> None:
        """registers[slot] += a * b"""
        self.set(registers, slot, Fma(a, b, Get(registers, slot)))

    def store(self, buffer: Buffer, index: Dim, value: Value, valid: int | None = None) -> None:
        """Write the lanes of a value from `index` on, or only the first `valid` ones."""
        self._emit(Store(buffer, index, value, None if valid == value.type.lanes else valid))

    def barrier(self) -> None:
        """All threads of the block come here before any goes on."""
        self._emit(Barrier())

    def exchange(self, value: Value, mask: int, group: int, name: str = "v") -> Var:
        """The value of the thread numbered `own ^ mask` within its group."""
        var = Var(self._fresh(name), value.type)
        self._emit(Exchange(var, value, mask, group))
        return var

    def mma(
        self, form: MmaForm, sums: Registers, tile: int, a: Sequence[Value], b: Sequence[Value]
    ) -> None:
        """Add the warp's product to the sums of one of the tiles that registers hold."""
        self._emit(Mma(form, sums, tile * SUMS, tuple(a), tuple(b)))

    def group_mma(
        self,
        form: GroupForm,
        sums: Registers,
        tile: int,
        a: tuple[Buffer, Dim],
        b: tuple[Buffer, Dim],
    ) -> None:
        """Begin to add a warp group's product to the sums of one of the tiles that registers hold;
        its factors begin at places, a buffer and an index each."""
        self._emit(GroupMma(form, sums, tile * form.sums, *a, *b))

    def open_products(self) -> None:
        """Sums that were set may be added to."""
        self._emit(OpenProducts())

    def commit_products(self) -> None:
        """What was begun is a group."""
        self._emit(CommitProducts())

    def wait_products(self, left: int) -> None:
        """All groups but the last `left` are complete."""
        self._emit(WaitProducts(left))

    def show_products(self) -> None:
        """What was stored, or copied and waited for, may be multiplied after the next barrier."""
        self._emit(ShowProducts())

    def copy(
        self,
        target: tuple[Buffer, Dim],
        source: tuple[Buffer, Dim],
        elements: int,
        guards: Sequence[IndexTest] = (),
        valid: Dim | None = None,
    ) -> None:
        """Begin a copy between places, a buffer and an index each."""
        count = elements if valid is None else valid
        self._emit(CopyAsync(*target, *source, elements, count, tuple(guards)))

    def commit_copies(self) -> None:
        """What was begun is a group."""
        self._emit(CommitCopies())

    def wait_copies(self, left: int) -> None:
        """All groups but the last `left` are complete."""
        self._emit(WaitCopies(left))

    def prefetch(self, buffer: Buffer, index: Dim, level: int = 2) -> None:
        """Bring the line of an element into the second-level cache, or into the first."""
        self._emit(Prefetch(buffer, index, level))

    def _emit(self, statement: Statement) -> None:
        self._bodies[-1].append(statement)

    def _counters(self, names: Sequence[str], extents: Sequence[int]) -> tuple[LoopVar, ...]:
        return tuple(
            LoopVar(self._fresh(name), 0, extent - 1)
            for name, extent in zip(names, extents, strict=True)
        )

    def _fresh(self, name: str) -> str:
        count = self._counts.get(name, 0)
        self._counts[name] = count + 1
        return f"{name}_{count}" if count else name
