"""Rows of a listing as table, JSON, Markdown or CSV; tables look as those of reports."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convdsl.cli import console
from convdsl.cli.console import result, use_colour

if TYPE_CHECKING:
    from convdsl.reporting.grid import Grid


def show(
    rows: Sequence[Mapping[str, Any]],
    format: str,
    *,
    digits: int = 3,
    spare: Sequence[str] | None = None,
    numeric: Sequence[str] = (),
) -> None:
    """Print rows that share their keys, which are the headings. Tables have fractions with so many
    digits; narrow terminals do without the columns in `spare`, by default the last ones first.
    Columns of numbers stand to the right, and those in `numeric`, whatever else is in them. One row
    that is too long stands upright."""
    if format == "json":
        result(json.dumps(list(rows), indent=2, ensure_ascii=False))
    elif format == "csv":
        result(_csv(rows))
    elif rows:
        from convdsl.reporting import drawing

        grid = _grid(rows, digits, spare, numeric)
        if format == "md":
            from convdsl.reporting import markdown

            result("\n".join(markdown.draw(grid)))
            return
        width = console.table_width()
        if width is not None and len(rows) == 1 and not drawing.fits(grid, width):
            grid = _upright(grid)
        result(drawing.draw(grid, width, use_colour(sys.stdout)), drawn=True)


def show_beside(rows: Sequence[Mapping[str, Any]], format: str) -> None:
    """The same for columns of one kind, of which none is spared: on narrow terminals they go on in
    further tables below, each with the first column."""
    width = console.table_width()
    if format != "table" or width is None or not rows:
        show(rows, format, spare=())
        return
    for number, part in enumerate(_parts(rows, width)):
        if number:
            result("")
        show(part, "table", spare=())


def _parts(rows: Sequence[Mapping[str, Any]], width: int) -> Iterator[Sequence[Mapping[str, Any]]]:
    """As many columns in each as fit, and at least one."""
    from convdsl.reporting import drawing

    first, *rest = rows[0]
    while rest:
        count = 1
        while count < len(rest) and drawing.fits(_grid(_of(rows, first, rest[: count + 1])), width):
            count += 1
        yield _of(rows, first, rest[:count])
        rest = rest[count:]


def _of(
    rows: Sequence[Mapping[str, Any]], first: str, names: Sequence[str]
) -> list[Mapping[str, Any]]:
    return [{name: row[name] for name in (first, *names)} for row in rows]


def _upright(grid: Grid) -> Grid:
    """A table of one row as one of two columns."""
    from convdsl.reporting.grid import Grid

    (line,) = grid.lines
    return Grid(("figure", "value"), tuple(zip(grid.headings, line, strict=True)), frozenset())


_POLYNOMIAL = re.compile(r"(?=.*\w\*\w)[\w*+/() -]+")


def cell(value: Any, digits: int = 3) -> str:
    """A value as text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.{digits}f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    text = str(value)
    if not _POLYNOMIAL.fullmatch(text):
        return text
    from convdsl.tensor.dim import separated

    return separated(text)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0] if rows else ())
    for row in rows:
        writer.writerow("" if value is None else value for value in row.values())
    return text.getvalue()


def _grid(
    rows: Sequence[Mapping[str, Any]],
    digits: int = 3,
    spare: Sequence[str] | None = (),
    numeric: Sequence[str] = (),
) -> Grid:
    from convdsl.reporting.grid import Grid

    headings = tuple(rows[0])
    lines = tuple(tuple(cell(value, digits) for value in row.values()) for row in rows)
    right = (i for i, k in enumerate(headings) if k in numeric or _is_number(r[k] for r in rows))
    dropped = headings[:0:-1] if spare is None else tuple(spare)
    return Grid(headings, lines, frozenset(right), dropped)


def _is_number(values: Iterable[Any]) -> bool:
    """Whether all that there is are numbers; those of open sizes, `64*N`, among them."""
    known = [value for value in values if value is not None]
    return bool(known) and all(
        _POLYNOMIAL.fullmatch(value)
        if isinstance(value, str)
        else isinstance(value, int | float) and not isinstance(value, bool)
        for value in known
    )
