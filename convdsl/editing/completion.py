"""What could be written next, while the text before is any text at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from convdsl.editing.describing import Signature, documented, of_definition, signature
from convdsl.editing.meanings import (
    builtin,
    definition_of,
    exported,
    inputs_of,
    settings,
    techniques_of,
)
from convdsl.editing.places import CallAround, Place
from convdsl.editing.project import Reading
from convdsl.editing.symbols import Kind, Symbol
from convdsl.editing.view import View
from convdsl.editing.words import Word
from convdsl.elaborate.builtins import BUILTINS, NUMBERS, TENSOR_ATTRIBUTES
from convdsl.elaborate.files import ZOO, project_root
from convdsl.elaborate.images import FILTERS, STEPS
from convdsl.ir.techniques import SETTINGS
from convdsl.ops import SPELLINGS
from convdsl.syntax.layout import CLOSERS
from convdsl.syntax.parser import expected
from convdsl.syntax.words import KEYWORDS
from convdsl.tensor import LANGUAGE_DTYPES

FILES = 200
"""Files of a folder that an import may be of."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A word that could stand at a place: from `start` on it takes the place of what is there.
    `snippet` is what is written where it takes arguments, with `$0` where they go."""

    label: str
    kind: Kind | None  # None: a word of the language's own
    start: int
    detail: str = ""
    doc: str = ""
    text: str = ""
    snippet: str = ""
    order: str = "5"

    @property
    def inserted(self) -> str:
        return self.text or self.label


def call_at(view: View, offset: int) -> tuple[CallAround, list[Signature]] | None:
    """The call that is open at an offset, and how what it calls is called."""
    place = Place(view.text, offset)
    call = None if place.in_comment else place.call(around_lists=True)
    if call is None:
        return None
    found = [signature(view.project, symbol) for symbol in _callees(view, place, call)]
    known = [one for one in found if one is not None and one.slots]
    return (call, known) if known else None


def complete(view: View, reading: Reading, offset: int) -> list[Proposal]:
    """What could be written at an offset of the text. `reading` is of the text as it is, whose
    broken items have no tree; what those bound is known from before."""
    place = Place(view.text, offset)
    if place.in_comment:
        return []
    if place.string is not None:
        return list(_in_string(view, place, place.string))
    return list(dict.fromkeys(_proposals(view, reading, place)))


def _proposals(view: View, reading: Reading, place: Place) -> Iterator[Proposal]:
    if place.last() == ".":
        for name in TENSOR_ATTRIBUTES:
            yield Proposal(name, Kind.PART, place.start, "part of a tensor")
        return
    if place.first() == "use" and place.last() in (":", ","):
        yield from _imports(view, place)
        return
    if place.first() == "train" and place.is_open:
        yield from _training(view, reading, place)
        return
    if place.first() == "preprocess" or _in_steps(place):
        yield from _steps(place)
    if _in_type(place):
        for dtype in LANGUAGE_DTYPES:
            yield Proposal(str(dtype), Kind.DTYPE, place.start, "element type", text=f"{dtype}")
        return
    possible = expected(place.before[: place.start])
    keywords = possible if possible is not None else frozenset[str]()
    yield from _arguments(view, place)
    if possible is None or {"INT", "LPAR"} & possible:
        yield from _values(view, reading, place)
    elif place.first() == "default":
        yield from _operators(view, place)
    for word in sorted(KEYWORDS):
        if word.upper() in keywords:
            yield Proposal(word, None, place.start, order="6")


def _in_type(place: Place) -> bool:
    """Whether an element type comes: after the colon of an input."""
    return place.last() == ":" and "input" in [word.text for word in place.words[-6:]]


def _in_steps(place: Place) -> bool:
    """Whether a step of preprocessing comes: in a statement that begins with the word."""
    line = re.split(r"\n(?!\s*->)", place.head)[-1]
    return line.lstrip().startswith("preprocess ") and ":" in line


def _steps(place: Place) -> Iterator[Proposal]:
    call = place.call()
    if call is not None and call.callee in STEPS:
        for name in STEPS[call.callee]:
            if name not in call.keywords:
                yield Proposal(name, Kind.ATTRIBUTE, place.start, text=f"{name} = ", order="1")
        for name in FILTERS if call.callee == "resize" else ():
            yield Proposal(name, Kind.WORD, place.start, "filter", order="1")
    elif place.last() in (":", "->"):
        for name, arguments in STEPS.items():
            detail = f"{name}({', '.join(arguments)})"
            snippet = f"{name}($0)"
            yield Proposal(name, Kind.STEP, place.start, detail, snippet=snippet, order="1")


# Names


def _values(view: View, reading: Reading, place: Place) -> Iterator[Proposal]:
    """Names that are bound, then blocks, operators and functions."""
    last = "2" if place.last() != "->" else "5"  # behind an arrow stands a layer
    for name, kind in _bound(view, reading, place).items():
        yield Proposal(name, kind, place.start, kind.value, order=last)
    own = view.analysis.place
    visible = {**exported(view.project, own, view.analysis.reading)}
    visible |= exported(view.project, own, reading)
    around = _definition(place)
    for name, symbol in visible.items():
        if name != around:
            yield _called(view, place, name, symbol, "3")
    yield from _operators(view, place)
    for name in BUILTINS:
        if name not in SPELLINGS:
            yield _called(view, place, name, Symbol(Kind.FUNCTION, name), "5")
    for name in NUMBERS:
        yield Proposal(name, Kind.CONSTANT, place.start, order="7")


def _operators(view: View, place: Place) -> Iterator[Proposal]:
    for name in SPELLINGS:
        yield _called(view, place, name, Symbol(Kind.OPERATOR, name), "4")


def _called(view: View, place: Place, name: str, symbol: Symbol, order: str) -> Proposal:
    found = signature(view.project, symbol)
    if found is None:
        return Proposal(name, symbol.kind, place.start, symbol.kind.value, order=order)
    needs = symbol.kind is Kind.FUNCTION or any(slot.needed for slot in found.slots)
    snippet = f"{name}($0)" if needs else ""
    doc = documented(view.project, symbol)
    return Proposal(name, symbol.kind, place.start, found.label, doc, snippet=snippet, order=order)


def _definition(place: Place) -> str:
    """The block or model that is being written."""
    names = [word.text for word in place.words[:2]]
    return names[1] if len(names) == 2 and names[0] in ("block", "model") else ""


def _bound(view: View, reading: Reading, place: Place) -> dict[str, Kind]:
    """Names bound in the definition around, as its tree says, or the words before where it has none
    now."""
    found: dict[str, Kind] = {}
    name = _definition(place)
    if not name:
        return found
    whole = reading.definitions.get(name) or view.analysis.reading.definitions.get(name)
    if whole is not None:
        for parameter in whole.parameters:
            found[parameter.name.id] = Kind.PARAMETER
        for input in inputs_of(whole):
            found[input] = Kind.INPUT
    plain = [word for word in place.words if word.kind != "comment"]
    for kind, names in _bindings(plain):
        for one in names:
            found.setdefault(one, kind)
    return found


def _bindings(plain: list[Word]) -> Iterator[tuple[Kind, list[str]]]:
    """What words bind: parameters, inputs, `let`, `for`, and names before a `=`."""
    yield Kind.PARAMETER, list(_parameters(plain))
    depth = 0
    for index, word in enumerate(plain):
        if word.text in CLOSERS:
            depth += word.text != "{"
        elif word.text in CLOSERS.values():
            depth -= word.text != "}"
        if word.text in ("let", "for", "input"):
            kind = Kind.INPUT if word.text == "input" else Kind.NAME
            yield kind, list(_listed(plain, index + 1))
        elif word.text == "=" and depth == 0 and plain[index - 1].kind == "name":
            yield Kind.NAME, [plain[index - 1].text]


def _parameters(plain: list[Word]) -> Iterator[str]:
    """Of the definition that the words begin: names behind its bracket or a comma in it."""
    for before, word in pairwise(plain[2:]):
        if before.text in (")", "{"):
            return
        if before.text in ("(", ",") and word.kind == "name":
            yield word.text


def _listed(plain: list[Word], index: int) -> Iterator[str]:
    """Names with commas between them, from a word on."""
    while index < len(plain) and plain[index].kind == "name":
        yield plain[index].text
        if index + 1 >= len(plain) or plain[index + 1].text != ",":
            return
        index += 2


# Arguments


def _callees(view: View, place: Place, call: CallAround) -> list[Symbol]:
    """What a call is of."""
    if place.first() == "train":
        for setting in settings():
            if call.callee in techniques_of(setting):
                return [Symbol(Kind.TECHNIQUE, call.callee, setting)]
        return []
    if call.callee in STEPS and _in_steps(place):
        return [Symbol(Kind.STEP, call.callee)]
    found = [o.symbol for o in view.occurrences(call.start + 1)]
    meant = [s for s in found if s.kind not in (Kind.UNKNOWN, Kind.PARAMETER, Kind.NAME)]
    if meant:
        return _operators_first(meant, call.callee)
    visible = exported(view.project, view.analysis.place, view.analysis.reading)
    if call.callee in visible:
        return [visible[call.callee]]
    symbol = builtin(call.callee)
    return _operators_first([symbol], call.callee) if symbol is not None else []


def _operators_first(found: list[Symbol], name: str) -> list[Symbol]:
    """Of a function and an operator with one name the one that takes arguments by name."""
    if found[0].kind is Kind.FUNCTION and name in SPELLINGS:
        return [Symbol(Kind.OPERATOR, name)]
    return found


def _arguments(view: View, place: Place) -> Iterator[Proposal]:
    """Attributes and parameters that the call around lacks, and the words that one takes."""
    call = place.call()
    if call is None:
        return
    for symbol in _callees(view, place, call):
        found = signature(view.project, symbol)
        slots = found.slots if found is not None else ()
        current = call.keyword
        if current is None and place.last() in ("(", ","):
            if call.position < len(slots):
                yield from _choices(place, slots[call.position].choices)
            for slot in slots:
                if slot.name not in call.keywords:
                    detail, text = slot.label, f"{slot.name} = "
                    yield Proposal(
                        slot.name, Kind.ATTRIBUTE, place.start, detail, slot.doc, text, order="1"
                    )
            definition = definition_of(view.project, symbol)
            for name in inputs_of(definition[1]) if definition is not None else ():
                yield Proposal(name, Kind.INPUT, place.start, "input", text=f"{name} = ", order="1")
        elif current is not None and place.last() == "=":
            for slot in slots:
                if slot.name == current:
                    yield from _choices(place, slot.choices)


def _choices(place: Place, choices: Iterable[str]) -> Iterator[Proposal]:
    for choice in choices:
        yield Proposal(choice, Kind.WORD, place.start, order="0")


# Training


def _training(view: View, reading: Reading, place: Place) -> Iterator[Proposal]:
    """Settings at the start of a line, and what each of them takes."""
    before = place.head.partition("{")[2]
    line = before.rpartition("\n")[2]
    call = place.call()
    if call is not None:
        yield from _arguments(view, place)
        yield from _output_names(view, place)
    elif "=" not in line:
        for name in settings():
            argument = SETTINGS.get(name)
            doc = f"{argument.takes.words}: {argument.doc}" if argument is not None else ""
            used = re.search(rf"(?m)^\s*{name}\s*=", before)
            if not used:
                yield Proposal(name, Kind.SETTING, place.start, "setting", doc, f"{name} = ")
    else:
        name = line.partition("=")[0].strip()
        for technique in techniques_of(name):
            yield _called(view, place, technique, Symbol(Kind.TECHNIQUE, technique, name), "1")
        argument = SETTINGS.get(name)
        yield from _choices(place, argument.takes.choices if argument is not None else ())
    for name in exported(view.project, view.analysis.place, reading):
        if "=" in line:
            yield Proposal(name, Kind.VALUE, place.start, order="3")


def _output_names(view: View, place: Place) -> Iterator[Proposal]:
    """What a loss may compare."""
    names = (name for e in view.analysis.examinations for name in e.graph.outputs)
    for name in dict.fromkeys(names):
        yield Proposal(name, Kind.NAME, place.start, "output", order="1")


# Imports


def _imports(view: View, place: Place) -> Iterator[Proposal]:
    """Names of the file that an import names."""
    path = next((word.text[1:-1] for word in place.words if word.kind == "string"), None)
    if path is None:
        return
    other = view.project.imported(view.analysis.place, path)
    if other is None:
        return
    used = {word.text for word in place.words if word.kind == "name"}
    for name, symbol in exported(view.project, Path(other.source.path), other).items():
        if name not in used:
            called = definition_of(view.project, symbol)
            detail = of_definition(*called).label if called is not None else symbol.kind.value
            doc = documented(view.project, symbol) if called is not None else ""
            yield Proposal(name, symbol.kind, place.start, detail, doc)


def _in_string(view: View, place: Place, start: int) -> Iterator[Proposal]:
    """Files, in the text of an import or of labels."""
    head = place.before[place.item : start].split()
    if head[-1:] not in (["use"], ["labels"]):
        return
    suffix = ".cnn" if head[-1] == "use" else ".txt"
    written = place.before[start + 1 :]
    for path in _paths(view, written, suffix):
        yield Proposal(path, Kind.ALIAS, start + 1, text=path)


def _paths(view: View, written: str, suffix: str) -> Iterator[str]:
    """Paths that an import may be of: in the folder that is written so far, and the zoo's."""
    own = view.analysis.place
    zoo = view.project.zoo
    if zoo is not None and suffix == ".cnn":
        inside = written[len(ZOO) :] if written.startswith(ZOO) else ""
        folder = inside.rpartition("/")[0]
        for name in _names(zoo / folder, zoo, suffix):
            yield f"{ZOO}{folder}/{name}" if folder else f"{ZOO}{name}"
    if written.startswith(ZOO):
        return
    folder = written.rpartition("/")[0]
    for name in _names(own.parent / folder, project_root(own), suffix):
        if Path(os.path.realpath(own.parent / folder / name)) != own:
            yield f"{folder}/{name}" if folder else name


def _names(folder: Path, root: Path, suffix: str) -> list[str]:
    """Files of a folder, and folders in it with a slash; of a folder outside the root none."""
    real = Path(os.path.realpath(folder))
    if real != root and root not in real.parents:
        return []
    try:
        entries = sorted(os.scandir(real), key=lambda entry: entry.name)[:FILES]
    except OSError:
        return []
    files = [e.name for e in entries if e.name.endswith(suffix) and e.is_file()]
    folders = [f"{e.name}/" for e in entries if not e.name.startswith(".") and e.is_dir()]
    return files + folders
