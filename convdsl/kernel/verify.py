"""Checks a kernel before anything is printed from it: malformed LLVM IR can end the process."""

from __future__ import annotations

import math
from dataclasses import replace

from convdsl.kernel.group_mma import ATOM, GROUP, GROUP_FORMS, GROUP_ROWS, LINE, GroupForm
from convdsl.kernel.mma import FORMS, SUMS, WARP
from convdsl.kernel.nodes import (
    Barrier,
    Binary,
    Blocks,
    Buffer,
    CommitCopies,
    Compare,
    CopyAsync,
    Exchange,
    Fma,
    For,
    Gather,
    Get,
    GroupMma,
    If,
    IndexAsValue,
    IndexTest,
    Kernel,
    Lane,
    Let,
    LetIndex,
    Load,
    LoopVar,
    Mma,
    OpenProducts,
    Parallel,
    Prefetch,
    ReduceLanes,
    Registers,
    Select,
    Set,
    ShowProducts,
    Shuffle,
    Space,
    Splat,
    Statement,
    Store,
    Threads,
    Unary,
    Value,
    ValueType,
    Var,
    WaitCopies,
    WaitProducts,
    statement_bodies,
    statement_values,
    value_children,
)
from convdsl.kernel.scalar import FLOATS, FUNCTIONS, REDUCTIONS
from convdsl.tensor import Dim, DType, bounds, symbols_of
from convdsl.tensor.dim import terms_of
from convdsl.tensor.records import record


class KernelError(AssertionError):
    """A malformed kernel: a bug in a schedule, never a user's mistake."""


def verify_kernel(kernel: Kernel) -> None:
    """Types agree, names are in scope, registers, shared and private memory are written before
    read, no access is provably out of bounds; `Parallel` and `Blocks` stand only at the top,
    threads only in blocks, private memory only in iterations, and threads meet only where all of
    them come. Raises KernelError."""
    _Verifier(kernel).body(kernel.body, _Scope())


_AXES = 3
"""Axes of a grid, and of a block."""

_COPIED = (4, 8, 16)
"""Bytes that one copy may have."""


@record
class _Scope:
    """What holds where a statement stands. `varying` counters differ among the threads of a
    block; where they decide whether a statement runs, or how often, it is `divergent`."""

    counters: frozenset[str] = frozenset()
    varying: frozenset[str] = frozenset()
    divergent: bool = False
    top: bool = True
    blocks: Blocks | None = None  # those that it stands in
    threads: Threads | None = None

    def counting(self, *loop_vars: LoopVar) -> _Scope:
        return replace(self, counters=self.counters | {v.name for v in loop_vars}, top=False)

    def with_data(self, var: LoopVar) -> _Scope:
        """After an index has been let; threads may each have another."""
        own = {var.name} if self.threads is not None else set[str]()
        return replace(self, counters=self.counters | {var.name}, varying=self.varying | own)

    def varies(self, *indices: Dim) -> bool:
        return any(s.name in self.varying for index in indices for s in symbols_of(index))

    def inside(self, statement: Statement) -> _Scope:
        """The scope of a statement's body."""
        match statement:
            case Parallel():
                return self.counting(*statement.vars)
            case Blocks():
                return replace(self.counting(*statement.vars), blocks=statement)
            case Threads():
                names = frozenset(v.name for v in statement.vars)
                return replace(self.counting(*statement.vars), varying=names, threads=statement)
            case For():
                inner = self.counting(statement.var)
                if self.varies(statement.start, statement.stop):
                    names = self.varying | {statement.var.name}
                    return replace(inner, varying=names, divergent=True)
                return inner
            case If():
                divergent = self.divergent or self.varies(statement.test.a, statement.test.b)
                return replace(self, divergent=divergent, top=False)
            case _:
                return self


