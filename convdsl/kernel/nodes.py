"""The loop IR: typed loops over flat buffers, vectors and arrays of registers.

    Kernel    name, buffers, body
    Statement For | Parallel | If | Let | Set | Store | Prefetch
    Value     Const | Var | Load | Gather | Get | Unary | Binary | Fma | Compare | Select | Cast
              | IndexAsValue | IndexTest | Splat | ReduceLanes

Indices are `Dim`s over loop variables: element offsets into flat buffers. Values are trees;
`Let` names one so that it is computed once. A kernel is `Parallel` loops side by side: the
iterations of all of them are independent, and threads take shares of each in any order; what
must come after the whole of something else is another kernel. There are no phis, no register
allocation and no address arithmetic: compilers do those well (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import Dim, DType, symbol


@dataclass(frozen=True, slots=True)
class ValueType:
    """An element type and a number of lanes; 1 lane is a scalar."""

    dtype: DType
    lanes: int = 1

    def __str__(self) -> str:
        return str(self.dtype) if self.lanes == 1 else f"{self.dtype}x{self.lanes}"


@dataclass(frozen=True, slots=True)
class Buffer:
    """A flat array of `size` elements that a kernel is handed."""

    name: str
    dtype: DType
    size: int
    written: bool = False


@dataclass(frozen=True, slots=True)
class Registers:
    """An array of `count` registers, alive for the whole kernel body."""

    name: str
    count: int
    type: ValueType


@dataclass(frozen=True, slots=True)
class LoopVar:
    """A loop counter with its proven range lowest..highest, both included."""

    name: str
    lowest: int
    highest: int

    @property
    def i(self) -> Dim:
        if self.lowest == self.highest:
            return self.lowest
        return symbol(self.name, minimum=self.lowest, maximum=self.highest)


# Values


@dataclass(frozen=True, slots=True)
class Const:
    value: float | int | bool
    type: ValueType


@dataclass(frozen=True, slots=True)
class Var:
    """What a `Let` named."""

    name: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class Load:
    """`lanes` consecutive elements from `index` on. Under `guards` (index tests that must all
    hold) the load happens, else `otherwise` is the value."""

    buffer: Buffer
    index: Dim
    type: ValueType
    guards: tuple[IndexTest, ...] = ()
    otherwise: float | int | bool = 0


@dataclass(frozen=True, slots=True)
class Gather:
    """One scalar load a lane."""

    lanes: tuple[Value, ...]
    type: ValueType


@dataclass(frozen=True, slots=True)
class Get:
    registers: Registers
    slot: int

    @property
    def type(self) -> ValueType:
        return self.registers.type


@dataclass(frozen=True, slots=True)
class Unary:
    """A primitive function of one operand, by its name in `scalar.FUNCTIONS`."""

    op: str
    x: Value

    @property
    def type(self) -> ValueType:
        type = self.x.type
        return ValueType(FUNCTIONS[self.op].result(type.dtype), type.lanes)


@dataclass(frozen=True, slots=True)
class Binary:
    """A primitive function of two operands; max and min hand NaN on."""

    op: str
    a: Value
    b: Value

    @property
    def type(self) -> ValueType:
        return self.a.type


@dataclass(frozen=True, slots=True)
class Fma:
    """a * b + c, rounded once where the processor can."""

    a: Value
    b: Value
    c: Value

    @property
    def type(self) -> ValueType:
        return self.c.type


@dataclass(frozen=True, slots=True)
class Compare:
    op: str
    a: Value
    b: Value

    @property
    def type(self) -> ValueType:
        return ValueType(DType.BOOL, self.a.type.lanes)


@dataclass(frozen=True, slots=True)
class Select:
    """The condition is a bool scalar or a bool per lane."""

    condition: Value
    yes: Value
    no: Value

    @property
    def type(self) -> ValueType:
        return self.yes.type


@dataclass(frozen=True, slots=True)
class Cast:
    x: Value
    type: ValueType


@dataclass(frozen=True, slots=True)
class Splat:
    """A scalar in every lane."""

    x: Value
    type: ValueType


@dataclass(frozen=True, slots=True)
class IndexAsValue:
    """index + lane * step as numbers."""

    index: Dim
    step: int
    type: ValueType


@dataclass(frozen=True, slots=True)
class IndexTest:
    """lt le gt ge eq ne of two indices: a scalar bool."""

    op: str
    a: Dim
    b: Dim

    @property
    def type(self) -> ValueType:
        return ValueType(DType.BOOL)


@dataclass(frozen=True, slots=True)
class ReduceLanes:
    """Combine all lanes (sum max min) to a scalar."""

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


@dataclass(frozen=True, slots=True)
class Let:
    var: Var
    value: Value


@dataclass(frozen=True, slots=True)
class Set:
    registers: Registers
    slot: int
    value: Value


@dataclass(frozen=True, slots=True)
class Store:
    """Write consecutive elements; only the first `valid` lanes where that is given."""

    buffer: Buffer
    index: Dim
    value: Value
    valid: int | None = None


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Ask for a cache line ahead of its use; the index may lie past the end. No effect else."""

    buffer: Buffer
    index: Dim
    level: int = 2  # of the cache that it is wanted in


@dataclass(frozen=True, slots=True)
class For:
    """start <= var < stop, one after the other; stays a loop in the machine code."""

    var: LoopVar
    start: Dim
    stop: Dim
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Parallel:
    """All combinations of the variables (each from 0), split among the threads."""

    vars: tuple[LoopVar, ...]
    extents: tuple[int, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class If:
    test: IndexTest
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...] = ()


Statement: TypeAlias = Let | Set | Store | Prefetch | For | Parallel | If


@dataclass(frozen=True, slots=True)
class Kernel:
    """One step of a program. Buffers are its parameters, in order."""

    name: str
    buffers: tuple[Buffer, ...]
    registers: tuple[Registers, ...]
    body: tuple[Statement, ...]


def value_children(value: Value) -> tuple[Value, ...]:
    match value:
        case Unary() | Cast() | Splat() | ReduceLanes():
            return (value.x,)
        case Binary() | Compare():
            return (value.a, value.b)
        case Fma():
            return (value.a, value.b, value.c)
        case Select():
            return (value.condition, value.yes, value.no)
        case Gather():
            return value.lanes
        case Load():
            return value.guards
        case _:
            return ()


def statement_values(statement: Statement) -> tuple[Value, ...]:
    """Values that the statement itself evaluates (not its body's)."""
    match statement:
        case Let() | Set() | Store():
            return (statement.value,)
        case If():
            return (statement.test,)
        case _:
            return ()


def statement_bodies(statement: Statement) -> tuple[tuple[Statement, ...], ...]:
    match statement:
        case For() | Parallel():
            return (statement.body,)
        case If():
            return (statement.then, statement.otherwise)
        case _:
            return ()


def walk_statements(body: tuple[Statement, ...]) -> Iterator[Statement]:
    for statement in body:
        yield statement
        for inner in statement_bodies(statement):
            yield from walk_statements(inner)
