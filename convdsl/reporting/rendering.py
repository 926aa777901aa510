"""One function for each kind of result, whatever the format."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from convdsl.analysis.report import Report, shown
from convdsl.analysis.roofline import Roofline
from convdsl.analysis.snapshot import Snapshot
from convdsl.appearance import columns_of
from convdsl.diagnostics import InputError
from convdsl.figures import report
from convdsl.reporting.data import (
    passes_csv,
    passes_json,
    report_csv,
    report_json,
    roofline_csv,
    roofline_json,
)
from convdsl.reporting.grids import COLUMNS
from convdsl.reporting.markdown import passes_markdown, report_markdown, roofline_markdown
from convdsl.reporting.table import passes_table, report_table, roofline_table
from convdsl.spelling import nearest

FORMATS = ("table", "json", "md", "csv")

__all__ = ["FORMATS", "render", "render_passes", "render_roofline", "report"]


def _drawn(report: Report) -> str:
    """A report as it is printed in Python: fitted to the terminal, where there is one."""
    return report_table(report, width=columns_of(sys.stdout)).rstrip("\n")


shown[:] = [_drawn]


def render(
    report: Report,
    format: str = "table",
    *,
    depth: int | None = None,
    verbose: bool = False,
    width: int | None = None,
    color: bool = False,
    columns: Sequence[str] | None = None,
) -> str:
    """A report as text.

    `depth` sums up blocks, by that many leading names of the paths; `verbose` adds columns and
    the defaults in force; `columns` are those of tables; `width` fits tables to a terminal (None:
    as wide as need be). JSON is always whole.
    """
    odd = [name for name in columns or () if name not in COLUMNS]
    if odd:
        near = nearest(odd[0], COLUMNS)
        told = f"did you mean {near}?" if near is not None else f"there are {', '.join(COLUMNS)}"
        raise InputError(f"no column is called {odd[0]}; {told}")
    if format == "table":
        how: dict[str, Any] = {"depth": depth, "verbose": verbose, "columns": columns}
        return report_table(report, width=width, color=color, **how)
    if format == "json":
        return report_json(report)
    if format == "md":
        return report_markdown(report, depth=depth, verbose=verbose, columns=columns)
    if format == "csv":
        return report_csv(report, depth=depth)
    raise InputError(f"no format {format}: there are {', '.join(FORMATS)}")


def render_passes(
    snapshots: Sequence[Snapshot],
    format: str = "table",
    *,
    width: int | None = None,
    color: bool = False,
) -> str:
    """Graphs before and after passes, a line each."""
    if format == "table":
        return passes_table(snapshots, width=width, color=color)
    if format == "json":
        return passes_json(snapshots)
    if format == "md":
        return passes_markdown(snapshots)
    if format == "csv":
        return passes_csv(snapshots)
    raise InputError(f"no format {format}: there are {', '.join(FORMATS)}")


def render_roofline(
    roof: Roofline,
    format: str = "table",
    *,
    width: int | None = None,
    color: bool = False,
) -> str:
    """Kernels under the roof of a machine, a line each."""
    if format == "table":
        return roofline_table(roof, width=width, color=color)
    if format == "json":
        return roofline_json(roof)
    if format == "md":
        return roofline_markdown(roof)
    if format == "csv":
        return roofline_csv(roof)
    raise InputError(f"no format {format}: there are {', '.join(FORMATS)}")