class _Verifier:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.written: set[tuple[str, int]] = set()
        self.defined: set[str] = set()
        self.visible: set[str] = set()  # those defined in the bodies around
        self.filled: set[str] = set()  # shared buffers that something was stored in
        self.copied: set[str] = set()  # those of copies that have not been waited for
        self.committed: set[str] = set()  # those of complete groups among these
        self.shown: set[str] = set()  # shared buffers that products may read
        self.closed: set[tuple[str, int]] = set()  # sums set since products were opened
        self.flying: set[tuple[str, int]] = set()  # those of products not waited for

    def fail(self, message: str) -> None:
        raise KernelError(f"{self.kernel.name}: {message}")

    def body(self, body: tuple[Statement, ...], scope: _Scope) -> None:
        outside = set(self.visible)
        for statement in body:
            for value in statement_values(statement):
                self.value(value, scope)
            self.statement(statement, scope)
            if isinstance(statement, LetIndex):
                scope = scope.with_data(statement.var)
            for nested in statement_bodies(statement):
                self.body(nested, scope.inside(statement))
        self.visible = outside

    def statement(self, statement: Statement, scope: _Scope) -> None:
        match statement:
            case Let() | Exchange():
                if statement.var.name in self.defined:
                    self.fail(f"{statement.var.name} is defined twice")
                if statement.var.type != statement.value.type:
                    self.fail(f"{statement.var.name}: {statement.var.type} != its value's type")
                self.defined.add(statement.var.name)
                self.visible.add(statement.var.name)
                if isinstance(statement, Exchange):
                    self.exchange(statement, scope)
            case LetIndex():
                if statement.value.type != ValueType(DType.I64):
                    self.fail(f"{statement.var.name}: an index of type {statement.value.type}")
            case Set():
                self.register(statement.registers, statement.slot)
                if statement.registers.type != statement.value.type:
                    self.fail(f"{statement.registers.name}: register of another type")
                self.written.add((statement.registers.name, statement.slot))
                self.closed.add((statement.registers.name, statement.slot))
                self.landed(statement.registers, statement.slot)
            case Store():
                if statement.buffer.dtype is not statement.value.type.dtype:
                    self.fail(f"store of {statement.value.type} to {statement.buffer}")
                if not statement.buffer.written:
                    self.fail(f"store to the input {statement.buffer.name}")
                lanes = statement.value.type.lanes
                count = lanes if statement.valid is None else statement.valid
                self.access(statement.buffer, statement.index, count, scope)
                self.filled.add(statement.buffer.name)
            case Prefetch():
                if statement.buffer not in self.kernel.buffers:
                    self.fail(f"{statement.buffer.name} is not a parameter")
                self.index(statement.index, scope)
            case For():
                self.index(statement.start, scope)
                self.index(statement.stop, scope)
            case Parallel() if not scope.top:
                self.fail("parallel loop inside another statement")
            case Blocks() | Threads():
                self.grid(statement, scope)
            case Barrier():
                self.meeting("barrier", scope)
            case Mma():
                self.mma(statement, scope)
            case GroupMma():
                self.group_mma(statement, scope)
            case OpenProducts():
                self.closed = set()
            case WaitProducts():
                if statement.left < 0:
                    self.fail(f"a wait until {statement.left} products are left")
                if statement.left == 0:
                    self.flying = set()
            case ShowProducts():
                self.shown |= self.filled
            case CopyAsync():
                self.copy(statement, scope)
            case CommitCopies():
                self.committed, self.copied = self.committed | self.copied, set()
            case WaitCopies():
                if statement.left < 0:
                    self.fail(f"a wait until {statement.left} copies are left")
                self.filled |= self.committed
            case _:
                pass

    # Grids

    def grid(self, grid: Blocks | Threads, scope: _Scope) -> None:
        what = type(grid).__name__.lower()
        if not len(grid.vars) == len(grid.extents) <= _AXES or min(grid.extents, default=1) < 1:
            self.fail(f"{what} over {grid.extents}")
        if isinstance(grid, Threads):
            if scope.blocks is None or all(inner is not grid for inner in scope.blocks.body):
                self.fail("threads outside of blocks")
            return
        if not scope.top or any(isinstance(other, Parallel) for other in self.kernel.body):
            self.fail("blocks inside another statement, or beside a parallel loop")
        if len(grid.body) != 1 or not isinstance(grid.body[0], Threads):
            self.fail("the body of blocks is one loop over threads")
        names = [buffer.name for buffer in (*self.kernel.buffers, *grid.shared)]
        for buffer in grid.shared:
            if buffer.space is not Space.SHARED or names.count(buffer.name) > 1:
                self.fail(f"{buffer.name} cannot be shared memory")

    def meeting(self, what: str, scope: _Scope) -> None:
        if scope.threads is None:
            self.fail(f"{what} outside of threads")
        if scope.divergent:
            self.fail(f"{what} where not all threads come")

    def exchange(self, exchange: Exchange, scope: _Scope) -> None:
        self.meeting("exchange", scope)
        group, mask = exchange.group, exchange.mask
        count = 0 if scope.threads is None else math.prod(scope.threads.extents)
        if group < 1 or group & (group - 1) or not 0 <= mask < group or count % group:
            self.fail(f"exchange {mask} of {group} among {count} threads")

    def mma(self, mma: Mma, scope: _Scope) -> None:
        self.meeting("mma", scope)
        form = mma.form
        count = 0 if scope.threads is None else math.prod(scope.threads.extents)
        if form not in FORMS or count % WARP:
            self.fail(f"mma {form} among {count} threads")
        fragment = ValueType(form.dtype, form.lanes)
        for name, values, wanted in (
            ("a", mma.a, form.a_registers),
            ("b", mma.b, form.b_registers),
        ):
            if [value.type for value in values] != [fragment] * wanted:
                self.fail(f"mma {form} takes {wanted} x {fragment} as {name}")
        if mma.sums.type != ValueType(DType.F32):
            self.fail(f"mma to registers of {mma.sums.type}")
        for slot in range(mma.slot, mma.slot + SUMS):
            self.value(Get(mma.sums, slot), scope)

    def group_mma(self, mma: GroupMma, scope: _Scope) -> None:
        self.meeting("mma", scope)
        form = mma.form
        count = 0 if scope.threads is None else math.prod(scope.threads.extents)
        if form not in GROUP_FORMS or count % GROUP:
            self.fail(f"mma {form} among {count} threads")
        if mma.sums.type != ValueType(DType.F32):
            self.fail(f"mma to registers of {mma.sums.type}")
        for slot in range(mma.slot, mma.slot + form.sums):
            self.register(mma.sums, slot)
            key = mma.sums.name, slot
            if key not in self.written:
                self.fail(f"{mma.sums.name}[{slot}] is read before it is written")
            if key in self.closed:
                self.fail(f"{mma.sums.name}[{slot}] is added to before products are opened")
            self.flying.add(key)
        for buffer, index, rows in (
            (mma.a, mma.a_index, GROUP_ROWS),
            (mma.b, mma.b_index, form.columns),
        ):
            self.multiplied(form, buffer, index)
            self.access(buffer, index, form.reach(rows), scope)

    def multiplied(self, form: GroupForm, buffer: Buffer, index: Dim) -> None:
        """What holds for a factor of a group's product: whole lines from one on, at a depth that
        products begin at."""
        kept = (DType.F32, DType.TF32) if form.dtype is DType.F32 else (form.dtype,)
        if buffer.dtype not in kept:
            self.fail(f"mma {form} of {buffer.dtype}")
        if buffer.space is not Space.SHARED or buffer.alignment % ATOM or not buffer.alignment:
            self.fail(f"mma {form} of {buffer.name}, which is no shared memory at {ATOM} bytes")
        for monomial, coefficient in terms_of(index):
            bytes = coefficient * buffer.dtype.bytes
            if bytes % ATOM and (monomial or bytes % ATOM >= LINE or bytes % form.begins):
                self.fail(f"mma {form} of {buffer.name} from {index} on")
        if buffer.name not in self.shown:
            self.fail(f"{buffer.name} is multiplied before it is shown to products")

    def landed(self, registers: Registers, slot: int) -> None:
        if (registers.name, slot) in self.flying:
            self.fail(f"{registers.name}[{slot}] is touched before its products are waited for")

    def copy(self, copy: CopyAsync, scope: _Scope) -> None:
        source, target = copy.source, copy.target
        if scope.threads is None:
            self.fail("copy outside of threads")
        if source.space is not Space.GLOBAL or target.space is not Space.SHARED:
            self.fail(f"copy from {source.space.value} to {target.space.value} memory")
        if source.dtype is not target.dtype:
            self.fail(f"copy of {source.dtype} to {target.dtype}")
        if copy.elements * source.dtype.bytes not in _COPIED:
            self.fail(f"copy of {copy.elements} x {source.dtype}")
        least, most = bounds(copy.valid)
        if least is None or least < 0 or most is None or most > copy.elements:
            self.fail(f"copy of {copy.valid} of {copy.elements} elements")
        self.index(copy.valid, scope)
        self.access(target, copy.index, copy.elements, scope)
        self.access(source, copy.source_index, 0 if copy.guards else copy.elements, scope)
        self.copied.add(target.name)

    # Values

    def value(self, value: Value, scope: _Scope) -> None:
        for child in value_children(value):
            self.value(child, scope)
        match value:
            case Var():
                if value.name not in self.visible:
                    self.fail(f"{value.name} is not defined")
            case Load():
                if value.buffer.dtype is not value.type.dtype:
                    self.fail(f"load of {value.type} from {value.buffer}")
                if value.valid is not None and not 0 < value.valid <= value.type.lanes:
                    self.fail(f"{value.valid} of {value.type.lanes} lanes of {value.buffer.name}")
                lanes = 0 if value.guards else value.count
                self.access(value.buffer, value.index, lanes, scope)
                name = value.buffer.name
                if value.buffer.space is not Space.GLOBAL and name not in self.filled:
                    waits = name in self.copied | self.committed
                    what = "its copies are waited for" if waits else "anything is stored in it"
                    self.fail(f"{name} is read before {what}")
            case Get():
                self.register(value.registers, value.slot)
                if (value.registers.name, value.slot) not in self.written:
                    self.fail(f"{value.registers.name}[{value.slot}] is read before it is written")
                self.landed(value.registers, value.slot)
            case Unary():
                self.primitive(value.op, value.x.type.dtype)
            case Binary() | Compare():
                self.primitive(value.op, value.a.type.dtype)
                if value.a.type != value.b.type:
                    self.fail(f"{value.op} of {value.a.type} and {value.b.type}")
            case ReduceLanes():
                self.primitive(REDUCTIONS[value.op].combine, value.x.type.dtype)
            case Fma():
                if value.a.type.dtype not in FLOATS:
                    self.fail(f"fma of {value.a.type}")
                if not value.a.type == value.b.type == value.c.type:
                    self.fail("fma of different types")
            case Select():
                lanes = value.condition.type.lanes
                if value.condition.type.dtype is not DType.BOOL or lanes not in (
                    1,
                    value.yes.type.lanes,
                ):
                    self.fail("select needs a bool, one or one a lane")
                if value.yes.type != value.no.type:
                    self.fail(f"select between {value.yes.type} and {value.no.type}")
            case Splat():
                if value.x.type.lanes != 1 or value.x.type.dtype is not value.type.dtype:
                    self.fail("splat needs a scalar of the same element type")
            case Lane():
                if not 0 <= value.lane < value.x.type.lanes:
                    self.fail(f"lane {value.lane} of {value.x.type}")
            case Shuffle():
                if value.a.type != value.b.type:
                    self.fail(f"shuffle of {value.a.type} and {value.b.type}")
                if not all(0 <= lane < 2 * value.a.type.lanes for lane in value.lanes):
                    self.fail(f"lanes {value.lanes} of two vectors {value.a.type}")
            case Gather():
                if len(value.lanes) != value.type.lanes:
                    self.fail("gather with a wrong number of lanes")
            case IndexAsValue():
                self.index(value.index, scope)
            case IndexTest():
                self.index(value.a, scope)
                self.index(value.b, scope)
            case _:
                pass

    def primitive(self, op: str, dtype: DType) -> None:
        if op not in FUNCTIONS or dtype not in FUNCTIONS[op].printed:
            self.fail(f"{op} of {dtype} is no operation of the loop IR")

    def index(self, index: Dim, scope: _Scope) -> None:
        for symbol in symbols_of(index):
            if symbol.name not in scope.counters:
                self.fail(f"index {index} uses {symbol.name}, which is not in scope")

    def access(self, buffer: Buffer, index: Dim, lanes: int, scope: _Scope) -> None:
        if buffer.space is Space.SHARED:
            if scope.blocks is None or buffer not in scope.blocks.shared:
                self.fail(f"{buffer.name} is not shared memory of these blocks")
        elif buffer not in self.kernel.buffers:
            self.fail(f"{buffer.name} is not a parameter")
        if buffer.space is Space.PRIVATE and (scope.top or scope.blocks is not None):
            self.fail(f"{buffer.name} is private to iterations, and this is none")
        self.index(index, scope)
        low, high = bounds(index)
        if lanes and (
            (high is not None and high < 0) or (low is not None and low + lanes > buffer.size)
        ):
            self.fail(f"{buffer.name}[{index}] is out of bounds ({buffer.size} elements)")

    def register(self, registers: Registers, slot: int) -> None:
        if registers not in self.kernel.registers or not 0 <= slot < registers.count:
            self.fail(f"no register {registers.name}[{slot}]")
