"""Tables for people. Off a terminal they are as wide as their contents need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from convdsl.analysis.report import Report
from convdsl.analysis.roofline import Roofline
from convdsl.analysis.snapshot import Snapshot
from convdsl.diagnostics import printable
from convdsl.reporting.drawing import draw, fold, prose
from convdsl.reporting.grids import (
    defaults_grid,
    passes_grid,
    report_grid,
    roofline_grid,
    roofline_head,
)
from convdsl.reporting.rows import header_lines, total_lines

Broken: TypeAlias = "Callable[[Sequence[str], int | None], list[str]]"


def report_table(
    report: Report,
    *,
    depth: int | None = None,
    verbose: bool = False,
    width: int | None = None,
    color: bool = False,
    columns: Sequence[str] | None = None,
) -> str:
    """Header and totals, a row per operator or block; with `verbose` the defaults in force."""
    signature, *said = header_lines(report)
    parts = [_lines([signature], width), _lines(said, width, prose)]
    parts.append(_lines(total_lines(report), width))
    if depth != 0:
        parts.append(draw(report_grid(report, depth, verbose, columns), width, color))
    if verbose:
        parts += ["\ndefaults in force\n", draw(defaults_grid(report), width, color)]
    return "".join(parts)


def passes_table(
    snapshots: Sequence[Snapshot], *, width: int | None = None, color: bool = False
) -> str:
    """The graph before and after each pass."""
    return draw(passes_grid(snapshots), width, color)


def roofline_table(roof: Roofline, *, width: int | None = None, color: bool = False) -> str:
    """The machine, a row per kernel, and the least time of all together."""
    return _lines(roofline_head(roof), width) + draw(roofline_grid(roof), width, color)


def _lines(lines: Sequence[str], width: int | None, broken: Broken = fold) -> str:
    return "".join(f"{line}\n" for line in broken([printable(line) for line in lines], width))
