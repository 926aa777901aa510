"""The figures of a report as HTML: totals, and a table with bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from convdsl.analysis.cost import Figure
from convdsl.analysis.report import Report, figure_text, shape_text
from convdsl.drawing.svg import text_of
from convdsl.pictures.wiring import short
from convdsl.reporting.rows import Row, field_text, params_text

BARS = ("params", "macs", "flops", "activations")
"""Figures of a row that have bars."""


def signature(report: Report) -> str:
    """What goes in and what comes out."""
    inputs = ", ".join(f"{name} {type}" for name, type in report.inputs.items())
    outputs = ", ".join(f"{name} {type}" for name, type in report.outputs.items())
    return f"<p class='signature'>{text_of(inputs)} &rarr; {text_of(outputs)}</p>"


def totals(report: Report) -> Iterator[str]:
    """Sums, short, and whole under the pointer."""
    found: dict[str, Figure] = dict(report.totals)
    if report.arena_bytes is not None:
        found["arena_bytes"] = report.arena_bytes
    lower_bounds = report.lower_bounds
    yield '<dl class="totals">'
    for name, value in found.items():
        bound = "&ge; " if name in lower_bounds else ""
        said = name.replace("_", " ")
        whole = text_of(figure_text(value))
        near = text_of("?" if value is None else short(value))
        yield f"<div><dt>{said}</dt><dd title='{whole}'>{bound}{near}</dd></div>"
    yield "</dl>"


def table(found: Sequence[Row], *, place: str = "layers", closed: bool = False) -> Iterator[str]:
    """A row for each operator or block, closed or open. place: the name of its place."""
    most = {
        name: max((_known(getattr(row.cost, name)) for row in found), default=0) for name in BARS
    }
    yield f"<details{'' if closed else ' open'}><summary>{len(found)} operators</summary>"
    yield f'<div class="wide"><table id="{place}"><thead><tr>'
    for name in ("layer", "op", "output", *BARS, "receptive field", "source"):
        yield f"<th{' class=n' if name in BARS else ''}>{name.replace('_', ' ')}</th>"
    yield "</tr></thead><tbody>"
    for row in found:
        name, op = text_of(row.name), text_of(f"{row.op} {row.window}".rstrip())
        tip = f" title='{_quoted(row.attributes)}'" if row.attributes else ""
        cells = [f"<td>{name}<td{tip}>{op}<td>{text_of(shape_text(row.output))}"]
        said = {"params": params_text(row)} if row.shared else {}
        cells += [_bar(getattr(row.cost, n), most[n], said.get(n)) for n in BARS]
        field = text_of(field_text(row.receptive_field))
        cells.append(f"<td>{field}<td>{text_of(row.location.rpartition('/')[2])}")
        yield f"<tr>{''.join(cells)}"
    yield "</tbody></table></div></details>"


def _bar(value: Figure, most: int, said: str | None = None) -> str:
    """A number, as it is `said`, over its share of the column's greatest; `v` sorts by it."""
    known = _known(value)
    share = f" style='--s:{100 * known / most:.1f}%'" if most and known else ""
    return f"<td class=n data-v={known}{share}>{text_of(said or figure_text(value))}"


def _known(value: Figure) -> int:
    return value if isinstance(value, int) else 0


def _quoted(said: str) -> str:
    return text_of(said).replace("'", "&#39;")
