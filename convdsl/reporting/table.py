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
from convdsl.analysis.snapshot import Snapshot
from convdsl.reporting.rows import (
    field_text,
    figure_text,
    header_lines,
    rows,
    shape_text,
    total_lines,
)

NUMBERS = ("params", "macs", "flops")


def report_table(
    report: Report,
    *,
    depth: int | None = None,
    verbose: bool = False,
    width: int | None = None,
    color: bool = False,
) -> str:
    """Header, a row per operator or block, totals; with `verbose` the defaults in force."""
    headings = ["layer", "op", "output", *NUMBERS, "receptive field"]
    if verbose:
        headings += ["attributes", "source"]
    cells: list[list[str]] = []
    for row in rows(report, depth):
        numbers = [figure_text(n) for n in (row.cost.params, row.cost.macs, row.cost.flops)]
        line = [row.name, row.op, shape_text(row.output), *numbers]
        line.append(field_text(row.receptive_field))
        cells.append([*line, row.attributes, row.location] if verbose else line)
    parts = [_draw(headings, cells, width, color)]
    if verbose:
        defaults = [[d.op, d.attribute, d.value, d.doc] for d in report.defaults]
        parts += ["\ndefaults in force\n"]
        parts += [_draw(["op", "attribute", "default", "meaning"], defaults, width, color)]
    head = "".join(f"{line}\n" for line in header_lines(report))
    return head + "".join(parts) + "".join(f"{line}\n" for line in total_lines(report))


def passes_table(
    snapshots: Sequence[Snapshot], *, width: int | None = None, color: bool = False
) -> str:
    """The graph before and after each pass."""
    headings = ["after", "changes", "operators", "kernels", "weight-time", "macs", "flops"]
    headings += ["bytes written", "ms"]
    cells = [
        [
            s.label,
            "" if s.changes is None else str(s.changes),
            *map(figure_text, (s.operators, s.kernels, s.weight_time, s.macs, s.flops)),
            figure_text(s.activation_bytes),
            "" if s.seconds is None else f"{s.seconds * 1e3:.1f}",
        ]
        for s in snapshots
    ]
    return _draw(headings, cells, width, color)


def _draw(
    headings: Sequence[str], cells: Sequence[Sequence[str]], width: int | None, color: bool
) -> str:
    """The table as text, folded to `width` columns, never cut."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in headings:
        numeric = heading in NUMBERS or heading in _COUNTS
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))
    console = Console(
        file=io.StringIO(), width=10**6, color_system="standard" if color else None,
        force_terminal=color, highlight=False, legacy_windows=False,
    )  # fmt: skip
    needed = Measurement.get(console, console.options, table).maximum
    with console.capture() as capture:
        console.print(table, width=needed if width is None else min(needed, width))
    lines = capture.get().splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


_COUNTS = ("changes", "operators", "kernels", "weight-time", "bytes written", "ms")
