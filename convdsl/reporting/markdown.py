"""Markdown tables, as GitHub draws them."""

from __future__ import annotations

from collections.abc import Sequence

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


def report_markdown(report: Report, *, depth: int | None = None, verbose: bool = False) -> str:
    """The report as a section with one table; with `verbose` the defaults in force."""
    headings = ["layer", "op", "output", "params", "macs", "flops", "receptive field"]
    cells = [
        [
            f"`{row.name}`",
            row.op,
            shape_text(row.output),
            *map(figure_text, (row.cost.params, row.cost.macs, row.cost.flops)),
            field_text(row.receptive_field),
        ]
        for row in rows(report, depth)
    ]
    lines = [f"# {report.model}", ""]
    lines += [f"- {_escaped(line)}" for line in header_lines(report) + total_lines(report)]
    lines += ["", *table_lines(headings, cells, right=(3, 4, 5))]
    if verbose:
        defaults = [[d.op, d.attribute, f"`{d.value}`", d.doc] for d in report.defaults]
        lines += ["", "## Defaults in force", ""]
        lines += table_lines(["op", "attribute", "default", "meaning"], defaults)
    return "\n".join(lines) + "\n"


def passes_markdown(snapshots: Sequence[Snapshot]) -> str:
    """The graph before and after each pass."""
    headings = ["after", "operators", "kernels", "weight-time", "macs", "flops", "bytes written"]
    cells = [
        [
            s.label,
            *map(figure_text, (s.operators, s.kernels, s.weight_time, s.macs, s.flops)),
            figure_text(s.activation_bytes),
        ]
        for s in snapshots
    ]
    return "\n".join(table_lines(headings, cells, right=range(1, 7))) + "\n"


def table_lines(
    headings: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[int] = ()
) -> list[str]:
    rules = ["--:" if column in right else "---" for column in range(len(headings))]
    lines = [headings, rules, *([_escaped(cell) for cell in line] for line in cells)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")
