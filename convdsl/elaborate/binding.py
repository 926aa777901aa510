"""The state of a call whose arguments are being bound."""

from __future__ import annotations

from typing import Any

from convdsl.diagnostics import Span
from convdsl.elaborate import foreign
from convdsl.elaborate.scope import Context
from convdsl.elaborate.signatures import Slot
from convdsl.elaborate.values import (
    NO_DEFAULTS,
    BlockValue,
    Given,
    Initial,
    ListValue,
    Operator,
    Said,
)
from convdsl.ir.graph import Value
from convdsl.ir.starts import STARTS


class Binding:
    """The state of binding one call."""

    __slots__ = (
        "adrift", "arguments", "context", "crowded", "extra", "factory", "failed", "op", "operands",
        "position", "shuffled", "signature", "span",
    )  # fmt: skip

    def __init__(self, factory: Operator | BlockValue, context: Context, span: Span) -> None:
        self.factory = factory
        self.signature = factory.signature
        self.op = factory.op if isinstance(factory, Operator) else None
        self.context = context
        self.span = span
        self.arguments: dict[str, Given] = {}
        self.operands: dict[str, Given] = {}
        self.extra: list[Given] = []
        self.position = 0
        self.failed = False
        self.shuffled = False  # an argument that another slot takes was reported
        self.crowded = False  # one argument too many was reported
        self.adrift = (
            False  # one failed that may have been a tensor: who knows whose slots these are
        )

    def next_slot(self) -> Slot | None:
        slots = self.signature.positional
        return slots[self.position] if self.position < len(slots) else None

    def weighs(self, name: str, value: Any) -> bool:
        """Whether the value is itself the weight that an attribute asks for: `bias = shift`, a list
        of numbers, which is a constant, or what it starts from, a number or a word."""
        starts = value in STARTS or foreign.start(value) if isinstance(value, str) else False
        said = starts or isinstance(value, Value | ListValue | Initial)
        return bool(said) and name in self.signature.operands

    def takes_more_tensors(self) -> bool:
        """Whether a number can stand for a tensor that the operator still lacks."""
        wanted = self.op.data_operands if self.op is not None else ()
        fixed = not any(operand.variadic for operand in wanted)
        return fixed and len(wanted) > max(1, len(self.extra))

    def missing(self) -> list[str]:
        defaults = self.defaults().arguments
        return [
            name
            for name in self.signature.required
            if name not in self.arguments and name not in defaults
        ]

    def defaults(self) -> Said:
        """What `default` statements say of the operator, here."""
        if self.op is None:
            return NO_DEFAULTS
        return self.context.defaults.get(self.op.name, NO_DEFAULTS)
