"""What names stand for beyond the word itself: definitions across files, words of the language."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from convdsl.editing.project import Project, Reading
from convdsl.editing.symbols import RENAMED, Kind, Symbol
from convdsl.elaborate.builtins import BUILTINS, NUMBERS
from convdsl.elaborate.expressions import WORDS
from convdsl.elaborate.files import FileProblem
from convdsl.elaborate.values import BlockValue, Operator
from convdsl.ir.starts import STARTS
from convdsl.ir.techniques import LOSSES, ONE_OF, SETTINGS, SOME_OF, Technique
from convdsl.ops import SPELLINGS
from convdsl.syntax import ast

IMPORTS = 16
"""Files that an imported name may be handed on by."""


def exported(project: Project, place: Path, reading: Reading) -> dict[str, Symbol]:
    """The names that a file defines, imports among them, as what they are in the end."""
    return _exported(project, place, reading, 0)


def _exported(project: Project, place: Path, reading: Reading, depth: int) -> dict[str, Symbol]:
    found: dict[str, Symbol] = {}
    for item in reading.tree.items:
        match item:
            case ast.Block():
                found.setdefault(item.name.id, Symbol(Kind.BLOCK, item.name.id, "", place))
            case ast.Model():
                found.setdefault(item.name.id, Symbol(Kind.MODEL, item.name.id, "", place))
            case ast.Let():
                for target in item.targets:
                    found.setdefault(target.id, Symbol(Kind.VALUE, target.id, "", place))
            case ast.Use():
                for imported in item.names:
                    if imported.alias is not None:
                        id = imported.alias.id
                        found.setdefault(id, Symbol(Kind.ALIAS, id, "", place))
                    else:
                        symbol = imported_symbol(project, place, item, imported.name.id, depth)
                        found.setdefault(imported.name.id, symbol)
            case _:
                pass
    return found


def imported_symbol(project: Project, place: Path, use: ast.Use, name: str, depth: int) -> Symbol:
    """What a name is in the file that it is imported from."""
    unknown = Symbol(Kind.UNKNOWN, name, "", place)
    path = use.path.plain
    if path is None or depth >= IMPORTS:
        return unknown
    other = project.imported(place, path)
    if other is None:
        return unknown
    there = _exported(project, Path(other.source.path), other, depth + 1)
    return there.get(name, unknown)


def definition_of(
    project: Project, symbol: Symbol, depth: int = 0
) -> tuple[Reading, ast.Block | ast.Model] | None:
    """The block or model that a symbol is, whatever it is imported as."""
    if symbol.place is None or depth > IMPORTS:
        return None
    reading = _reading(project, symbol.place)
    if reading is None:
        return None
    if symbol.kind in (Kind.BLOCK, Kind.MODEL):
        found = reading.definitions.get(symbol.id)
        return None if found is None else (reading, found)
    if symbol.kind is Kind.ALIAS:
        meant = aliased(project, symbol)
        return None if meant is None else definition_of(project, meant, depth + 1)
    return None


def aliased(project: Project, symbol: Symbol) -> Symbol | None:
    """What `use ... as` gives another name."""
    reading = _reading(project, symbol.place) if symbol.place is not None else None
    for item in reading.tree.items if reading is not None else ():
        if not isinstance(item, ast.Use) or symbol.place is None:
            continue
        for imported in item.names:
            if imported.alias is not None and imported.alias.id == symbol.id:
                return imported_symbol(project, symbol.place, item, imported.name.id, 0)
    return None


def _reading(project: Project, place: Path) -> Reading | None:
    try:
        return project.reading(place)
    except (FileProblem, OSError):
        return None


def techniques_of(setting: str) -> Mapping[str, Technique]:
    """What a training setting chooses among."""
    if setting == "loss":
        return LOSSES
    return {**ONE_OF, **SOME_OF}.get(setting, {})


def settings() -> tuple[str, ...]:
    """What a `train` block may set."""
    return ("loss", *ONE_OF, *SOME_OF, *SETTINGS)


def builtin(name: str) -> Symbol | None:
    """What a name means where nothing is called so."""
    if name in BUILTINS:
        return Symbol(Kind.FUNCTION, name)
    if name in NUMBERS:
        return Symbol(Kind.CONSTANT, name)
    if name in SPELLINGS:
        return Symbol(Kind.OPERATOR, name)
    return Symbol(Kind.WORD, name) if name in WORDS or name in STARTS else None


def symbol_of(factory: Operator | BlockValue) -> Symbol:
    """What elaboration calls an operator or block."""
    if isinstance(factory, Operator):
        return Symbol(Kind.OPERATOR, factory.op.name)
    definition = factory.definition
    kind = Kind.BLOCK if isinstance(definition, ast.Block) else Kind.MODEL
    return Symbol(kind, factory.name, "", Path(definition.span.source.path))


def inputs_of(definition: ast.Block | ast.Model) -> list[str]:
    """The inputs that a definition declares."""
    statements = (s for s in definition.body.statements if isinstance(s, ast.Input))
    return [name.id for statement in statements for name in statement.names]


def may_be_renamed(symbol: Symbol) -> bool:
    """Whether a text defines the symbol."""
    return symbol.kind in RENAMED and symbol.place is not None
