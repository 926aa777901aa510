"""convdsl.toml as data, and what is wrong in it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from convdsl.diagnostics import CompileError, Diagnostic, InputError, Label, SourceFile, Span
from convdsl.elaborate.files import ROOT_MARK, FileProblem, project_root, read_text
from convdsl.project import places
from convdsl.project.budgets import FIGURES, Budget, Limit, amount
from convdsl.spelling import nearest, those
from convdsl.syntax.limits import SOURCE_BYTES

if TYPE_CHECKING:
    from convdsl.sizes import Shapes

MODELS, BUDGET = "models", "budget"
TABLES = (MODELS, BUDGET)
BATCH, INPUT, SET = "batch", "input", "set"
KEYS = (*FIGURES, BATCH, INPUT, SET)
_SIZES = re.compile(r"\d+(?:x\d+)*", re.ASCII)
_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)$")
_BARE = re.compile(r"\s*([\w.-]+)\s*=\s*([\w./][\w./ -]*?)\s*(?:#.*)?$")  # a word that is no number


@dataclass(frozen=True, slots=True)
class Project:
    """What a project file says. `models` are patterns of files, as seen from its folder."""

    source: SourceFile
    folder: Path
    models: tuple[tuple[str, Span], ...] = ()
    budgets: tuple[Budget, ...] = ()

    def files(self) -> Iterator[Path]:
        """The files that `models` names, each once."""
        found: dict[Path, None] = {}
        for pattern, _ in self.models:
            found |= dict.fromkeys(sorted(self._matching(pattern)))
        return iter(found)

    def files_from_here(self) -> list[Path]:
        """The same, as seen from the current folder."""
        return [Path(os.path.relpath(path)) for path in self.files()]

    def unused(self, known: Iterable[tuple[Path, str]]) -> Iterator[Diagnostic]:
        """Budgets of none of the models there are, each with its file."""
        models = list(known)
        used = {id(budget) for file, name in models for budget in self.budgets_of(file, name)}
        for budget in self.budgets:
            if id(budget) not in used:
                text = f"no model is called `{budget.pattern}`"
                names = sorted({name for _, name in models})
                yield _wrong("E1104", text, budget.span, budget.pattern, names)

    def missing(self) -> Iterator[Diagnostic]:
        """Patterns that no file has."""
        for pattern, span in self.models:
            if not any(self._matching(pattern)):
                names = [p.name for p in self.folder.glob("*.cnn")]
                yield _wrong("E1104", f'"{pattern}" names no file', span, pattern, names)

    def _matching(self, pattern: str) -> Iterator[Path]:
        return (path for path in self.folder.glob(pattern) if path.is_file())

    def budgets_of(self, file: Path, model: str) -> Iterator[Budget]:
        """Those of a model in a file of the project."""
        try:
            shown = file.resolve().relative_to(self.folder).as_posix()
        except ValueError:
            shown = file.name
        return (budget for budget in self.budgets if budget.names(shown, model))


def project_of(file: Path) -> Path | None:
    """The project file of a model's file; None where there is none."""
    path = project_root(file) / ROOT_MARK
    return path if path.is_file() else None


def project_here() -> Project:
    """The project of the current folder, which lists models. InputError where there is none."""
    place = project_of(Path("x"))  # whatever is called so here belongs to it
    if place is None:
        raise InputError(f"no FILE is named, and no {ROOT_MARK} here or above lists models")
    project = read(place, os.path.relpath(place))
    if not project.models:
        raise InputError(f'{project.source.path} lists no models: models = ["net.cnn"]')
    return project


