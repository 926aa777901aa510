"""Markdown tables, as GitHub draws them."""

from __future__ import annotations

from collections.abc import Sequence

from convdsl.analysis.report import Report
from convdsl.analysis.roofline import Roofline
from convdsl.analysis.snapshot import Snapshot
from convdsl.reporting.grid import Grid
from convdsl.reporting.grids import (
    defaults_grid,
    passes_grid,
    report_grid,
    roofline_grid,
    roofline_head,
)
from convdsl.reporting.rows import header_lines, total_lines


def report_markdown(
    report: Report,
    *,
    depth: int | None = None,
    verbose: bool = False,
    columns: Sequence[str] | None = None,
) -> str:
    """The report as a section with one table; with `verbose` the defaults in force."""
    lines = [f"# {_escaped(report.model)}", ""]
    grid = report_grid(report, depth, verbose, columns)
    notes = [note.text for note in grid.notes if depth != 0]
    lines += _bullets(header_lines(report) + total_lines(report) + notes)
    if depth != 0:
        lines += draw(grid)
    if verbose:
        lines += ["", "## Defaults in force", "", *draw(defaults_grid(report))]
    return "\n".join(lines) + "\n"


def passes_markdown(snapshots: Sequence[Snapshot]) -> str:
    """The graph before and after each pass."""
    return "\n".join(draw(passes_grid(snapshots))) + "\n"


def roofline_markdown(roof: Roofline) -> str:
    """The machine, a row per kernel, and the least time of all together."""
    return "\n".join([*_bullets(roofline_head(roof)), *draw(roofline_grid(roof))]) + "\n"


def _bullets(lines: Sequence[str]) -> list[str]:
    return [*(f"- {_escaped(line)}" for line in lines), ""]


def draw(grid: Grid) -> list[str]:
    """The grid's lines, the names in front as code."""
    rules = ["--:" if column in grid.right else "---" for column in range(len(grid.headings))]
    cells = [[f"`{name}`", *map(_escaped, rest)] for name, *rest in grid.lines]
    return [f"| {' | '.join(line)} |" for line in (grid.headings, rules, *cells)]


def _escaped(text: str) -> str:
    """Names and polynomials must not turn into emphasis or columns."""
    for character in "\\|*_":
        text = text.replace(character, f"\\{character}")
    return text
