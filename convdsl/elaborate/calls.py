"""Arguments of calls: positions and keywords to attributes and parameters."""

from __future__ import annotations

import re
from typing import Any

from convdsl.diagnostics import Span
from convdsl.elaborate import channels_in, foreign
from convdsl.elaborate.attributes import Unsuitable, convert, wanted
from convdsl.elaborate.binding import Binding
from convdsl.elaborate.builtins import BUILTINS
from convdsl.elaborate.expressions import Evaluator
from convdsl.elaborate.misplaced import (
    Order,
    along,
    for_a_word,
    hidden_operator,
    is_a_tensor,
    meant,
    of_numbers,
)
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Stop, suggest
from convdsl.elaborate.signatures import Slot
from convdsl.elaborate.values import (
    NO_DEFAULTS,
    NOTHING,
    POISON,
    BlockValue,
    Given,
    Layer,
    ListValue,
    Operator,
    Record,
    describe,
    is_number,
    is_tensors,
    left_of,
)
from convdsl.ir.opdef import Attribute, Kind
from convdsl.ir.starts import STARTS
from convdsl.ops import SPELLINGS
from convdsl.syntax import ast


def flatten(given: Given) -> tuple[Given, ...]:
    """Tensors one by one, out of lists and records."""
    value = given.value
    if isinstance(value, ListValue):
        items: Any = value.items
    elif isinstance(value, Record):
        items = value.fields.values()
    else:
        return (given,)
    return tuple(flat for item in items for flat in flatten(Given(item, given.span)))


def listed(block: BlockValue) -> str:
    """How a list of tensors is handed to a block with parameters that declares no inputs."""
    if block.signature.operands or not block.signature.slots:
        return ""
    first = block.signature.slots[0].name
    by_name = f"a list is handed over by name: `{first} = [a, b]`"
    return f"declare them in the block: `input a, b`; {by_name}"


