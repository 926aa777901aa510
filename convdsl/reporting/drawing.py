"""Grids as text: as wide as they need, or fitted to a terminal.

What does not fit is tried in this order: texts of several words go on in the next line; columns
that can be spared are left out, and it is said which; texts go on at narrower widths; names go on
after a dot or a sign. No number and no word is ever broken, and no cell is cut: if all that is not
enough, the terminal has to fold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import east_asian_width

from convdsl.diagnostics import printable
from convdsl.reporting.grid import Grid

GAP = "   "
USUAL = 80
READABLE = 24
"""Columns that texts of several words keep before a whole column is left out instead."""

_SPACES = re.compile(r"(?<!\d) | (?!(?:[kKMGT]?B|G?FLOP)(?:/s)?\b|[mu]?s\b|bits\b|%)")
"""Where texts go on in the next line: not between a number and its unit."""

_BREAKS = re.compile(r"(?<=[.,/+*=_ ])(?=[^\s])")
_BOLD = "\x1b[1m{}\x1b[0m"


def draw(grid: Grid, width: int | None, color: bool, *, advise: bool = True) -> str:
    """The grid as text, fitted to `width` columns, below what its notes say of the columns that
    are shown; `advise` tells of those that were left out."""
    cells = _printed(grid)
    headings = [printable(heading) for heading in grid.headings]
    shown, room = _fitted(grid, headings, cells, width)
    there = {grid.headings[i] for i in shown}
    notes = [printable(note.text) for note in grid.notes if not there.isdisjoint(note.headings)]
    right = [grid.right_of(i) for i in shown]
    lines = _row([headings[i] for i in shown], right, room)
    if color:
        lines = [_BOLD.format(line) for line in lines]
    lines = [*prose(notes, width), *lines]
    lines.append("─" * (sum(room) + len(GAP) * (len(room) - 1)))
    lines += _rows([[line[i] for line in cells] for i in shown], right, room)
    left_out = [heading for i, heading in enumerate(headings) if i not in shown]
    if left_out and advise:
        said = f"({width} columns: without {', '.join(left_out)}; --wide shows all)"
        lines += fold([said], width)
    return "".join(f"{line}\n" for line in lines)


def prose(lines: Sequence[str], width: int | None) -> list[str]:
    """Sentences, which need no more columns off a terminal than on a usual one."""
    return fold(lines, USUAL if width is None else width)


def fold(lines: Sequence[str], width: int | None) -> list[str]:
    """Lines of words, which go on indented where they are longer than `width`."""
    if width is None:
        return list(lines)
    made: list[str] = []
    for line in lines:
        first, *rest = _folded(line, width)
        made.append(first)
        made += (f"  {part}" for part in _folded(" ".join(rest), width - 2) if part)
    return made


def fits(grid: Grid, width: int) -> bool:
    """Whether all columns fit, as wide as they need."""
    cells = _printed(grid)
    return _total([_widest(grid.headings[i], cells, i) for i in range(len(grid.headings))]) <= width


def _printed(grid: Grid) -> Sequence[Sequence[str]]:
    """The cells, as terminals may see them: nearly always as they are."""
    whole = "".join(map("".join, grid.lines))
    if printable(whole) == whole:
        return grid.lines
    return [[printable(cell) for cell in line] for line in grid.lines]


def _fitted(
    grid: Grid, headings: Sequence[str], cells: Sequence[Sequence[str]], width: int | None
) -> tuple[list[int], list[int]]:
    """The columns to show, and how wide each is."""
    shown = list(range(len(headings)))
    natural = [_widest(headings[i], cells, i) for i in shown]
    if width is None or _total(natural) <= width:
        return shown, natural
    words = [_longest(headings[i], cells, i) for i in shown]
    spare = [i for name in grid.spare for i in shown if grid.headings[i] == name]
    while True:
        least = [min(natural[i], max(words[i], READABLE)) for i in shown]
        if _total(least) <= width or not spare:
            break
        shown.remove(spare.pop(0))
    pieces = [_longest(headings[i], cells, i, in_pieces=True) for i in shown]
    for floor in (least, [words[i] for i in shown], pieces):
        if _total(floor) <= width:
            return shown, _shared([natural[i] for i in shown], floor, width)
    return shown, pieces


def _shared(natural: Sequence[int], floor: Sequence[int], width: int) -> list[int]:
    """Widths between a floor and what is natural: the widest give most."""
    room = list(natural)
    while (excess := _total(room) - width) > 0:
        widest = max((r for r, f in zip(room, floor, strict=True) if r > f), default=0)
        at = next(i for i, r in enumerate(room) if r == widest and r > floor[i])
        others = (r for i, r in enumerate(room) if i != at and r < widest and r > floor[i])
        room[at] = max(floor[at], room[at] - excess, min(max(others, default=0), widest - 1))
    return room


def _total(room: Sequence[int]) -> int:
    return sum(room) + len(GAP) * (len(room) - 1)


def _widest(heading: str, cells: Sequence[Sequence[str]], column: int) -> int:
    return max(_length(heading), _longest_of([line[column] for line in cells]))


def _longest_of(texts: Sequence[str]) -> int:
    """Columns of a terminal that the longest takes: looked at together, as there may be many."""
    measure = len if "".join(texts).isascii() else _length
    return max(map(measure, texts), default=0)


def _longest(
    heading: str, cells: Sequence[Sequence[str]], column: int, in_pieces: bool = False
) -> int:
    """The longest part of a column's texts that stays in one line: a word, or a piece of one."""
    texts = {heading, *(line[column] for line in cells)}
    parts = (p for t in texts for p in (_pieces(t) if in_pieces else _SPACES.split(t)))
    return max((_length(part.strip()) for part in parts), default=0)


