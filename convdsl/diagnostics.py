"""Where things are in a source text, and what to tell people when they are wrong.

A `Diagnostic` is data: severity, code, message, labelled spans (the first is primary), the
chain of block instantiations, notes and help. `render` draws it with carets. A
`CompileError` carries one or more of them. Every error a user can cause derives from `Error`.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convdsl.appearance import Shown


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A named text. `path` is what messages show."""

    path: str
    text: str
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        starts = [0]
        for offset, character in enumerate(self.text):
            if character == "\n":
                starts.append(offset + 1)
        object.__setattr__(self, "_starts", tuple(starts))

    def position(self, offset: int) -> tuple[int, int]:
        """(line, column), both from 1, of a character offset."""
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of line `number` (from 1), without its end."""
        start = self._starts[number - 1]
        end = self._starts[number] - 1 if number < len(self._starts) else len(self.text)
        return self.text[start:end].rstrip("\r")

    def span(self, start: int, end: int) -> Span:
        return Span(self, start, end)


@dataclass(frozen=True, slots=True)
class Span:
    """Characters start..end (end excluded) of a source file."""

    source: SourceFile = field(repr=False)
    start: int
    end: int

    @property
    def line(self) -> int:
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        return self.source.position(self.start)[1]

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    @property
    def location(self) -> str:
        """`file:line`."""
        return f"{self.source.path}:{self.line}"

    def to(self, other: Span) -> Span:
        """From the start of this span to the end of the other."""
        return Span(self.source, min(self.start, other.start), max(self.end, other.end))


@dataclass(frozen=True, slots=True)
class Label:
    """A span with something to say about it."""

    span: Span
    text: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """One block instantiation on the way to an error: `bottleneck(width = 64)` and its call."""

    description: str
    span: Span | None


@dataclass(frozen=True, slots=True)
class Diagnostic(Shown):
    """One finding. `labels[0]` is where it is; the others explain it."""

    code: str  # e.g. "E0301"; `convdsl explain` says what it means
    message: str
    labels: tuple[Label, ...] = ()
    frames: tuple[Frame, ...] = ()  # innermost first
    notes: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    severity: str = "error"  # or "warning"

    @property
    def span(self) -> Span | None:
        return self.labels[0].span if self.labels else None

    def render(self, *, color: bool = False, width: int | None = None) -> str:
        return render(self, color=color, width=width)

    def to_json(self) -> dict[str, Any]:
        span = self.span
        return {
            "severity": self.severity,
            "code": self.code,
            "message": self.message,
            "file": span.source.path if span else None,
            "line": span.line if span else None,
            "column": span.column if span else None,
            "end_line": span.source.position(span.end)[0] if span else None,
            "end_column": span.source.position(span.end)[1] if span else None,
            "labels": [
                {"file": x.span.source.path, "line": x.span.line, "column": x.span.column}
                | {"text": x.text}
                for x in self.labels
            ],
            "frames": [
                {"description": f.description, "location": f.span.location if f.span else None}
                for f in self.frames
            ],
            "notes": list(self.notes),
            "help": list(self.help),
        }


_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Text whose names may come from strangers, with what would steer a terminal, turn the writing
    round or be no character written as `\\u001b`; JSON reads that as what it was."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Error(Exception):
    """Anything a user can cause. What else escapes from convdsl is a bug."""

    def _render_traceback_(self) -> list[str]:
        """What IPython prints instead of a traceback: the caller's own lines, and the message."""
        said = f"{_paint('1;31', 'error')}{_paint('1', f': {printable(str(self))}')}"
        return [*map(printable, _callers(self)), said]


class CompileError(Error, Shown):
    """The text is wrong; `diagnostics` say how."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n\n".join(render(d) for d in self.diagnostics))

    def _render_traceback_(self) -> list[str]:
        """The findings: it is the text that is wrong, not who calls."""
        return "\n\n".join(render(d, color=True) for d in self.diagnostics).split("\n")


class WeightError(Error):
    """Weights that cannot be read or do not fit the model."""


class MismatchError(WeightError):
    """Weights whose names, shapes or types are not the model's."""


