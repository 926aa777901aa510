"""The loop IR: typed loops over flat buffers, vectors and arrays of registers.

    Kernel    name, buffers, body
    Statement For | Parallel | Blocks | Threads | If | Let | LetIndex | Set | Store | Prefetch
              | Barrier | Exchange | Mma | CopyAsync | CommitCopies | WaitCopies

Buffers, counters and the trees of values that statements compute are values.py's; `Let` names a
value so that it is computed once. A kernel is `Parallel` loops side by side: the iterations of all
of them are independent, and threads take shares of each in any order; what must come after the
whole of something else is another kernel. There are no phis, no register allocation and no address
arithmetic: compilers do those well (docs/performance.md).

Where the target has a grid, `Blocks` stand in the place of `Parallel`, independent of each other
likewise. A block is its `Threads`: they share memory that the block declares, run at any pace, and
wait for each other at a `Barrier` (docs/adr/0091). A thread may begin copies to shared memory that
go on while it does, and 32 threads multiply small matrices together (docs/adr/0133). 128 threads
begin products of matrices in shared memory, which go on as well (docs/adr/0152).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from convdsl.kernel.group_mma import GroupForm
from convdsl.kernel.mma import MmaForm
from convdsl.kernel.values import (
    Binary,
    Buffer,
    Cast,
    Compare,
    Const,
    Fma,
    Gather,
    Get,
    IndexAsValue,
    IndexTest,
    Lane,
    Load,
    LoopVar,
    ReduceLanes,
    Registers,
    Select,
    Shuffle,
    Space,
    Splat,
    Unary,
    Value,
    ValueType,
    Var,
    value_children,
)
from convdsl.tensor import Dim
from convdsl.tensor.records import record

__all__ = [
    "Barrier",
    "Binary",
    "Blocks",
    "Buffer",
    "Cast",
    "CommitCopies",
    "CommitProducts",
    "Compare",
    "Const",
    "CopyAsync",
    "Exchange",
    "Fma",
    "For",
    "Gather",
    "Get",
    "GroupMma",
    "If",
    "IndexAsValue",
    "IndexTest",
    "Kernel",
    "Lane",
    "Let",
    "LetIndex",
    "Load",
    "LoopVar",
    "Mma",
    "OpenProducts",
    "Parallel",
    "Prefetch",
    "ReduceLanes",
    "Registers",
    "Select",
    "Set",
    "ShowProducts",
    "Shuffle",
    "Space",
    "Splat",
    "Statement",
    "Store",
    "Threads",
    "Unary",
    "Value",
    "ValueType",
    "Var",
    "WaitCopies",
    "WaitProducts",
    "is_met",
    "statement_bodies",
    "statement_values",
    "value_children",
    "walk_statements",
]


@record
class Let:
    """Name a value: computed once, here, and known up to the end of the body."""

    var: Var
    value: Value


@record
class LetIndex:
    """An index that is data: an i64 scalar, brought into the range of `var` by taking the end that
    is nearer. From here on `var` stands in indices as a loop counter does."""

    var: LoopVar
    value: Value


@record
class Set:
    """Write a register; the types are alike."""

    registers: Registers
    slot: int
    value: Value


@record
class Store:
    """Write consecutive elements; only the first `valid` lanes where that is given."""

    buffer: Buffer
    index: Dim
    value: Value
    valid: int | None = None


@record
class Prefetch:
    """Ask for a cache line ahead of its use; the index may lie past the end. No effect else."""

    buffer: Buffer
    index: Dim
    level: int = 2  # of the cache that it is wanted in


@record
class For:
    """start <= var < stop, one after the other; stays a loop in the machine code."""

    var: LoopVar
    start: Dim
    stop: Dim
    body: tuple[Statement, ...]


@record
class Parallel:
    """All combinations of the variables (each from 0), split among the threads."""

    vars: tuple[LoopVar, ...]
    extents: tuple[int, ...]
    body: tuple[Statement, ...]


@record
class Blocks:
    """A grid: all combinations of up to three variables (each from 0), in any order. Each is a
    block with its own `shared` memory; the body is one `Threads`."""

    vars: tuple[LoopVar, ...]
    extents: tuple[int, ...]
    shared: tuple[Buffer, ...]
    body: tuple[Statement, ...]


@record
class Threads:
    """The threads of a block: all combinations of up to three variables (each from 0), numbered
    with the last one fastest."""

    vars: tuple[LoopVar, ...]
    extents: tuple[int, ...]
    body: tuple[Statement, ...]


@record
class Barrier:
    """No thread of the block goes on before all have come; then all see what each had stored."""


@record
class Exchange:
    """var = the value that the thread numbered `own ^ mask` came with, once all threads of a
    group have come. Groups are `group` consecutive numbers, a power of two. It orders no memory.
    """

    var: Var
    value: Value
    mask: int
    group: int


@record
class Mma:
    """sums += a b of matrices that a warp holds together, once all of its 32 threads have come
    (`kernel.mma` says who holds what). The sums are f32 scalars in registers from `slot` on; of the
    factors each thread brings its registers. Products are exact, the order of a sum is the
    hardware's. It orders no memory."""

    form: MmaForm
    sums: Registers
    slot: int
    a: tuple[Value, ...]
    b: tuple[Value, ...]


