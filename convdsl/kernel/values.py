"""What statements of the loop IR compute with: buffers, registers, counters, and trees of values.

    Value     Const | Var | Load | Gather | Lane | Shuffle | Get | Unary | Binary | Fma | Compare
              | Select | Cast | IndexAsValue | IndexTest | Splat | ReduceLanes

Indices are `Dim`s over counters: element offsets into flat buffers.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

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