def read(path: Path, shown: str | None = None) -> Project:
    """The project file at `path`. Raises CompileError with all that is wrong."""
    try:
        text = read_text(path.resolve(), SOURCE_BYTES)
    except FileProblem as problem:
        raise CompileError([Diagnostic("E1101", problem.message)]) from None
    source = SourceFile(shown or str(path), text)
    try:
        reader = _Reader(source, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise CompileError([_unreadable(str(error), source)]) from None
    except RecursionError:
        raise CompileError([_unreadable("brackets within brackets without end", source)]) from None
    project = reader.project(path.resolve().parent)
    if reader.found:
        raise CompileError(reader.found)
    return project


def _unreadable(message: str, source: SourceFile) -> Diagnostic:
    """What `tomllib` says, at its place."""
    found = _PLACE.search(message)
    start = len(source.text.rstrip())
    if found is not None:
        lines = source.text.split("\n")
        start = sum(len(line) + 1 for line in lines[: int(found[1]) - 1]) + int(found[2]) - 1
    start = max(0, min(start, len(source.text) - 1))
    what = _PLACE.sub("", message).removesuffix(" (at end of document)")
    label = Label(source.span(start, min(start + 1, len(source.text))))
    text = f"this is no TOML: {what[:1].lower()}{what[1:]}"
    line = source.text[source.text.rfind("\n", 0, start) + 1 :].partition("\n")[0]
    bare = _BARE.match(line[:100])
    help = (f'text stands in quotes: {bare[1]} = "{bare[2]}"',) if bare else ()
    return Diagnostic("E1101", text, (label,) if source.text else (), help=help)


def _wrong(
    code: str, text: str, span: Span, word: str = "", known: list[str] | tuple[str, ...] = ()
) -> Diagnostic:
    near = nearest(word, known) if known else None
    told = f"did you mean `{near}`?" if near is not None else those(known)
    return Diagnostic(code, text, (Label(span),), help=(told,) if known else ())


class _Reader:
    """Walks a table; what is wrong is collected."""

    def __init__(self, source: SourceFile, table: Mapping[str, Any]) -> None:
        self.found: list[Diagnostic] = []
        self._source = source
        self._table = table
        self._places = places.places(source.text)

    def project(self, folder: Path) -> Project:
        self._unknown(self._table, (), TABLES, "table or list")
        return Project(self._source, folder, self._models(), tuple(self._budgets()))

    def _models(self) -> tuple[tuple[str, Span], ...]:
        given = self._table.get(MODELS, [])
        parts = cast("list[Any]", given if isinstance(given, list) else [given])
        made: list[tuple[str, Span]] = []
        for number, part in enumerate(parts):
            at = (MODELS, number) if isinstance(given, list) else (MODELS,)
            if not (isinstance(part, str) and _is_pattern(part)):
                self._kind(at, "a relative pattern of files below here", 'models = ["net.cnn"]')
            else:
                made.append((part, self._value(at)))
        return tuple(made)

    def _budgets(self) -> Iterator[Budget]:
        given = self._table.get(BUDGET, {})
        if not isinstance(given, dict):
            self._kind((BUDGET,), "a table for each model", "[budget.net]")
            return
        for name, entry in cast("dict[str, Any]", given).items():
            at: places.Path = (BUDGET, name)
            if isinstance(entry, list):
                for number, part in enumerate(cast("list[Any]", entry)):
                    yield from self._budget(name, part, (*at, number))
            else:
                yield from self._budget(name, entry, at)

    def _budget(self, name: str, entry: Any, at: places.Path) -> Iterator[Budget]:
        if not isinstance(entry, dict):
            near = nearest(name, FIGURES)
            example = f"[budget.net]\n{near} = ..." if near else "[budget.net]"
            self._kind(at, "a table of limits under a model's name", example)
            return
        table = cast("dict[str, Any]", entry)
        self._unknown(table, at, KEYS, "key")
        limits = tuple(self._limits(table, at))
        batch = table.get(BATCH)
        if batch is not None and not (_is_count(batch) and batch > 0):
            self._kind((*at, BATCH), "a whole number from 1 up", "batch = 8")
            batch = None
        given = table.get(SET, {})
        if not isinstance(given, dict):
            self._kind((*at, SET), "a table of parameters", "set = { classes = 10 }")
            given = {}
        parameters = cast("dict[str, Any]", given)
        spans = {key: self._value((*at, key)) for key in table}
        inputs = self._inputs(table, at)
        yield Budget(name, limits, self._key(at), spans, batch, inputs, parameters)

    def _limits(self, table: Mapping[str, Any], at: places.Path) -> Iterator[Limit]:
        for name, value in table.items():
            figure = FIGURES.get(name)
            if figure is None:
                continue
            limit = _amount(value)
            if limit is None:
                self._kind((*at, name), "a number from 0 up", f"{name} = 5000000, or "
                           f'"5M", "4.1G", "64MiB"')  # fmt: skip
            else:
                yield Limit(figure, limit, self._value((*at, name)))

    def _inputs(self, table: Mapping[str, Any], at: places.Path) -> Shapes:
        given = table.get(INPUT)
        if given is None:
            return None
        if not isinstance(given, dict):
            return self._sizes(given, (*at, INPUT))
        found = {
            name: self._sizes(text, (*at, INPUT, name))
            for name, text in cast("dict[str, Any]", given).items()
        }
        return {name: sizes for name, sizes in found.items() if sizes is not None}

    def _sizes(self, text: Any, at: places.Path) -> tuple[int, ...] | None:
        if isinstance(text, str) and _SIZES.fullmatch(text):
            sizes = tuple(int(size) for size in text.split("x"))
            if all(0 < size < 1 << 31 for size in sizes):
                return sizes
        self._kind(at, "a size without the batch", 'input = "3x224x224"')
        return None

    def _unknown(
        self, table: Mapping[str, Any], at: places.Path, known: tuple[str, ...], what: str
    ) -> None:
        for name in table:
            if name not in known:
                text = f"no {what} is called `{name}`"
                self.found.append(_wrong("E1102", text, self._key((*at, name)), name, known))

    def _kind(self, at: places.Path, wanted: str, example: str) -> None:
        what = f"`{at[-1]}`" if isinstance(at[-1], str) else "this"
        text, label = f"{what} has to be {wanted}", Label(self._value(at))
        self.found.append(Diagnostic("E1103", text, (label,), help=(f"write {example}",)))

    def _key(self, at: places.Path) -> Span:
        return self._source.span(*self._places.keys[at])

    def _value(self, at: places.Path) -> Span:
        return self._source.span(*self._places.values[at])


def _is_pattern(text: str) -> bool:
    """Whether it may name files in a folder or below."""
    if not text.strip("/.") or not text.isprintable() or ".." in Path(text).parts:
        return False
    try:
        return not any(Path(os.devnull).glob(text))
    except (ValueError, NotImplementedError):  # `**.cnn`; `/net.cnn`
        return False


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _amount(value: Any) -> int | None:
    convert: Callable[[str], int] = amount
    if isinstance(value, str):
        try:
            return convert(value)
        except ValueError:
            return None
    return value if _is_count(value) else None