class Binder(Evaluator):
    """Turns calls of operators and blocks into layers."""

    def bind(
        self,
        factory: Operator | BlockValue,
        arguments: tuple[ast.Argument, ...],
        context: Context,
        span: Span,
        partly: bool = False,
    ) -> Layer:
        """The layer that the call makes; all its mistakes reported, then Stop.

        Defaults in force here are filled in; `partly` given ones stand alone and may lack some.
        """
        if not arguments and not factory.signature.required:
            op = factory.op if isinstance(factory, Operator) else None
            said = NO_DEFAULTS
            if op is not None and not partly:
                said = context.defaults.get(op.name, NO_DEFAULTS)
            return Layer(factory, said.arguments, said.starts, (), span)
        binding = Binding(factory, context, span)
        for argument in arguments:
            try:
                if argument.name is None:
                    self._positional(binding, argument)
                else:
                    self._keyword(binding, argument, argument.name)
            except Stop:
                binding.failed = True
        if not binding.failed and not partly:
            self._check_missing(binding)
        if binding.failed:
            raise Stop
        made, operands = binding.arguments, binding.operands
        said = NO_DEFAULTS if partly else binding.defaults()
        if said is not NO_DEFAULTS:
            operands = {**left_of(said.starts, made), **operands}
            made = {**said.arguments, **made}
        return Layer(factory, made, operands, tuple(binding.extra), span)

    # One argument

    def _positional(self, binding: Binding, argument: ast.Argument) -> None:
        slot = binding.next_slot()
        try:
            value = self._argument_value(argument, slot, binding)
        except Stop:
            binding.position += 1  # so that those behind it are judged by their own slots
            binding.adrift = binding.adrift or not binding.arguments
            raise
        given = Given(value, argument.value.span)
        if binding.adrift:
            raise Stop
        if not binding.arguments and is_tensors(value):
            binding.extra.extend(flatten(given))
            return
        if slot is None:
            if is_number(value) and binding.op is not None and binding.takes_more_tensors():
                binding.extra.append(given)
                return
            if binding.crowded:
                raise Stop
            binding.crowded = True
            raise self._too_many(binding, argument)
        binding.position += 1
        self._fill(binding, slot, given)

    def _keyword(self, binding: Binding, argument: ast.Argument, name: ast.Name) -> None:
        slot = binding.signature.by_name.get(name.id)
        is_weight = binding.op is not None and (
            slot is None or name.id in binding.signature.operands
        )
        value = self._start(argument, binding.context) if is_weight else None
        if value is None:
            value = self._argument_value(argument, slot, binding)
        given = Given(value, argument.value.span)
        if slot is None:
            if name.id not in binding.signature.operands:
                raise self._unknown(binding, name)
            binding.operands[name.id] = given
        elif binding.op is not None and binding.weighs(name.id, value):
            binding.operands[name.id] = given
            self._fill(binding, slot, Given(True, given.span), name.span)
        else:
            self._fill(binding, slot, given, name.span)

    def _start(self, argument: ast.Argument, context: Context) -> str | None:
        """The word that says what a weight starts from, where it is one."""
        node = argument.value
        if not isinstance(node, ast.Name) or self._known(node.id, context):
            return None
        return node.id if node.id in STARTS or foreign.start(node.id) else None

    def _argument_value(self, argument: ast.Argument, slot: Slot | None, binding: Binding) -> Any:
        node, context = argument.value, binding.context
        attribute = slot.attribute if slot is not None else None
        if attribute is not None and attribute.choices and isinstance(node, ast.Name):
            if node.id in attribute.choices and not context.scope.find(node.id)[0]:
                return node.id
            if not self._known(node.id, context):
                help = for_a_word(node, attribute, binding, argument.name is None)
                context.scope.names[node.id] = POISON  # told once
                text = f"`{attribute.name}` takes {wanted(attribute)}, not `{node.id}`"
                raise self.fail(context, "E0305", text, node.span, help=help)
        value = self.need(node, context)
        if value is NOTHING or value is POISON:
            raise Stop
        return value

    def _known(self, name: str, context: Context) -> bool:
        return context.scope.find(name)[0] or name in BUILTINS or name in SPELLINGS

    def _fill(
        self, binding: Binding, slot: Slot, given: Given, name_span: Span | None = None
    ) -> None:
        if slot.name in binding.arguments:
            first = binding.arguments[slot.name].span
            labels = ((first, "by name"),) if first is not None and name_span is None else ()
            positions = [s.name for s in binding.signature.positional]
            after = positions[positions.index(slot.name) + 1 :] if labels else []
            what = "what has no name comes first"
            raise self.fail(
                binding.context,
                "E0304",
                f"`{slot.name}` is given twice",
                name_span or given.span or binding.span,
                *labels,
                help=(f"{what}, or is called too: {after[0]} = ...",)
                if after
                else self._twice(binding, slot),
            )
        if slot.attribute is not None:
            moved = name_span is None and slot in binding.signature.positional
            misplaced = Order(binding, slot) if moved else None
            made = self.converted(slot.attribute, given, binding.context, misplaced)
            given = Given(made, given.span)
        binding.arguments[slot.name] = given

    def _twice(self, binding: Binding, slot: Slot) -> tuple[str, ...]:
        """Help for `conv(3, 64, kernel = 3)`: the second number is the kernel."""
        first = binding.arguments[slot.name].value
        if binding.op is not None and binding.takes_more_tensors():
            return (f"`{binding.factory.name}` takes another tensor: {_KNOWN_PLACE}",)
        two = "channels" in binding.arguments and slot.name == "kernel" and type(first) is int
        return (channels_in.KNOWN,) if two else ()

    def converted(
        self, attribute: Attribute, given: Given, context: Context, order: Order | None
    ) -> Any:
        """The argument as its attribute takes it, or Stop."""
        assert given.span is not None
        square = _SQUARE.fullmatch(given.span.text) if attribute.kind is Kind.SIZES else None
        if square:
            text = f"`{attribute.name}` is {given.value}, which `{square[0]}` comes to"
            help = (f"a size is written {square[1]}x{square[1]}",)
            self.session.warn("W0501", text, given.span, frames=context.frames, help=help)
        try:
            return convert(attribute, given.value, given.span.text)
        except Unsuitable as error:
            cause = (given.span.text, error.message)
            if cause[0].isidentifier() and cause in self.session.unfit:
                raise Stop from None  # the same value of the same name was told of before
            self.session.unfit.add(cause)
            help = error.help
            if order is not None and not help:
                if order.binding.shuffled:
                    raise Stop from None  # the order was told of
                help = order.help(given)
                order.binding.shuffled = bool(help)
            if not help and attribute.kind is Kind.ARRAY and type(given.value) is tuple:
                items = ", ".join(given.span.text.split("x"))
                help = (f"numbers of axes stand in a list: [{items}]",)
            raise self.fail(context, "E0305", error.message, given.span, help=help) from None

    # Objections

    def _too_many(self, binding: Binding, argument: ast.Argument) -> Stop:
        names = [slot.name for slot in binding.signature.positional]
        takes = f"({', '.join(names)})" if names else "none"
        help = ()
        later = [name for name in binding.signature.by_name if name not in names]
        if later:
            help = (f"by keyword only: {', '.join(later)}",)
        value = argument.value.value if isinstance(argument.value, ast.Literal) else None
        if is_a_tensor(argument.value, binding.context):
            help = (f"tensors come first: {binding.factory.name}(x, y, ...)",)
        help = (*meant(binding, value), *along(binding, argument), *help, *hidden_operator(binding))
        help = help or of_numbers(binding)
        return self.fail(
            binding.context,
            "E0303",
            f"too many arguments: `{binding.factory.name}` takes {takes}",
            argument.span,
            help=help,
        )

    def _unknown(self, binding: Binding, name: ast.Name) -> Stop:
        known = (*binding.signature.by_name, *binding.signature.operands)
        listing = ", ".join(dict.fromkeys(known)) if known else "no arguments"
        return self.fail(
            binding.context,
            "E0301",
            f"`{binding.factory.name}` has no argument `{name.id}`",
            name.span,
            help=hidden_operator(binding)
            or (binding.op is not None and foreign.argument(name.id, known))
            or suggest(name.id, known)
            or (f"it takes {listing}",),
        )

    def _check_missing(self, binding: Binding) -> None:
        missing = binding.missing()
        if not missing:
            return
        binding.failed = True
        names = " and ".join(f"`{name}`" for name in missing)
        slots = (binding.signature.by_name[name] for name in missing)
        help = tuple(f"`{s.name}`: {s.attribute.doc}" for s in slots if s.attribute is not None)
        factory = binding.factory
        if isinstance(factory, BlockValue) and len(binding.extra) > 1 and listed(factory):
            help = (listed(factory),)
        elif isinstance(factory, BlockValue):
            said = ", ".join(f"{name} = ..." for name in missing)
            help = (f"write `{factory.name}({said})`",)
        text = f"`{factory.name}` needs {names}"
        self.fail(binding.context, "E0302", text, binding.span, help=help)


def describe_call(layer: Layer) -> str:
    """`bottleneck(width = 64)`, for the chain of instantiations."""
    name = layer.factory.name
    shown = ", ".join(f"{n} = {_short(g.value)}" for n, g in layer.arguments.items())
    return f"{name}({shown})" if shown else name


def _short(value: Any) -> str:
    if type(value) is int:
        return str(value)
    from_text = describe(value) if not isinstance(value, int | float | str | tuple) else None
    text = from_text or (f'"{value}"' if isinstance(value, str) else _plain(value))
    return text if len(text) <= 40 else f"{text[:37]}..."


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownArgumentType]


_KNOWN_PLACE = "of a place that is known here, slice([0], 3, 4) -> squeeze([0])"

_SQUARE = re.compile(r"(\d+)[ \t]*\*[ \t]*\1")
"""`3*3`, which is 9."""
