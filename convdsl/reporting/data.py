"""JSON and CSV: figures for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from convdsl.analysis.cost import Figure
from convdsl.analysis.report import Report, dim_to_json, field_to_json
from convdsl.analysis.roofline import Roofline
from convdsl.analysis.snapshot import Snapshot
from convdsl.reporting.rows import Row, rows

COSTS = ("params", "macs", "flops", "neurons", "activations")
FIELD = ("size", "stride", "padding", "aligned")


def report_json(report: Report) -> str:
    """The report under the keys that other programs rely on."""
    return json.dumps(report.to_json(), indent=2) + "\n"


def passes_json(snapshots: Sequence[Snapshot]) -> str:
    """Graphs after each pass, as JSON."""
    return json.dumps([s.to_json() for s in snapshots], indent=2) + "\n"


def report_csv(report: Report, *, depth: int | None = None) -> str:
    """A line per operator or block: figures as integers or polynomials, empty where unknown.

    Receptive fields have four columns per model input, axes joined by `x`; `aligned` is
    said of all axes at once. Totals are not
    among the lines: they are sums, and `--format json` holds them all.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fields = [f"{name}.{part}" for name in report.inputs for part in FIELD]
    writer.writerow(["name", "op", "output_shape", *COSTS, *fields, "source"])
    for row in rows(report, depth):
        shape = "x".join(str(dim_to_json(extent)) for extent in row.output.shape)
        costs: list[Figure] = [getattr(row.cost, name) for name in COSTS]
        values = [_cell(dim_to_json(figure)) for figure in costs]
        seen = [cell for name in report.inputs for cell in _field_cells(row, name)]
        writer.writerow([row.name, row.op, shape, *values, *seen, row.location])
    return text.getvalue()


def passes_csv(snapshots: Sequence[Snapshot]) -> str:
    """A line for the graph after each pass."""
    text = io.StringIO()
    lines = [s.to_json() for s in snapshots]
    writer = csv.DictWriter(text, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def roofline_json(roof: Roofline) -> str:
    """Kernels beside the limits of the machine, as JSON."""
    return json.dumps(roof.to_json(), indent=2) + "\n"


def roofline_csv(roof: Roofline) -> str:
    """A line per kernel, operators joined by spaces."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "ops", "flops", "bytes", "intensity", "bound", "seconds"])
    for k in roof.kernels:
        line = [k.name, " ".join(k.ops), k.flops, k.bytes, k.intensity, k.bound, k.seconds]
        writer.writerow(line)
    return text.getvalue()


def _field_cells(row: Row, name: str) -> list[str]:
    data = field_to_json(row.receptive_field[name])
    if data is None:
        return [""] * len(FIELD)
    sizes = ["x".join(_cell(value) for value in data[part]) for part in FIELD[:3]]
    return [*sizes, str(all(data["aligned"])).lower()]


def _cell(value: object) -> str:
    return "" if value is None else str(value)
