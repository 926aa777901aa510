"""The loop IR: typed loops over flat buffers, vectors and arrays of registers.

    Kernel    name, buffers, body
    Statement For | Parallel | Blocks | Threads | If | Let | LetIndex | Set | Store | Prefetch
              | Barrier | Exchange | Mma | CopyAsync | CommitCopies | WaitCopies
    Value     Const | Var | Load | Gather | Lane | Shuffle | Get | Unary | Binary | Fma | Compare
              | Select | Cast | IndexAsValue | IndexTest | Splat | ReduceLanes

Indices are `Dim`s over loop variables: element offsets into flat buffers. Values are trees;
`Let` names one so that it is computed once. A kernel is `Parallel` loops side by side: the
iterations of all of them are independent, and threads take shares of each in any order; what
must come after the whole of something else is another kernel. There are no phis, no register
allocation and no address arithmetic: compilers do those well (docs/performance.md).

Where the target has a grid, `Blocks` stand in the place of `Parallel`, independent of each other
likewise. A block is its `Threads`: they share memory that the block declares, run at any pace, and
wait for each other at a `Barrier` (docs/adr/0091). A thread may begin copies to shared memory that
go on while it does, and 32 threads multiply small matrices together (docs/adr/0133). 128 threads
begin products of matrices in shared memory, which go on as well (docs/adr/0152).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from convdsl.kernel.group_mma import GroupForm
from convdsl.kernel.mma import MmaForm
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import Dim, DType, symbol
from convdsl.tensor.records import record


@record
class ValueType:
    """An element type and a number of lanes; 1 lane is a scalar."""

    dtype: DType
    lanes: int = 1

    def __str__(self) -> str:
        return str(self.dtype) if self.lanes == 1 else f"{self.dtype}x{self.lanes}"


class Space(enum.Enum):
    """Who sees a buffer."""

    GLOBAL = "global"  # everybody, and the kernels that follow
    SHARED = "shared"  # the threads of one block, until it ends
    PRIVATE = "private"  # one iteration of a `Parallel`, until it ends


@record
class Buffer:
    """A flat array of `size` elements: global ones are handed to a kernel, shared ones are
    declared by its `Blocks`, and hold nothing when a block begins. Private ones are handed over
    too, by each thread its own, and hold nothing when an iteration begins. The first element lies
    at a multiple of `alignment` bytes (0: of an element's)."""

    name: str
    dtype: DType
    size: int
    written: bool = False
    space: Space = Space.GLOBAL
    alignment: int = 0


@record
class Registers:
    """An array of `count` registers, alive for the whole kernel body. Each thread has its own."""

    name: str
    count: int
    type: ValueType


@record
class LoopVar:
    """A loop counter with its proven range lowest..highest, both included."""

    name: str
    lowest: int
    highest: int

    @property
    def i(self) -> Dim:
        """The counter as an index; a number where it has one value only."""
        if self.lowest == self.highest:
            return self.lowest
        return symbol(self.name, minimum=self.lowest, maximum=self.highest)


# Values


@record
class Const:
    """The same number in every lane."""

    value: float | int | bool
    type: ValueType


@record
class Var:
    """What a `Let` named."""

    name: str
    type: ValueType


@record
class Load:
    """`lanes` consecutive elements from `index` on; with `valid` only the first so many, the other
    lanes are `otherwise`. Under `guards` (index tests that must all hold) the load happens, else
    all of it is `otherwise`. `afresh`: from memory wherever this stands, also where the same was
    loaded before: an instruction that takes an operand from memory needs no register for it."""

    buffer: Buffer
    index: Dim
    type: ValueType
    guards: tuple[IndexTest, ...] = ()
    otherwise: float | int | bool = 0
    valid: int | None = None
    afresh: bool = False

    @property
    def count(self) -> int:
        """Elements that are read."""
        return self.type.lanes if self.valid is None else self.valid


@record
class Gather:
    """One scalar load a lane."""

    lanes: tuple[Value, ...]
    type: ValueType


@record
class Lane:
    """One lane of a vector, as a scalar."""

    x: Value
    lane: int

    @property
    def type(self) -> ValueType:
        return ValueType(self.x.type.dtype)


@record
class Shuffle:
    """Lanes of two vectors of one type: number i is a's, number `lanes of a` + i is b's."""

    a: Value
    b: Value
    lanes: tuple[int, ...]

    @property
    def type(self) -> ValueType:
        return ValueType(self.a.type.dtype, len(self.lanes))


@record
class Get:
    """What a register holds; it must have been set."""

    registers: Registers
    slot: int

    @property
    def type(self) -> ValueType:
        return self.registers.type


@record
class Unary:
    """A primitive function of one operand, by its name in `scalar.FUNCTIONS`."""

    op: str
    x: Value

    @property
    def type(self) -> ValueType:
        type = self.x.type
        return ValueType(FUNCTIONS[self.op].result(type.dtype), type.lanes)


@record
class Binary:
    """A primitive function of two operands; max and min hand NaN on."""

    op: str
    a: Value
    b: Value

    @property
    def type(self) -> ValueType:
        return self.a.type


@record
class Fma:
    """a * b + c, rounded once where the processor can."""

    a: Value
    b: Value
    c: Value

    @property
    def type(self) -> ValueType:
        return self.c.type


@record
class Compare:
    """A comparison by its name in `scalar.COMPARISONS`: a bool for each lane."""

    op: str
    a: Value
    b: Value

    @property
    def type(self) -> ValueType:
        return ValueType(DType.BOOL, self.a.type.lanes)


@record
class Select:
    """The condition is a bool scalar or a bool per lane."""

    condition: Value
    yes: Value
    no: Value

    @property
    def type(self) -> ValueType:
        return self.yes.type


@record
class Cast:
    """Each lane in another element type: floats to integers towards zero, numbers to bool by
    whether they are not zero."""

    x: Value
    type: ValueType


@record
class Splat:
    """A scalar in every lane."""

    x: Value
    type: ValueType


@record
class IndexAsValue:
    """index + lane * step as numbers."""

    index: Dim
    step: int
    type: ValueType


@record
class IndexTest:
    """lt le gt ge eq ne of two indices: a scalar bool."""

    op: str
    a: Dim
    b: Dim

    @property
    def type(self) -> ValueType:
        return ValueType(DType.BOOL)


@record
class ReduceLanes:
    """Combine all lanes by one of `scalar.REDUCTIONS` to a scalar, in any order."""

    op: str
    x: Value

    @property
    def type(self) -> ValueType:
        return ValueType(self.x.type.dtype)


Value: TypeAlias = (
    Const
    | Var
    | Load
    | Gather
    | Lane
    | Shuffle
    | Get
    | Unary
    | Binary
    | Fma
    | Compare
    | Select
    | Cast
    | Splat
    | IndexAsValue
    | IndexTest
    | ReduceLanes
)


# Statements


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


def value_children(value: Value) -> tuple[Value, ...]:
    """The values that a value is made of, index tests among them."""
    found = _CHILDREN.get(type(value))
    return found(value) if found is not None else ()


_CHILDREN: Mapping[type[Any], Callable[[Any], tuple[Value, ...]]] = {
    **dict.fromkeys((Unary, Cast, Splat, ReduceLanes, Lane), lambda value: (value.x,)),
    **dict.fromkeys((Binary, Compare, Shuffle), lambda value: (value.a, value.b)),
    Fma: lambda value: (value.a, value.b, value.c),
    Select: lambda value: (value.condition, value.yes, value.no),
    Gather: lambda value: value.lanes,
    Load: lambda value: value.guards,
}
"""By kind, in a table: a match asks kind by kind, and kernels are walked several times."""


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
