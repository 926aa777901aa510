"""Keys that sort elements: whole numbers in the order that is asked for.

    key = order(x) 2**32 + position         where 32 bits say where x stands: one word
    key = (order(x), position)              else: two

No two keys are equal, so that whatever sorts them puts equals in the order of their positions. Of
words a processor finds the lower and the higher in an instruction each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import (
    Binary,
    Cast,
    Compare,
    Const,
    ReduceLanes,
    Select,
    Shuffle,
    Unary,
    Value,
    ValueType,
)
from convdsl.tensor import DType
from convdsl.tensor.records import record

Key: TypeAlias = "tuple[Value, ...]"

_POSITIONS = 1 << 32
"""More than an axis has."""


@record
class Keys:
    """Writes keys of `words` into a kernel, `lanes` side by side."""

    b: Builder
    lanes: int
    words: int

    @property
    def type(self) -> ValueType:
        return ValueType(DType.I64, self.lanes)

    def of(self, x: Value, position: Value, *, largest: bool) -> Key:
        """The key of an element."""
        b, type = self.b, self.type
        if x.type.dtype.is_float:
            order: Value = Unary("order", x)
        else:
            order = x if x.type == type else Cast(x, type)
            if x.type.dtype is DType.U32:
                order = Binary("sub", order, Const(1 << 31, type))
        order = b.let(Unary("not", order) if largest else order, "order")
        if self.words == 2:
            return order, position
        high = Binary("mul", order, Const(_POSITIONS, type))
        return (b.let(Binary("add", high, position), "key"),)

    @property
    def last(self) -> Key:
        """A key behind those of all elements."""
        return (Const(DType.I64.highest, self.type),) * self.words

    def position(self, key: Key) -> Value:
        """Of the element."""
        if self.words == 2:
            return key[1]
        return Binary("and", key[0], Const(_POSITIONS - 1, key[0].type))

    def before(self, a: Key, b: Key) -> Value:
        """Whether a comes before b, lane by lane."""
        first = Compare("lt", a[0], b[0])
        if self.words == 1:
            return first
        second = Binary("and", Compare("eq", a[0], b[0]), Compare("lt", a[1], b[1]))
        return Binary("or", first, second)

    def any_before(self, a: Key, b: Key) -> Value:
        """Whether a comes before b in some lane: 1, or else 0."""
        test = self.before(a, b)
        some = test if self.lanes == 1 else ReduceLanes("any", test)
        return Cast(some, ValueType(DType.I64))

    def lower(self, a: Key, b: Key) -> Key:
        """Of two, lane by lane."""
        if self.words == 1:
            return (self.b.let(Binary("min", a[0], b[0]), "low"),)
        return self.exchanged(a, b)[0]

    def exchanged(self, a: Key, b: Key) -> tuple[Key, Key]:
        """The lower and the higher."""
        let = self.b.let
        if self.words == 1:
            low, high = (let(Binary(op, a[0], b[0]), op) for op in ("min", "max"))
            return (low,), (high,)
        turned = let(self.before(b, a), "turned")
        pairs = list(zip(a, b, strict=True))
        low = tuple(let(Select(turned, y, x), "low") for x, y in pairs)
        return low, tuple(let(Select(turned, x, y), "high") for x, y in pairs)

    def shuffled(self, key: Key, lanes: Sequence[int]) -> Key:
        """The lanes of a key in another order."""
        return tuple(self.b.let(Shuffle(word, word, tuple(lanes)), "turned") for word in key)

    def blended(self, a: Key, b: Key, second: Sequence[bool]) -> Key:
        """b in the lanes where that is said, else a."""
        lanes = tuple(lane + self.lanes * other for lane, other in enumerate(second))
        return tuple(self.b.let(Shuffle(x, y, lanes), "blended") for x, y in zip(a, b, strict=True))
