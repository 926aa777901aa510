"""The cells of every table, the same for terminals and for Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from convdsl.analysis.report import Report, figure_text, shape_text
from convdsl.analysis.roofline import Roofline
from convdsl.analysis.snapshot import Snapshot
from convdsl.reporting.grid import Grid, Note
from convdsl.reporting.rows import SHARED, Row, axes_text, field_meaning, params_text, rows


def _grid(
    headings: Sequence[str],
    lines: Sequence[Sequence[str]],
    numeric: str,
    spare: str = "",
    notes: Sequence[Note] = (),
) -> Grid:
    right = frozenset(i for i, heading in enumerate(headings) if heading in numeric.split(","))
    dropped = tuple(spare.split(",")) if spare else ()
    return Grid(tuple(headings), tuple(map(tuple, lines)), right, dropped, tuple(notes))


USUAL = ("layer", "op", "output", "params", "macs", "flops", "receptive field")
COLUMNS = (*USUAL, "attributes", "source", "input", "kernel/stride")
"""What a report can show, in this order."""

FIELD = "receptive field"


def report_grid(
    report: Report, depth: int | None, verbose: bool, columns: Sequence[str] | None = None
) -> Grid:
    """A row per operator or block; `verbose` adds inputs, windows, attributes and places. Receptive
    fields have a column for each input that has axes of space."""
    chosen = columns or (COLUMNS if verbose else USUAL)
    found = rows(report, depth)
    seen = [name for name, type in report.inputs.items() if type.rank > 2]
    fields = {f"field of {n}": n for n in seen} if len(seen) > 1 else {FIELD: "".join(seen)}
    headings = [h for name in chosen for h in (fields if name == FIELD else [name])]
    cells = {h: [_cell(row, h, fields) for row in found] for h in headings}
    spare = ["source", "attributes", "input", FIELD, "kernel/stride", "flops", "op"]
    if columns is not None:  # whoever asks for columns names the dearest first
        spare = list(columns[:0:-1])
    dropped = [h for name in spare for h in (reversed(fields) if name == FIELD else [name])]
    notes = [_field_note(fields, cells)] if seen and FIELD in chosen else []
    if any(row.shared for row in found):
        notes.append(Note(("params",), f"{SHARED}: weights that a layer above has, and counts"))
    lines = list(zip(*(cells[heading] for heading in headings), strict=True))
    return _grid(headings, lines, "params,macs,flops", ",".join(dropped), notes)


def _cell(row: Row, heading: str, fields: Mapping[str, str]) -> str:
    """What a row has under a heading. Many are never shown, and cost time."""
    if heading in fields:
        return axes_text(row.receptive_field.get(fields[heading], ()))
    return _CELLS[heading](row)


_CELLS: Mapping[str, Callable[[Row], str]] = {
    "layer": lambda row: row.name,
    "op": lambda row: row.op,
    "input": lambda row: ", ".join(map(shape_text, row.inputs)),
    "kernel/stride": lambda row: row.window,
    "output": lambda row: shape_text(row.output),
    "params": params_text,
    "macs": lambda row: figure_text(row.cost.macs),
    "flops": lambda row: figure_text(row.cost.flops),
    "attributes": lambda row: row.attributes,
    "source": lambda row: row.location,
}


def _field_note(fields: Mapping[str, str], cells: Mapping[str, Sequence[str]]) -> Note:
    meaning = field_meaning(text for heading in fields for text in cells[heading])
    where = "of the model input" if FIELD in fields else "of each model input"
    return Note(tuple(fields), f"receptive field: size/stride/padding, {where}{meaning}")


def defaults_grid(report: Report) -> Grid:
    """The defaults in force, with their reasons."""
    lines = [[d.op, d.attribute, d.value, d.doc] for d in report.defaults]
    return _grid(["op", "attribute", "default", "meaning"], lines, "")


def passes_grid(snapshots: Sequence[Snapshot]) -> Grid:
    """The graph before and after each pass."""
    headings = ["after", "changes", "operators", "kernels", "weight-time", "macs", "flops"]
    headings += ["bytes written", "ms"]
    lines = [
        [
            s.label,
            "" if s.changes is None else str(s.changes),
            *map(figure_text, (s.operators, s.kernels, s.weight_time, s.macs, s.flops)),
            figure_text(s.activation_bytes),
            "" if s.seconds is None else f"{s.seconds * 1e3:.1f}",
        ]
        for s in snapshots
    ]
    spare = "weight-time,ms,macs,bytes written,flops"
    return _grid(headings, lines, ",".join(headings[1:]), spare)


def roofline_grid(roof: Roofline) -> Grid:
    """A row per kernel: work, traffic, and the least time."""
    digits = 1 if max((k.seconds for k in roof.kernels), default=0.0) >= 1e-5 else 3
    headings = ["kernel", "ops", "bound", "flops", "bytes", "flop/byte", "GFLOP/s", "us"]
    lines = [
        [
            k.name,
            " + ".join(k.ops),
            k.bound,
            figure_text(k.flops),
            figure_text(k.bytes),
            f"{k.intensity:,.2f}",
            f"{k.attainable / 1e9:,.1f}",
            f"{k.seconds * 1e6:,.{digits}f}",
        ]
        for k in roof.kernels
    ]
    spare = "GFLOP/s,flop/byte,ops,bytes,flops"
    return _grid(headings, lines, ",".join(headings[3:]), spare)


def roofline_head(roof: Roofline) -> list[str]:
    """The machine, where its figures come from, and the sum over all kernels."""
    machine = roof.machine
    speeds = f"{machine.operations / 1e9:,.1f} GFLOP/s, {machine.bandwidth / 1e9:,.1f} GB/s"
    rate = roof.flops / roof.seconds / 1e9 if roof.seconds else 0.0
    work = f"{figure_text(roof.flops)} flops and {figure_text(roof.bytes)} bytes"
    return [
        f"machine {machine.name}: {speeds} ({machine.source})",
        f"ridge: {machine.ridge:.2f} flop/byte; kernels below it are bound by memory",
        f"at best: {_time(roof.seconds)} for {work}, {rate:,.1f} GFLOP/s",
    ]


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms" if seconds >= 1e-4 else f"{seconds * 1e6:.3f} us"
