"""Rows of a listing as table, JSON, Markdown or CSV; tables look as those of reports."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convdsl.cli.console import is_wide, result, use_colour

if TYPE_CHECKING:
    from convdsl.reporting.grids import Grid


def show(
    rows: Sequence[Mapping[str, Any]],
    format: str,
    *,
    digits: int = 3,
    spare: Sequence[str] | None = None,
) -> None:
    """Print rows that share their keys, which are the headings. Tables have fractions with so many
    digits; narrow terminals do without the columns in `spare`, by default the last ones first. One
    row that is too long stands upright."""
    if format == "json":
        result(json.dumps(list(rows), indent=2, ensure_ascii=False))
    elif format == "csv":
        result(_csv(rows))
    elif rows:
        from convdsl.reporting import drawing, markdown

        grid = _grid(rows, digits, spare)
        if format == "md":
            result("\n".join(markdown.draw(grid)))
            return
        width = terminal_width()
        if width is not None and len(rows) == 1 and not drawing.fits(grid, width):
            grid = _upright(grid)
        result(drawing.draw(grid, width, use_colour(sys.stdout)), drawn=True)


def terminal_width() -> int | None:
    """Columns to fit tables to; None off a terminal and with --wide, where all is shown."""
    if is_wide() or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def _upright(grid: Grid) -> Grid:
    """A table of one row as one of two columns."""
    from convdsl.reporting.grids import Grid

    (line,) = grid.lines
    return Grid(("figure", "value"), tuple(zip(grid.headings, line, strict=True)), frozenset())


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
    return str(value)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0] if rows else ())
    for row in rows:
        writer.writerow("" if value is None else value for value in row.values())
    return text.getvalue()


def _grid(rows: Sequence[Mapping[str, Any]], digits: int, spare: Sequence[str] | None) -> Grid:
    from convdsl.reporting.grids import Grid

    headings = tuple(rows[0])
    lines = tuple(tuple(cell(value, digits) for value in row.values()) for row in rows)
    numeric = (i for i, key in enumerate(headings) if _is_number(row[key] for row in rows))
    dropped = headings[:0:-1] if spare is None else tuple(spare)
    return Grid(headings, lines, frozenset(numeric), dropped)


def _is_number(values: Iterable[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in known
    )
