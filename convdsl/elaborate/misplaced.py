"""What arguments were meant for that stand in places which do not take them: the helps."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from convdsl.elaborate import foreign
from convdsl.elaborate.attributes import Unsuitable, convert, hexadecimal, word
from convdsl.elaborate.binding import Binding
from convdsl.elaborate.scope import Context
from convdsl.elaborate.signatures import Slot
from convdsl.elaborate.values import Given, is_number, is_tensors
from convdsl.ir.opdef import Attribute, Kind, no_state
from convdsl.ops import BY_NAME, SPELLINGS
from convdsl.syntax import ast
from convdsl.tensor import SymDim


def for_a_word(
    node: ast.Name, attribute: Attribute, binding: Binding, placed: bool
) -> tuple[str, ...]:
    """Help for a word that an attribute of some words does not take: `placed`, by its position."""
    slot = binding.signature.by_name.get(attribute.name)
    moved = placed and slot is not None and slot in binding.signature.positional
    return (
        word(attribute, node.id)
        or (Order(binding, slot).help(Given(node.id, node.span)) if moved and slot else ())
        or foreign.name(node.id)
    )


class Order:
    """An argument by position, which may be meant for another slot."""

    __slots__ = ("binding", "slot")

    def __init__(self, binding: Binding, slot: Slot) -> None:
        self.binding = binding
        self.slot = slot

    def _of_a_number(self) -> tuple[str, ...]:
        """Help for a number where a list, or true or false, should stand."""
        op, attribute = self.binding.op, self.slot.attribute
        if op is None or attribute is None:
            return ()
        if attribute.kind is Kind.SHAPE:
            self.binding.crowded = True  # those behind it were meant for the list, too
            alone = _ALONE.search(self.binding.span.text)
            sizes = alone[1] if alone is not None else "..., ..."
            return (f"a list of sizes: {self.binding.factory.name}([{sizes}])",)
        has_weights = op.state is not no_state
        if attribute.name == "shared":
            return (f"one slope for each channel: {self.binding.factory.name}(false)",)
        return _INCOMING if attribute.kind is Kind.BOOL and has_weights else ()

    def _of_a_list(self, given: Given) -> str:
        """For a size, the argument that is a list of sizes, if there is one."""
        if type(given.value) is not tuple:
            return ""
        slots = self.binding.signature.by_name.items()
        lists = (n for n, slot in slots if slot.attribute and slot.attribute.kind is Kind.SHAPE)
        return next(lists, "")

    def help(self, given: Given) -> tuple[str, ...]:
        """Where another slot takes the value; numbers and lists fit too many to mean one."""
        if is_number(given.value) or isinstance(given.value, SymDim):
            return self._of_a_number()
        if type(given.value) not in (bool, str, tuple):
            return ()
        shown = given.span.text if given.span is not None else "it"
        if help := hexadecimal(shown):
            return help
        slots = self.binding.signature.positional
        if listed := self._of_a_list(given):
            return (f"a size by name: {listed} = {shown}",)
        for index, other in enumerate(slots):
            if other is self.slot or other.attribute is None:
                continue
            try:
                convert(other.attribute, given.value)
            except Unsuitable:
                continue
            last = max(index, slots.index(self.slot)) + 1
            names = ", ".join(slot.name for slot in slots[:last])
            order = f"{self.binding.factory.name}({names}{', ...' if slots[last:] else ''})"
            return (f"`{shown}` would be `{other.name}`; the order is {order}",)
        return ()


_ALONE = re.compile(r"\([ ]*(\w+)[ ]*\)\Z")
"""The only argument of a call."""


def meant(binding: Binding, value: object) -> tuple[str, ...]:
    """What a number too many was meant for: part of a list, or channels that follow from what flows
    in."""
    if type(value) is not int or binding.op is None:
        return ()
    last = binding.signature.positional[-1:]
    kinds = [slot.attribute.kind for slot in last if slot.attribute is not None]
    if binding.factory.name in ("transpose", "permute"):
        axes = _GIVEN.search(binding.span.text)
        given = [int(axis) for axis in axes[1].split(",")] if axes is not None else []
        whole = sorted(given) == list(range(len(given))) and len(given) > 2
        order = str(given) if whole else _EXCHANGED.get((*sorted(given),), "[0, 2, 1, 3]")
        return (f"all axes in their new order, one list: transpose({order})",)
    if kinds == [Kind.SIZES] and len(binding.signature.positional) == 1:
        first = binding.arguments.get(last[0].name)
        both = f"{first.value}x{value}" if first and type(first.value) is int else "1x1"
        return (f"a size is one word: {binding.factory.name}({both})",)
    if {Kind.INTS, Kind.SHAPE} & set(kinds):
        return (f"several are one list: {binding.factory.name}([..., {value}])",)
    return _INCOMING if binding.op.state is not no_state else ()


_GIVEN = re.compile(r"\(\s*(-?\d+(?:\s*,\s*-?\d+)*)\s*\)\s*\Z")


_EXCHANGED: Mapping[tuple[int, ...], str] = {
    (1, 2): "[0, 2, 1]), of four axes transpose([0, 2, 1, 3]",
    (-2, -1): "[0, 2, 1]), of four axes transpose([0, 1, 3, 2]",
    (2, 3): "[0, 1, 3, 2]",
    (0, 1): "[1, 0]), of three axes transpose([1, 0, 2]",
}
"""What PyTorch's `transpose` of two axes is in the whole order."""


def of_numbers(binding: Binding) -> tuple[str, ...]:
    """Help for a function of mathematics that numbers are given to."""
    name = binding.factory.name
    if binding.op is not None and name == "relu":
        return ("with a slope below zero it is leaky_relu(0.1), up to 6 it is relu6",)
    if binding.op is None or not hasattr(math, name):
        return ()
    table = "parameter([4], weight = [0.5, 1, 1.5, 2])"
    return (f"`{name}` is of tensors, x -> {name}; of a table of numbers {table} -> {name}",)


def is_a_tensor(node: ast.Expression, context: Context) -> bool:
    """Whether the name of a tensor stands there."""
    return isinstance(node, ast.Name) and is_tensors(context.scope.find(node.id)[1])


def along(binding: Binding, argument: ast.Argument) -> tuple[str, ...]:
    """Help for axes where the operator goes element by element and another along axes."""
    name = f"reduce_{binding.factory.name}"
    if name not in BY_NAME or not isinstance(argument.value, ast.Items):
        return ()
    return (f"along axes it is {name}({argument.value.span.text})",)


_INCOMING = ("the number of channels that flow in is known: leave it out",)


def hidden_operator(binding: Binding) -> tuple[str, ...]:
    """Where a block or a model has the name of an operator, which may have been meant."""
    name = binding.factory.name
    if binding.op is not None or name not in SPELLINGS:
        return ()
    return (f"`{name}` is what this file calls so, and hides the operator: give it another name",)
