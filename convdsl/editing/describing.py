"""What to say of a symbol: its signature, and what it means."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

from convdsl.editing.meanings import aliased, builtin, definition_of, techniques_of
from convdsl.editing.project import Project, Reading
from convdsl.editing.symbols import Kind, Symbol
from convdsl.elaborate.builtins import BUILTINS
from convdsl.elaborate.images import STEPS
from convdsl.elaborate.values import format_value
from convdsl.ir.graph import Value
from convdsl.ir.opdef import Attribute, OpDef, Required, Role
from convdsl.ir.starts import STARTS
from convdsl.ir.techniques import ONE_OF, SETTINGS, SOME_OF, Needed, Technique
from convdsl.ir.techniques import Argument as TechniqueArgument
from convdsl.ir.text import format_attribute
from convdsl.ops import SPELLINGS
from convdsl.syntax import ast
from convdsl.tensor import format_shape

LONGEST = 60
"""Characters of a value that is shown in passing."""


@dataclass(frozen=True, slots=True)
class Slot:
    """An argument that a call takes."""

    label: str  # as in the signature: `stride = 1`
    name: str
    doc: str = ""
    choices: tuple[str, ...] = ()
    needed: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """How something is called, and what it means."""

    name: str
    slots: tuple[Slot, ...]
    doc: str

    @property
    def label(self) -> str:
        return f"{self.name}({', '.join(slot.label for slot in self.slots)})"


def signature(project: Project, symbol: Symbol) -> Signature | None:
    """How a symbol is called, if it can be."""
    if symbol.kind is Kind.ALIAS:
        meant = aliased(project, symbol)
        return signature(project, meant) if meant is not None else None
    if symbol.kind is Kind.OPERATOR:
        return of_operator(SPELLINGS[symbol.id], symbol.id)
    if symbol.kind is Kind.FUNCTION:
        found = BUILTINS[symbol.id]
        return Signature(symbol.id, (), found.doc)
    if symbol.kind is Kind.TECHNIQUE:
        technique = techniques_of(symbol.owner).get(symbol.id)
        return of_technique(technique) if technique is not None else None
    if symbol.kind is Kind.STEP:
        return Signature(symbol.id, tuple(Slot(name, name) for name in STEPS[symbol.id]), "")
    definition = definition_of(project, symbol)
    return of_definition(*definition) if definition is not None else None


def of_operator(op: OpDef, spelling: str) -> Signature:
    """An operator's: its attributes, then the weights that may be given. `bias` is both
    in some, whether there is one and which, and is named once."""
    weights = [o.name for o in op.operands if o.role is not Role.DATA]
    slots: list[Slot] = []
    for attribute in op.attributes:
        slot = _attribute(attribute)
        if slot.name in weights:
            weights.remove(slot.name)
            slot = replace(slot, doc=f"{slot.doc}; or a tensor in its place")
        slots.append(slot)
    said = "a weight: numbers, a tensor, or what it starts from"
    slots += [Slot(name, name, said) for name in weights]
    return Signature(spelling, tuple(slots), inspect.cleandoc(op.doc))


def _attribute(attribute: Attribute) -> Slot:
    name, doc = attribute.name, attribute.doc
    if not isinstance(attribute.default, Required):
        return Slot(_with(name, attribute.default), name, doc, attribute.choices)
    return Slot(name, name, doc, attribute.choices, needed=True)


def _with(name: str, default: Any) -> str:
    """`stride = 1`; where nothing that is written stands for the default, the name alone."""
    return name if default is None else f"{name} = {format_attribute(default)}"


def of_technique(technique: Technique) -> Signature:
    """What training chooses among."""
    slots = tuple(_taken(argument) for argument in technique.arguments)
    return Signature(technique.name, slots, technique.doc)


def _taken(argument: TechniqueArgument) -> Slot:
    doc = f"{argument.takes.words}: {argument.doc}"
    plain = isinstance(argument.default, int | float | str)
    label = _with(argument.name, argument.default) if plain else argument.name
    needed = isinstance(argument.default, Needed)
    return Slot(label, argument.name, doc, argument.takes.choices, needed)


def of_definition(reading: Reading, definition: ast.Block | ast.Model) -> Signature:
    """A block's or a model's: its parameters as written, and the comment above it."""
    slots = tuple(
        Slot(p.span.text, p.name.id, needed=p.default is None) for p in definition.parameters
    )
    return Signature(definition.name.id, slots, comment_above(reading.text, definition.span.start))


def comment_above(text: str, start: int) -> str:
    """The comment in the lines right above a place."""
    lines: list[str] = []
    for line in reversed(text[:start].split("\n")[:-1]):
        if not line.lstrip().startswith("#"):
            break
        lines.append(line.strip().lstrip("#").strip())
    return "\n".join(reversed(lines))


def documented(project: Project, symbol: Symbol) -> str:
    """A symbol as Markdown: its signature, and what it means."""
    called = signature(project, symbol)
    if called is not None:
        word = "" if symbol.kind in (Kind.OPERATOR, Kind.FUNCTION) else f"{symbol.kind.value} "
        return "\n\n".join(filter(None, (fenced(f"{word}{called.label}"), _prose(called.doc))))
    meaning = _meaning(project, symbol)
    head = f"{symbol.kind.value} `{symbol.id}`"
    return f"{head}: {meaning}" if meaning else head


def _meaning(project: Project, symbol: Symbol) -> str:
    """What is known of a symbol that is not called."""
    if symbol.kind is Kind.SETTING:
        return _setting(symbol.id)
    if symbol.kind is Kind.WORD and symbol.id in STARTS:
        return f"a weight starts from {STARTS[symbol.id].doc}"
    if symbol.kind is not Kind.ATTRIBUTE:
        return ""
    owner = builtin(symbol.owner)
    if owner is not None and owner.kind is Kind.FUNCTION and symbol.owner in SPELLINGS:
        owner = Symbol(Kind.OPERATOR, symbol.owner)
    found = signature(project, owner) if owner is not None else None
    if found is None:
        technique = next((t[symbol.owner] for t in _tables() if symbol.owner in t), None)
        found = of_technique(technique) if technique is not None else None
    slots = found.slots if found is not None else ()
    slot = next((slot for slot in slots if slot.name == symbol.id), None)
    if slot is None:
        return ""
    words = f" ({', '.join(f'`{choice}`' for choice in slot.choices)})" if slot.choices else ""
    return f"{slot.doc}{words}\n\n{fenced(slot.label)}"


def _tables() -> list[Any]:
    return [techniques_of(name) for name in ("loss", *ONE_OF, *SOME_OF)]


def _setting(name: str) -> str:
    argument = SETTINGS.get(name)
    if argument is not None:
        return f"{argument.takes.words}: {argument.doc}"
    known = techniques_of(name)
    return f"one of {', '.join(known)}" if known else ""


def fenced(code: str) -> str:
    """A line of the language, as Markdown."""
    return f"```cnn\n{code}\n```"


def _prose(doc: str) -> str:
    """Paragraphs; what is indented is code."""
    lines = doc.split("\n")
    return "\n".join(line if line.startswith("    ") else _escaped(line) for line in lines)


def _escaped(line: str) -> str:
    """A line in which nothing but backticks means something."""
    parts = line.split("`")
    for index in range(0, len(parts), 2):
        for sign in "\\*_<[":
            parts[index] = parts[index].replace(sign, f"\\{sign}")
    return "`".join(parts)


def shown(value: Any) -> str:
    """A value in passing: a tensor's shape, or the value as it is written, cut short."""
    if isinstance(value, Value):
        return format_shape(value.type.shape)
    text = format_value(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