def _pieces(text: str) -> list[str]:
    """The parts between which a text may be broken; numbers such as 1,024 have none."""
    return [part for word in text.split(" ") for part in _split(word)]


def _split(word: str) -> list[str]:
    return [word] if re.fullmatch(r"[\d.,%-]+", word) else _BREAKS.split(word)


def _rows(
    columns: Sequence[Sequence[str]], right: Sequence[bool], room: Sequence[int]
) -> list[str]:
    """The lines of all rows; a row is one line where every cell has room."""
    widths = [_longest_of(column) for column in columns]
    if any(longest > width for longest, width in zip(widths, room, strict=True)):
        return [line for cells in zip(*columns, strict=True) for line in _row(cells, right, room)]
    padded = (_column(c, r, w) for c, r, w in zip(columns, right, room, strict=True))
    return [GAP.join(cells).rstrip() for cells in zip(*padded, strict=True)]


def _column(cells: Sequence[str], to_right: bool, width: int) -> list[str]:
    if "".join(cells).isascii():
        return [cell.rjust(width) if to_right else cell.ljust(width) for cell in cells]
    gaps = [_padding(cell, width) for cell in cells]
    pairs = zip(gaps, cells, strict=True) if to_right else zip(cells, gaps, strict=True)
    return [first + second for first, second in pairs]


def _row(cells: Sequence[str], right: Sequence[bool], room: Sequence[int]) -> list[str]:
    """The lines of a row."""
    if all(len(cell) <= width and cell.isascii() for cell, width in zip(cells, room, strict=True)):
        made = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, to_right, width in zip(cells, right, room, strict=True)
        )
        return [GAP.join(made).rstrip()]
    folded = [_folded(cell, width) for cell, width in zip(cells, room, strict=True)]
    lines: list[str] = []
    for number in range(max(map(len, folded))):
        texts = [parts[number] if number < len(parts) else "" for parts in folded]
        made = (
            _padding(text, width) + text if to_right else text + _padding(text, width)
            for text, to_right, width in zip(texts, right, room, strict=True)
        )
        lines.append(GAP.join(made).rstrip())
    return lines


def _folded(text: str, width: int) -> list[str]:
    """A text in lines of at most a width, broken between words, and words only where they are
    longer than that."""
    lines = [""]
    for word in _SPACES.split(text):
        grown = f"{lines[-1]} {word}" if lines[-1] else word
        if _length(grown) <= width:
            lines[-1] = grown
        elif _length(word) <= width:
            lines.append(word)
        elif " " in word:  # not even a number and its unit have room
            lines += word.split(" ")
        else:
            lines += _broken(word, width)
    return [line for line in lines if line] or [""]


def _broken(word: str, width: int) -> list[str]:
    """A word in lines, broken after dots and signs."""
    lines = [""]
    for piece in _split(word):
        if lines[-1] and _length(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece
    return lines


def _length(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return len(text) if text.isascii() else sum(1 + (east_asian_width(c) in "WF") for c in text)


def _padding(text: str, width: int) -> str:
    return " " * (width - _length(text))
