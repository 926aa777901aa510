"""A reader of pickles that can build nothing but plain data and inert records.

Pickle is a small stack language; the danger lies in its opcodes that import and call. This
machine runs the stack part only. `GLOBAL` yields a `Name`, whatever it names; calling one
asks the `reduce` given, which knows a few by name and refuses the rest. Mapping keys are
strings, numbers or None, so that hashing cannot recurse, and opcodes are counted.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from types import UnionType
from typing import Any, TypeAlias

from convdsl.diagnostics import WeightError
from convdsl.weights.store import shown

MAX_OPCODES = 2_000_000
"""Opcodes of one pickle; a checkpoint spends about 40 on a tensor."""


@dataclass(frozen=True, slots=True)
class Name:
    """A global that the pickle names: inert."""

    module: str
    name: str

    def __str__(self) -> str:
        return shown(f"{self.module}.{self.name}")


class Inert:
    """Stands for an object that is of no use here: it keeps nothing of what it is given."""

    def update(self, items: object) -> None:
        """Takes no notice."""

    append = extend = update


Reduce: TypeAlias = "Callable[[Name, tuple[Any, ...]], Any]"
Persistent: TypeAlias = "Callable[[tuple[Any, ...]], Any]"


class _Mark:
    """The stack's marker."""


_MARK = _Mark()

# Opcodes that push what they carry, or a constant.
_PUSHED = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    }
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple[Any, ...],
    "EMPTY_LIST": list[Any],
    "EMPTY_DICT": dict[Any, Any],
    "EMPTY_SET": list[Any],
    "MARK": lambda: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def load(file: BytesIO, reduce: Reduce, persistent: Persistent) -> Any:
    """Read one pickle and leave `file` behind it. Raises WeightError."""
    machine = _Machine(reduce, persistent)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count >= MAX_OPCODES:
                raise WeightError(f"its pickle has more than {MAX_OPCODES} opcodes")
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise WeightError(f"its pickle is damaged ({error})") from None
    raise WeightError("its pickle has no end")


class _Machine:
    def __init__(self, reduce: Reduce, persistent: Persistent) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.reduce = reduce
        self.persistent = persistent

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in _PUSHED:
            stack.append(argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode]())
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            if len(stack) < count:
                raise IndexError("the stack is empty")
            stack[-count:] = [tuple(stack[-count:])]
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[int(argument)])
        elif opcode not in ("PROTO", "FRAME"):
            self.build(opcode, argument)

    def build(self, opcode: str, argument: Any) -> None:
        """The opcodes that put things together."""
        stack = self.stack
        match opcode:
            case "TUPLE":
                stack.append(tuple(self.marked()))
            case "LIST":
                stack.append(self.marked())
            case "DICT":
                items = self.marked()
                stack.append(paired(items))
            case "POP":
                stack.pop()
            case "POP_MARK":
                self.marked()
            case "DUP":
                stack.append(stack[-1])
            case "APPEND":
                item = stack.pop()
                _of_type(stack[-1], list | Inert).append(item)
            case "APPENDS" | "ADDITEMS":
                items = self.marked()
                _of_type(stack[-1], list | Inert).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _of_type(stack[-1], dict | Inert).update(paired([key, value]))
            case "SETITEMS":
                items = self.marked()
                _of_type(stack[-1], dict | Inert).update(paired(items))
            case _:
                self.call(opcode, argument)

    def call(self, opcode: str, argument: Any) -> None:
        """The opcodes that name, call and adorn objects."""
        stack = self.stack
        match opcode:
            case "GLOBAL":
                stack.append(Name(*str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(Name(_of_type(module, str), _of_type(name, str)))
            case "REDUCE" | "NEWOBJ":
                arguments, callee = stack.pop(), stack.pop()
                stack.append(self.reduce(_of_type(callee, Name), _of_type(arguments, tuple)))
            case "BINPERSID":
                stack.append(self.persistent(_of_type(stack.pop(), tuple)))
            case "BUILD":
                # State of an object that is already built: attributes of an OrderedDict.
                stack.pop()
                _of_type(stack[-1], dict | Inert)
            case _:
                raise WeightError(f"its pickle uses {opcode}, which no checkpoint needs")

    def marked(self) -> list[Any]:
        """Pop everything above the last mark, and the mark."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise IndexError("a mark is missing")


def _of_type(value: Any, type: type[Any] | UnionType) -> Any:
    if not isinstance(value, type):
        raise TypeError(f"{getattr(type, '__name__', type)} expected")
    return value


def paired(items: list[Any]) -> dict[Any, Any]:
    """{key: value, ...} of [key, value, ...]; keys are plain, so that hashing cannot recurse."""
    if len(items) % 2:
        raise ValueError("a key without value")
    keys = items[::2]
    if not all(isinstance(key, str | int | float | None) for key in keys):
        raise TypeError("keys must be strings or numbers")
    return dict(zip(keys, items[1::2], strict=True))
