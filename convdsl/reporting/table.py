"""Tables for people, by rich. Off a terminal they are as wide as their contents need."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from convdsl.analysis.report import Report
from convdsl.analysis.roofline import Roofline
from convdsl.analysis.snapshot import Snapshot
from convdsl.diagnostics import printable
from convdsl.reporting.grids import (
    Grid,
    defaults_grid,
    passes_grid,
    report_grid,
    roofline_grid,
    roofline_head,
)
from convdsl.reporting.rows import header_lines, total_lines


def report_table(
    report: Report,
    *,
    depth: int | None = None,
    verbose: bool = False,
    width: int | None = None,
    color: bool = False,
) -> str:
    """Header, a row per operator or block, totals; with `verbose` the defaults in force."""
    parts = [_lines(header_lines(report))]
    parts.append(draw(report_grid(report, depth, verbose), width, color))
    if verbose:
        parts += ["\ndefaults in force\n", draw(defaults_grid(report), width, color)]
    return "".join(parts) + _lines(total_lines(report))


def passes_table(
    snapshots: Sequence[Snapshot], *, width: int | None = None, color: bool = False
) -> str:
    """The graph before and after each pass."""
    return draw(passes_grid(snapshots), width, color)


def roofline_table(roof: Roofline, *, width: int | None = None, color: bool = False) -> str:
    """The machine, a row per kernel, and the least time of all together."""
    *machine, total = roofline_head(roof)
    return _lines(machine) + draw(roofline_grid(roof), width, color) + _lines([total])


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{printable(line)}\n" for line in lines)


def draw(grid: Grid, width: int | None, color: bool) -> str:
    """The grid as text, folded to `width` columns, never cut."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column, heading in enumerate(grid.headings):
        justify = "right" if column in grid.right else "left"
        table.add_column(heading, justify=justify, overflow="fold")
    for line in grid.lines:
        table.add_row(*(Text(printable(cell)) for cell in line))
    console = Console(
        file=io.StringIO(),
        width=10**6,
        color_system="standard" if color else None,
        force_terminal=color,
        highlight=False,
        legacy_windows=False,
    )
    needed = Measurement.get(console, console.options, table).maximum
    with console.capture() as capture:
        console.print(table, width=needed if width is None else min(needed, width))
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
