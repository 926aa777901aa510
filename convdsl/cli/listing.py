"""Rows of a listing as table, JSON, Markdown or CSV."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from convdsl.cli.console import result, use_colour

PIPED_WIDTH = 10_000
"""Columns of a table off a terminal: nothing is ever cut."""


def show(rows: Sequence[Mapping[str, Any]], format: str) -> None:
    """Print rows that share their keys, which are the headings."""
    if format == "json":
        result(json.dumps(list(rows), indent=2, ensure_ascii=False))
    elif format == "csv":
        result(_csv(rows))
    elif format == "md":
        result(_markdown(rows))
    else:
        _table(rows)


def cell(value: Any) -> str:
    """A value as text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}"
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


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    def line(cells: Sequence[str]) -> str:
        escaped = (text.replace("|", "\\|") for text in cells)
        return f"| {' | '.join(escaped)} |"

    heading = list(rows[0]) if rows else []
    marks = ["--:" if _is_number(rows, key) else "---" for key in heading]
    body = [line([cell(value) for value in row.values()]) for row in rows]
    return "\n".join([line(heading), line(marks), *body])


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colour = use_colour(sys.stdout)
    terminal = sys.stdout.isatty()
    console = Console(
        file=sys.stdout,
        width=None if terminal else PIPED_WIDTH,
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
    )
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, padding=(0, 2, 0, 0))
    for key in rows[0] if rows else ():
        justify = "right" if _is_number(rows, key) else "left"
        table.add_column(key, justify=justify, overflow="fold", header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row.values()))
    with console.capture() as capture:
        console.print(table)
    result("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _is_number(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    values = [row[key] for row in rows if row[key] is not None]
    return bool(values) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
