"""Registers that take the terms of reductions side by side, and are combined in pairs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from convdsl.kernel import nodes
from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Binary, Reduce, children
from convdsl.kernel.nodes import Const, Fma, Gather, Get, Registers, Select, Value, ValueType
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.schedules.emission import Emitter
from convdsl.tensor import Dim, DType
from convdsl.tensor.records import record


@record
class Accumulators:
    """Registers for several reductions, equally many slots for each. Maxima in `passing` pass over
    terms that are NaN."""

    b: Builder
    reduces: tuple[Reduce, ...]
    registers: tuple[Registers, ...]
    passing: Collection[Reduce] = ()

    @staticmethod
    def of(
        b: Builder,
        reduces: tuple[Reduce, ...],
        slots: int,
        lanes: int,
        passing: Collection[Reduce] = (),
    ) -> Accumulators:
        made = (b.registers(slots, ValueType(reduce.dtype, lanes)) for reduce in reduces)
        return Accumulators(b, reduces, tuple(made), passing)

    def clear(self) -> None:
        for reduce, registers in zip(self.reduces, self.registers, strict=True):
            for slot in range(registers.count):
                self.b.set(registers, slot, _neutral(reduce, registers.type))

    def add(self, slot: int, emitter: Emitter, at: Mapping[str, Dim], counted: int | None) -> None:
        """The terms of one position; only lanes before `counted` count, where that is given."""
        for reduce, registers in zip(self.reduces, self.registers, strict=True):
            old, body = Get(registers, slot), reduce.body
            product = reduce.op == "sum" and isinstance(body, Binary) and body.op == "mul"
            own = body.dtype is reduce.dtype
            if product and own and reduce.dtype.is_float and counted is None:
                a, b = (emitter.emit(e, at) for e in children(body))
                self.b.set(registers, slot, Fma(a, b, old))
                continue
            value = emitter.emit(body, at)
            if not own:
                value = nodes.Cast(value, registers.type)
            if counted is not None:
                inside = _lanes_before(counted, value.type.lanes)
                value = Select(inside, value, _neutral(reduce, value.type))
            self.b.set(registers, slot, self.combined(reduce, old, value))

    def take(self, slot: int, values: Sequence[Value]) -> None:
        """One more value for each reduction."""
        for reduce, registers, value in zip(self.reduces, self.registers, values, strict=True):
            self.b.set(registers, slot, self.combined(reduce, Get(registers, slot), value))

    def combined(self, reduce: Reduce, old: Value, value: Value) -> Value:
        """The next value of an accumulator."""
        if reduce in self.passing:
            new = self.b.let(value, "term")
            return Select(nodes.Compare("gt", new, old), new, old)
        return nodes.Binary(REDUCTIONS[reduce.op].combine, old, value)

    def values(self, slot: int) -> list[Value]:
        """What a slot holds of each reduction."""
        return [Get(registers, slot) for registers in self.registers]

    def totals(self) -> list[Value]:
        """The slots of each reduction, combined in pairs."""
        found: list[Value] = []
        for reduce, registers in zip(self.reduces, self.registers, strict=True):
            values: list[Value] = [Get(registers, slot) for slot in range(registers.count)]
            while len(values) > 1:
                some = zip(values[::2], values[1::2], strict=False)
                left = values[len(values) // 2 * 2 :]
                values = [self.combined(reduce, a, b) for a, b in some] + left
            found.append(self.b.let(values[0], reduce.op))
        return found


def _neutral(reduce: Reduce, type: ValueType) -> Const:
    return Const(REDUCTIONS[reduce.op].neutral(reduce.dtype), type)


def _lanes_before(count: int, lanes: int) -> Value:
    one = ValueType(DType.BOOL)
    flags = tuple(Const(lane < count, one) for lane in range(lanes))
    return Gather(flags, ValueType(DType.BOOL, lanes))