class ArtifactError(Error):
    """An artifact that is damaged, foreign or meant for another processor."""


class DeviceError(Error):
    """A card that fails, or has too little memory."""


class InputError(Error):
    """Input data, shapes or options that do not fit the model."""


def _callers(error: Error) -> Iterator[str]:
    """Lines of code on the way to an error, outside of convdsl and of IPython itself."""
    import linecache  # notebooks alone need them
    import traceback

    for frame, number in traceback.walk_tb(error.__traceback__):
        home = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if home not in ("convdsl", "IPython"):
            path = frame.f_code.co_filename
            code = linecache.getline(path, number).strip()
            place = f"{path}:{number}" if Path(path).is_file() else f"line {number}"
            yield f"{place}: {code}" if code else place


def reason(error: BaseException) -> str:
    """Why something failed, in words: of what the system says without its number and the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def expect(what: str, given: object, *types: type) -> None:
    """InputError where an argument is of none of the types that it takes."""
    if not isinstance(given, types):
        wanted = " or ".join(type.__name__ for type in types)
        found = type(given).__name__
        raise InputError(f"{what} is {_a(found)}, not {_a(wanted)}")


def _a(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def render(diagnostic: Diagnostic, *, color: bool = False, width: int | None = None) -> str:
    """The finding as text: message, location, source lines with carets, frames, help; on a terminal
    of `width` columns nothing is broken within a word, and carets stand where they belong. In
    colour whatever strangers wrote is made printable here, as the result may steer a terminal."""
    lines = [f"{diagnostic.severity}[{diagnostic.code}]: {diagnostic.message}"]
    span = diagnostic.span
    if span is not None:
        lines[1:] = _excerpt(diagnostic.labels, width)
    behind = _chain(diagnostic.frames)
    behind += [f"   = note: {note}" for note in diagnostic.notes]
    behind += [f"   = help: {text}" for text in diagnostic.help]
    if width is not None:
        lines[0] = _filled(lines[0], width, "  ")
        behind = [_filled(line, width, " " * 11) for line in behind]
    lines += behind
    if not color:
        return "\n".join(lines)
    tone = _TONES.get(diagnostic.severity, _TONES["error"])
    heading, *rest = (printable(line) for line in lines)
    word, colon, message = heading.partition(": ")
    painted = [_paint(tone, word) + _paint("1", f"{colon}{message}")]
    return "\n".join([*painted, *(_painted(line, tone) for line in rest)])


_TONES = {"error": "1;31", "warning": "1;33"}
_FRAME = "1;34"
_GUTTER = re.compile(
    r"( *\d* \|)(.*)|( *(?:-->|\.\.\.|:::))(.*)|(   = )(note|help|in)(.*)", re.DOTALL
)


def _paint(style: str, text: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if text else ""


def _painted(line: str, tone: str) -> str:
    """A line of an excerpt: its frame in blue, carets in the tone of the finding."""
    found = _GUTTER.fullmatch(line)
    if found is None:
        return line
    gutter, source, arrow, place, equals, word, text = found.groups()
    if gutter is not None:
        marks = gutter.strip() == "|" and source.strip()
        return _paint(_FRAME, gutter) + (_marks(source, tone) if marks else source)
    if arrow is not None:
        return _paint(_FRAME, arrow) + place
    return _paint(_FRAME, equals) + _paint("1", word) + text


def _marks(text: str, tone: str) -> str:
    """Carets in the tone, what explains them in blue."""
    parts = re.split(r"(\^+)", text)
    return "".join(_paint(tone if part.startswith("^") else _FRAME, part) for part in parts)


def _filled(text: str, width: int, indent: str) -> str:
    """Lines that break between words; what has no place for it is left to the terminal."""
    if len(text) <= width or width <= 2 * len(indent):
        return text
    import textwrap  # long lines alone need it

    head = len(text) - len(text.lstrip())
    return textwrap.fill(
        text[head:], width, initial_indent=text[:head], subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


_INNERMOST, _OUTERMOST = 8, 4
"""Of a long chain of instantiations, what is shown."""


def _chain(frames: Sequence[Frame]) -> list[str]:
    """How the network got there, innermost first; the middle of a long way is counted."""
    lines = [
        f"   = in {frame.description}" + (f" at {frame.span.location}" if frame.span else "")
        for frame in frames
    ]
    between = len(lines) - _INNERMOST - _OUTERMOST
    if between > 1:
        lines[_INNERMOST:-_OUTERMOST] = [f"   = in {between:,} more"]
    return lines


def _excerpt(labels: Sequence[Label], columns: int | None) -> list[str]:
    first = labels[0].span
    width = max(len(str(label.span.line)) for label in labels)
    blank = " " * (width + 1) + "|"
    view = _VIEW if columns is None else min(_VIEW, max(_LEAST, columns - len(blank) - 1))
    lines = [f"{' ' * width}--> {first.source.path}:{first.line}:{first.column}", blank]
    groups: dict[tuple[str, int], list[Label]] = {}
    for label in labels:
        groups.setdefault((label.span.source.path, label.span.line), []).append(label)
    path, previous = first.source.path, 0
    for (file, number), group in sorted(groups.items(), key=lambda x: (x[0][0] != path, x[0])):
        source = group[0].span.source
        if file != path:
            lines.append(f"{' ' * width}::: {file}:{number}")
        elif previous and number > previous + 1:
            lines.append(f"{' ' * width}...")
        path, previous = file, number
        place = labels[0] if labels[0] in group else group[0]
        begin, text = _in_view(source.line(number).expandtabs(4), number, place, view)
        lines.append(f"{number:>{width}} | {text}")
        rows = _carets(source, number, group, labels[0], begin, view)
        lines += [f"{blank} {row}" for row in rows]
    lines.append(blank)
    return lines


_VIEW, _LEAST = 240, 40
"""Characters shown of a line that is longer, at most and at least; a third stands before the
place."""


def _in_view(text: str, number: int, place: Label, view: int) -> tuple[int, str]:
    """Where the part of a line begins that is shown, and that part: around the place, of a line
    that the terminal, or any, would not show."""
    if len(text) <= view:
        return 0, text
    span = place.span
    before = span.source.line(number)[: span.column - 1]
    at = len(before.expandtabs(4))
    fits = at + min(len(span.text), view // 3) <= view - 3
    begin = 0 if fits else max(0, min(at - view // 3, len(text) - view))
    part = text[begin : begin + view]
    part = f"...{part[3:]}" if begin else part
    return begin, f"{part[:-3]}..." if begin + view < len(text) else part


def _carets(
    source: SourceFile, number: int, group: Sequence[Label], primary: Label, begin: int, view: int
) -> list[str]:
    text = source.line(number)
    marks: list[tuple[int, int, str, str]] = []
    for label in group:
        start = label.span.column - 1
        end_line, end_column = source.position(label.span.end)
        end = end_column - 1 if end_line == number else len(text)
        left = len(text[:start].expandtabs(4))
        right = len(text[: max(end, start)].expandtabs(4))
        left, right = (max(0, min(at - begin, view)) for at in (left, right))
        right = max(left + 1, right)
        marks.append((left, right, "^" if label is primary else "-", label.text))
    marks.sort()
    row = ""
    for left, right, mark, _ in marks:
        if left >= len(row):
            row += " " * (left - len(row)) + mark * (right - left)
    rows = [f"{row} {marks[-1][3]}".rstrip()]
    if len(rows[0]) > view:  # what is said stands below
        beside = max(0, min(marks[-1][0], view - len(marks[-1][3])))
        rows = [row, *_filled(" " * beside + marks[-1][3], view, "").split("\n")]
    pending = [mark for mark in marks[:-1] if mark[3]]
    while pending:  # right to left, each on a line of its own, the others as stems
        stems = ""
        for left, _, _, _ in pending:
            if left >= len(stems):
                stems += " " * (left - len(stems)) + "|"
        rows.append(stems)
        left, _, _, label_text = pending.pop()
        above = stems[: max(0, min(left, view - len(label_text)))]
        rows += _filled(f"{above}{label_text}", view, "").split("\n")
    return rows
