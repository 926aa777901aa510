"""Arguments of calls: positions and keywords to attributes and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.diagnostics import Span
from convdsl.elaborate.attributes import Unsuitable, convert, wanted
from convdsl.elaborate.builtins import BUILTINS
from convdsl.elaborate.expressions import Evaluator
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Stop, suggest
from convdsl.elaborate.values import (
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
)
from convdsl.ir.opdef import Attribute, OpDef, Required, Role
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


def declared_inputs(definition: ast.Block | ast.Model) -> tuple[ast.Name, ...]:
    """The names that a block's `input` statements declare, in order."""
    inputs = (s for s in definition.body.statements if isinstance(s, ast.Input))
    return tuple(name for statement in inputs for name in statement.names)


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
        binding = _Binding(factory, context, span)
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
        made = binding.arguments if partly else {**binding.defaults(), **binding.arguments}
        return Layer(factory, made, binding.operands, tuple(binding.extra), span)

    # One argument

    def _positional(self, binding: _Binding, argument: ast.Argument) -> None:
        slot = binding.next_slot()
        try:
            value = self._argument_value(argument, slot, binding.context)
        except Stop:
            binding.position += 1  # so that those behind it are judged by their own slots
            raise
        given = Given(value, argument.value.span)
        if is_tensors(value) and not binding.arguments:
            binding.extra.extend(flatten(given))
            return
        if slot is None:
            if is_number(value) and binding.op is not None and binding.takes_more_tensors():
                binding.extra.append(given)
                return
            raise self._too_many(binding, argument)
        binding.position += 1
        self._fill(binding, slot, given)

    def _keyword(self, binding: _Binding, argument: ast.Argument, name: ast.Name) -> None:
        slot = binding.slot(name.id)
        value = self._argument_value(argument, slot, binding.context)
        given = Given(value, argument.value.span)
        if slot is None:
            if name.id not in binding.operand_names():
                raise self._unknown(binding, name)
            binding.operands[name.id] = given
        else:
            self._fill(binding, slot, given, name.span)

    def _argument_value(self, argument: ast.Argument, slot: _Slot | None, context: Context) -> Any:
        node = argument.value
        if (
            isinstance(node, ast.Name)
            and slot is not None
            and slot.attribute is not None
            and node.id in slot.attribute.choices
            and not context.scope.find(node.id)[0]
        ):
            return node.id
        if (
            isinstance(node, ast.Name)
            and slot is not None
            and slot.attribute is not None
            and slot.attribute.choices
            and not self._known(node.id, context)
        ):
            raise self.fail(
                context,
                "E0305",
                f"`{slot.name}` takes {wanted(slot.attribute)}, not `{node.id}`",
                node.span,
                help=suggest(node.id, slot.attribute.choices),
            )
        value = self.need(node, context)
        if value is NOTHING or value is POISON:
            raise Stop
        return value

    def _known(self, name: str, context: Context) -> bool:
        return context.scope.find(name)[0] or name in BUILTINS or name in SPELLINGS

    def _fill(
        self, binding: _Binding, slot: _Slot, given: Given, name_span: Span | None = None
    ) -> None:
        if slot.name in binding.arguments:
            raise self.fail(
                binding.context,
                "E0304",
                f"`{slot.name}` is given twice",
                name_span or given.span or binding.span,
            )
        if slot.attribute is not None:
            given = Given(self.converted(slot.attribute, given, binding.context), given.span)
        binding.arguments[slot.name] = given

    def converted(self, attribute: Attribute, given: Given, context: Context) -> Any:
        """The argument as its attribute takes it, or Stop."""
        try:
            return convert(attribute, given.value)
        except Unsuitable as error:
            assert given.span is not None
            raise self.fail(context, "E0305", error.message, given.span, help=error.help) from None

    # Objections

    def _too_many(self, binding: _Binding, argument: ast.Argument) -> Stop:
        names = binding.positional_names()
        takes = f"({', '.join(names)})" if names else "none"
        help = ()
        later = [name for name in binding.names() if name not in names]
        if later:
            help = (f"by keyword only: {', '.join(later)}",)
        return self.fail(
            binding.context,
            "E0303",
            f"too many arguments: `{binding.name}` takes {takes}",
            argument.span,
            help=help,
        )

    def _unknown(self, binding: _Binding, name: ast.Name) -> Stop:
        known = (*binding.names(), *binding.operand_names())
        listing = ", ".join(known) if known else "no arguments"
        return self.fail(
            binding.context,
            "E0301",
            f"`{binding.name}` has no argument `{name.id}`",
            name.span,
            help=suggest(name.id, known) or (f"it takes {listing}",),
        )

    def _check_missing(self, binding: _Binding) -> None:
        missing = binding.missing()
        if not missing:
            return
        binding.failed = True
        names = " and ".join(f"`{name}`" for name in missing)
        help = tuple(f"`{a.name}`: {a.doc}" for a in binding.attributes() if a.name in missing)
        self.fail(
            binding.context, "E0302", f"`{binding.name}` needs {names}", binding.span, help=help
        )


