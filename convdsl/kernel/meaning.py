"""What values of loop IR mean: each as a function of the thread that asks for its lanes.

The functions are made once for a kernel; a value is asked for as often as its loops turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.kernel.nodes import (
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
    ReduceLanes,
    Select,
    Shuffle,
    Splat,
    Unary,
    Value,
    Var,
)
from convdsl.kernel.scalar import FUNCTIONS, REDUCTIONS
from convdsl.tensor import evaluator
from convdsl.tensor.conversion import convert, stored

Array = npt.NDArray[Any]


class Asker(Protocol):
    """A thread: its counters, values and registers, and how it reads memory."""

    indices: dict[str, int]
    lets: dict[str, Array]
    registers: dict[tuple[str, int], Array]

    def load(self, buffer: Buffer, start: int, count: int) -> Array:
        """Elements of a buffer, as an array of the thread's own."""
        ...


Meaning: TypeAlias = "Callable[[Asker], Array]"
"""The lanes of a value; a scalar is an array of one. Nobody writes to it."""


class Meanings:
    """Of the values of one kernel, by identity."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Value, Meaning]] = {}

    def __call__(self, value: Value) -> Meaning:
        known = self._known.get(id(value))
        if known is None:  # the value is kept, so that its identity stays its own
            known = self._known[id(value)] = value, self._made(value)
        return known[1]

    def _made(self, value: Value) -> Meaning:
        match value:
            case Const():
                lanes = np.full(value.type.lanes, stored(value.value, value.type.dtype))
                return lambda asker: lanes
            case Var():
                name = value.name
                return lambda asker: asker.lets[name]
            case Get():
                key = (value.registers.name, value.slot)
                return lambda asker: asker.registers[key]
            case Load():
                return self._load(value)
            case IndexTest():
                test, a, b = FUNCTIONS[value.op].meaning, evaluator(value.a), evaluator(value.b)
                return lambda asker: np.array([test(a(asker.indices), b(asker.indices))])
            case IndexAsValue():
                index, type = evaluator(value.index), np.dtype(value.type.dtype.numpy)
                steps = np.arange(value.type.lanes) * value.step
                return lambda asker: (index(asker.indices) + steps).astype(type)
            case _:
                return self._of_values(value)

    def _load(self, load: Load) -> Meaning:
        buffer, index, count = load.buffer, evaluator(load.index), load.count
        lanes = load.type.lanes
        rest = np.full(lanes, stored(load.otherwise, load.type.dtype))
        guards = [self(guard) for guard in load.guards]

        def loaded(asker: Asker) -> Array:
            for guard in guards:
                if not guard(asker)[0]:
                    return rest
            found = asker.load(buffer, index(asker.indices), count)
            return found if count == lanes else np.concatenate([found, rest[count:]])

        return loaded

    def _of_values(self, value: Value) -> Meaning:
        match value:
            case Lane():
                x, part = self(value.x), slice(value.lane, value.lane + 1)
                return lambda asker: x(asker)[part]
            case Shuffle():
                a, b, lanes = self(value.a), self(value.b), list(value.lanes)
                return lambda asker: np.concatenate([a(asker), b(asker)])[lanes]
            case Gather():
                parts = [self(lane) for lane in value.lanes]
                return lambda asker: np.concatenate([part(asker) for part in parts])
            case Splat():
                x, count = self(value.x), value.type.lanes
                return lambda asker: np.repeat(x(asker), count)
            case Select():
                test, yes, no = self(value.condition), self(value.yes), self(value.no)
                return lambda asker: np.where(test(asker), yes(asker), no(asker))
            case _:
                return self._computed(value)

    def _computed(self, value: Value) -> Meaning:
        match value:
            case Unary():
                x, function = self(value.x), FUNCTIONS[value.op].meaning
                return lambda asker: function(x(asker))
            case Binary() | Compare():
                a, b, function = self(value.a), self(value.b), FUNCTIONS[value.op].meaning
                return lambda asker: function(a(asker), b(asker))
            case Fma():
                return self._fma(value)
            case Cast():
                x, old, new = self(value.x), value.x.type.dtype, value.type.dtype
                return lambda asker: convert(x(asker), old, new)
            case ReduceLanes():
                x, whole = self(value.x), REDUCTIONS[value.op].whole
                type = np.dtype(value.type.dtype.numpy)
                return lambda asker: np.array([whole(x(asker))], type)
            case _:
                raise AssertionError(f"no rule for {value}")

    def _fma(self, fma: Fma) -> Meaning:
        a, b, c = self(fma.a), self(fma.b), self(fma.c)
        wide, type = np.longdouble, np.dtype(fma.type.dtype.numpy)

        def fused(asker: Asker) -> Array:
            product = a(asker).astype(wide) * b(asker).astype(wide)
            return (product + c(asker).astype(wide)).astype(type)

        return fused