@record
class GroupMma:
    """Begin sums += a b of matrices in shared memory, which the 128 threads of a group hold the
    sums of together (`kernel.group_mma`): 64 rows of a, and as many columns as the form has as rows
    of b, each from the line and the depth on where an index says. Each warp of 32 threads meets
    there. It happens at any time up to the thread's wait: until then nobody may write what it
    reads, and its sums hold nothing, but other products may be added to them."""

    form: GroupForm
    sums: Registers
    slot: int
    a: Buffer
    a_index: Dim
    b: Buffer
    b_index: Dim


@record
class OpenProducts:
    """The sums that this thread has set may be added to by products."""


@record
class CommitProducts:
    """The products that this thread began since its last one are a group."""


@record
class WaitProducts:
    """Go on once at most `left` of this thread's groups, the last ones, are not complete."""

    left: int


@record
class ShowProducts:
    """What this thread has stored in shared memory, and the copies that it has waited for, may be
    read by products from the next barrier on."""


@record
class CopyAsync:
    """Begin to copy consecutive elements (4, 8 or 16 bytes) to shared memory. Only the first
    `valid` are read, and none where a guard fails; zeros are written for the rest. It happens at
    any time up to the thread's wait; other threads see it from the barrier after that on."""

    target: Buffer
    index: Dim
    source: Buffer
    source_index: Dim
    elements: int
    valid: Dim
    guards: tuple[IndexTest, ...] = ()


@record
class CommitCopies:
    """The copies that this thread began since its last one are a group."""


@record
class WaitCopies:
    """Go on once at most `left` of this thread's groups, the last ones, are not complete."""

    left: int


@record
class If:
    """One of two bodies, by a test of indices."""

    test: IndexTest
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...] = ()


Statement: TypeAlias = (
    Let
    | LetIndex
    | Set
    | Store
    | Prefetch
    | For
    | Parallel
    | Blocks
    | Threads
    | Barrier
    | Exchange
    | Mma
    | GroupMma
    | OpenProducts
    | CommitProducts
    | WaitProducts
    | ShowProducts
    | CopyAsync
    | CommitCopies
    | WaitCopies
    | If
)


@record
class Kernel:
    """One step of a program. Buffers are its parameters, in order."""

    name: str
    buffers: tuple[Buffer, ...]
    registers: tuple[Registers, ...]
    body: tuple[Statement, ...]


def statement_values(statement: Statement) -> tuple[Value, ...]:
    """Values that the statement itself evaluates (not its body's)."""
    match statement:
        case Let() | LetIndex() | Set() | Store() | Exchange():
            return (statement.value,)
        case Mma():
            return (*statement.a, *statement.b)
        case CopyAsync():
            return statement.guards
        case If():
            return (statement.test,)
        case _:
            return ()


def statement_bodies(statement: Statement) -> tuple[tuple[Statement, ...], ...]:
    """The bodies that a statement runs: of a loop one, of a branch two."""
    match statement:
        case For() | Parallel() | Blocks() | Threads():
            return (statement.body,)
        case If():
            return (statement.then, statement.otherwise)
        case _:
            return ()


def walk_statements(body: tuple[Statement, ...]) -> Iterator[Statement]:
    """All statements of a body, outer ones before inner ones."""
    for statement in body:
        yield statement
        for inner in statement_bodies(statement):
            yield from walk_statements(inner)


def is_met(statement: Statement) -> bool:
    """Whether threads wait for each other somewhere in a statement."""
    return any(
        isinstance(s, Barrier | Exchange | Mma | GroupMma) for s in walk_statements((statement,))
    )
