"""What calls of operators and blocks may say: worked out once, looked up at every call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from convdsl.ir.opdef import Attribute, OpDef, Required, Role
from convdsl.ops import OPERATORS
from convdsl.syntax import ast


@dataclass(frozen=True, slots=True)
class Slot:
    """Something an argument can fill: an operator's attribute or a block's parameter."""

    name: str
    attribute: Attribute | None


@dataclass(frozen=True, slots=True)
class Signature:
    """The slots of an operator or block, and the tensors that are given by name."""

    slots: tuple[Slot, ...]
    operands: tuple[str, ...]  # weights of an operator, declared inputs of a block
    required: tuple[str, ...]
    positional: tuple[Slot, ...] = field(init=False)
    by_name: Mapping[str, Slot] = field(init=False)

    def __post_init__(self) -> None:
        free = (s for s in self.slots if s.attribute is None or not s.attribute.keyword_only)
        object.__setattr__(self, "positional", tuple(free))
        object.__setattr__(self, "by_name", {slot.name: slot for slot in self.slots})


@lru_cache(maxsize=2 * len(OPERATORS))
def of_operator(op: OpDef) -> Signature:
    """An operator takes its attributes, and fixed kernels by the names of its weights."""
    return Signature(
        tuple(Slot(attribute.name, attribute) for attribute in op.attributes),
        tuple(operand.name for operand in op.operands if operand.role is not Role.DATA),
        tuple(a.name for a in op.attributes if isinstance(a.default, Required)),
    )


def of_definition(definition: ast.Block | ast.Model) -> Signature:
    """A block takes its parameters, and its inputs by the names that it declares."""
    inputs = (s for s in definition.body.statements if isinstance(s, ast.Input))
    return Signature(
        tuple(Slot(parameter.name.id, None) for parameter in definition.parameters),
        tuple(name.id for statement in inputs for name in statement.names),
        tuple(p.name.id for p in definition.parameters if not p.default),
    )