class _Slot:
    """Something an argument can fill: an operator's attribute or a block's parameter."""

    __slots__ = ("attribute", "name")

    def __init__(self, name: str, attribute: Attribute | None) -> None:
        self.name = name
        self.attribute = attribute


class _Binding:
    """The state of binding one call."""

    def __init__(self, factory: Operator | BlockValue, context: Context, span: Span) -> None:
        self.factory = factory
        self.context = context
        self.span = span
        self.arguments: dict[str, Given] = {}
        self.operands: dict[str, Given] = {}
        self.extra: list[Given] = []
        self.position = 0
        self.failed = False

    @property
    def op(self) -> OpDef | None:
        return self.factory.op if isinstance(self.factory, Operator) else None

    @property
    def name(self) -> str:
        return self.factory.spelling if isinstance(self.factory, Operator) else self.factory.name

    def attributes(self) -> tuple[Attribute, ...]:
        return self.op.attributes if self.op else ()

    def parameters(self) -> tuple[ast.Parameter, ...]:
        return () if isinstance(self.factory, Operator) else self.factory.definition.parameters

    def names(self) -> tuple[str, ...]:
        if self.op:
            return tuple(a.name for a in self.op.attributes)
        return tuple(p.name.id for p in self.parameters())

    def positional_names(self) -> tuple[str, ...]:
        if self.op:
            return tuple(a.name for a in self.op.attributes if not a.keyword_only)
        return self.names()

    def operand_names(self) -> tuple[str, ...]:
        if self.op:
            return tuple(o.name for o in self.op.operands if o.role is not Role.DATA)
        assert isinstance(self.factory, BlockValue)
        return tuple(name.id for name in declared_inputs(self.factory.definition))

    def slot(self, name: str) -> _Slot | None:
        if self.op:
            attribute = self.op.attribute(name)
            return _Slot(name, attribute) if attribute else None
        return _Slot(name, None) if name in self.names() else None

    def next_slot(self) -> _Slot | None:
        names = self.positional_names()
        return self.slot(names[self.position]) if self.position < len(names) else None

    def takes_more_tensors(self) -> bool:
        """Whether a number can stand for a tensor that the operator still lacks."""
        wanted = self.op.data_operands if self.op is not None else ()
        fixed = not any(operand.variadic for operand in wanted)
        return fixed and len(wanted) > max(1, len(self.extra))

    def missing(self) -> list[str]:
        if self.op is None:
            given = self.arguments
            return [
                p.name.id for p in self.parameters() if not p.default and p.name.id not in given
            ]
        given = {**self.defaults(), **self.arguments}
        unset = (a.name for a in self.op.attributes if isinstance(a.default, Required))
        return [name for name in unset if name not in given]

    def defaults(self) -> Mapping[str, Given]:
        """What `default` statements say of the operator, here."""
        return self.context.defaults.get(self.op.name, {}) if self.op else {}


def describe_call(layer: Layer) -> str:
    """`bottleneck(width = 64)`, for the chain of instantiations."""
    factory = layer.factory
    name = factory.spelling if isinstance(factory, Operator) else factory.name
    shown = ", ".join(f"{n} = {_short(g.value)}" for n, g in layer.arguments.items())
    return f"{name}({shown})" if shown else name


def _short(value: Any) -> str:
    from_text = describe(value) if not isinstance(value, int | float | str | tuple) else None
    text = from_text or (f'"{value}"' if isinstance(value, str) else _plain(value))
    return text if len(text) <= 40 else f"{text[:37]}..."


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownArgumentType]
