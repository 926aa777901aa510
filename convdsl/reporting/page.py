"""A report as one HTML file: it needs no network, and no scripts to be read.

The graph is drawn with its blocks closed; each opens below, as `details` of its own. Scripts, where
they run, sort the table, filter it, and open the block that a box leads to. Colours follow
what the reader prefers, paper gets all that is open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convdsl import __version__, driver
from convdsl.analysis.cost import CONVENTIONS, Figure, known_sum
from convdsl.analysis.machine import Machine
from convdsl.analysis.report import Report, figure_text, shape_text
from convdsl.analysis.roofline import Roofline, roofline
from convdsl.diagnostics import InputError
from convdsl.drawing.svg import style, text_of
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.loading import load
from convdsl.passes import run as run_passes
from convdsl.pictures.blocks import Part, opened, parts_within
from convdsl.pictures.network import canvas
from convdsl.pictures.wiring import Network, short
from convdsl.reporting.page_charts import costs_by_part, fields_chart, memory_chart, roof_chart
from convdsl.reporting.page_style import SCRIPT, STYLE
from convdsl.reporting.rows import field_text, rows

MOST_BOXES = 16
"""Boxes of the first drawing: what a screen or two hold. The others are inside of blocks."""

MOST_OPEN = 300
"""Rows of a table that stands open; longer ones are opened by who wants them."""


def html_page(
    model: Model | str | Path,
    count: str = "all",
    inputs: Any = None,
    *,
    batch: int | None = None,
    machine: Machine | None = None,
) -> str:
    """The file as text. The batch is 1 unless said; other sizes may stay open, and what needs
    them is left out. `machine`: for the roofline. Raises convdsl.Error."""
    model = model if isinstance(model, Model) else load(model)
    binding = driver.bind(model, inputs, batch)
    if "N" in (symbol.name for symbol in model.symbols):
        binding.setdefault("N", 1)
    graph = model.settled(binding).graph.bind(binding)
    figures = driver.report(model, count, inputs, symbols=binding, batch=binding.get("N"))
    roof = None
    if machine is not None and not _is_open(graph):
        roof = roofline(run_passes(graph), machine)
    return _Page(figures, Network.of(graph), roof).text()


def _is_open(graph: Graph) -> bool:
    return any(value.type.symbols() for value in graph.inputs.values())


@dataclass
class _Page:
    report: Report
    network: Network
    roof: Roofline | None
    blocks: int = 0  # that have a place of their own so far

    def text(self) -> str:
        name = text_of(self.report.model)
        parts = [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{name}</title><style>{STYLE}\n{style('auto')}</style></head><body>",
            *self.head(),
            *self.drawing(),
            *self.charts(),
            *self.table(),
            *self.defaults(),
            f"<footer>convdsl {__version__}: figures are exact, of the graph as written; ",
            "docs/analysis.md says what they mean.</footer>",
            f"<script>{SCRIPT}</script></body></html>",
        ]
        return "\n".join(parts) + "\n"

    def head(self) -> Iterator[str]:
        report = self.report
        inputs = ", ".join(f"{name} {type}" for name, type in report.inputs.items())
        outputs = ", ".join(f"{name} {type}" for name, type in report.outputs.items())
        yield f"<header><h1>{text_of(report.model)}</h1>"
        yield f"<p class='signature'>{text_of(inputs)} &rarr; {text_of(outputs)}</p>"
        yield '<dl class="totals">'
        totals: dict[str, Figure] = dict(report.totals)
        if report.arena_bytes is not None:
            totals["arena_bytes"] = report.arena_bytes
        for name, value in totals.items():
            bound = "&ge; " if name in report.lower_bounds else ""
            said = name.replace("_", " ")
            whole = text_of(figure_text(value))
            near = text_of("?" if value is None else short(value))
            yield f"<div><dt>{said}</dt><dd title='{whole}'>{bound}{near}</dd></div>"
        yield f"</dl><p class='small'>Counted: {text_of(CONVENTIONS[report.count])}.</p></header>"

    # The drawing

    def drawing(self) -> Iterator[str]:
        nodes = self.network.graph.op_nodes()
        parts = parts_within(nodes, MOST_BOXES)
        yield "<section><h2>Graph</h2>"
        links, inside = self.opened(parts, "", 0)
        drawn = canvas(self.network, parts, links=links)
        yield f'<div class="graph"><figure class="drawing">{drawn.inline("graph")}</figure>'
        if inside:
            yield '<div class="blocks"><p class="small">Blocks, to be opened:</p>'
            yield from inside
            yield "</div>"
        yield "</div></section>"

    def opened(
        self, parts: Sequence[Part], prefix: str, level: int
    ) -> tuple[dict[str, str], list[str]]:
        """Where the boxes of blocks lead, and the blocks opened."""
        links: dict[str, str] = {}
        made: list[str] = []
        for part in parts:
            if part.is_block:
                self.blocks += 1
                place = f"block{self.blocks}"
                links[part.name] = f"#{place}"
                made += self.block(part, place, prefix, level)
        return links, made

    def block(self, part: Part, place: str, prefix: str, level: int) -> list[str]:
        inner = opened(part)
        within = f"{part.name}." if all(_is_in(p, part) for p in inner) else prefix
        links, inside = self.opened(inner, within, level + 1)
        drawn = canvas(self.network, inner, prefix=within, links=links, legend=False)
        figures = [self.network.costs[node] for node in part.nodes]
        said = [f"{len(part.nodes)} operators"]
        params = known_sum(cost.params for cost in figures)
        macs = known_sum(cost.macs for cost in figures)
        said += [f"{short(params)} params"] if params else []
        said += [f"{short(macs)} MACs"] if macs else []
        name = text_of(part.name.removeprefix(prefix))
        about = f"<b>{name}</b> <span class='small'>{text_of(', '.join(said))}</span>"
        return [
            f"<details><summary>{about}</summary><div id='{place}'>",
            f'<figure class="drawing">{drawn.inline(part.name)}</figure>',
            *inside,
            "</div></details>",
        ]

    # The charts

    def charts(self) -> Iterator[str]:
        parts = parts_within(self.network.graph.op_nodes(), MOST_BOXES)
        yield from _figure("Costs by layer", costs_by_part(self.network, parts))
        yield from _figure("Memory over time", memory_chart(self.network.graph), _MEMORY)
        yield from _figure("Receptive field", fields_chart(self.report), _FIELD)
        if self.roof is not None:
            yield from _figure("Roofline", roof_chart(self.roof), self.about_roof(self.roof))
        else:
            yield "<section><h2>Roofline</h2><p class='small'>"
            yield "--machine M bounds the time of every kernel: a machine by name, measured, or "
            yield "GFLOPS/GBS. All sizes must be known.</p></section>"

    def about_roof(self, roof: Roofline) -> str:
        m = roof.machine
        return (
            f"{m.name}: {m.operations / 1e9:,.0f} GFLOP/s, {m.bandwidth / 1e9:,.0f} GB/s "
            f"({m.source}). Kernels after passes; at best {roof.seconds * 1e3:.3f} ms for all."
        )

    # The table

    def table(self) -> Iterator[str]:
        found = rows(self.report)
        most = {
            name: max((_known(getattr(row.cost, name)) for row in found), default=0)
            for name in _BARS
        }
        yield "<section><h2>Layers</h2>"
        closed = len(found) > MOST_OPEN
        yield f"<details{'' if closed else ' open'}><summary>{len(found)} operators</summary>"
        yield '<div class="wide"><table id="layers"><thead><tr>'
        numeric = {*_BARS}
        for name in ("layer", "op", "output", *_BARS, "receptive field", "source"):
            yield f"<th{' class=n' if name in numeric else ''}>{name.replace('_', ' ')}</th>"
        yield "</tr></thead><tbody>"
        for row in found:
            name, op = text_of(row.name), text_of(f"{row.op} {row.window}".rstrip())
            tip = f" title='{_quoted(row.attributes)}'" if row.attributes else ""
            cells = [f"<td>{name}<td{tip}>{op}<td>{text_of(shape_text(row.output))}"]
            cells += [_bar(getattr(row.cost, n), most[n]) for n in _BARS]
            field = text_of(field_text(row.receptive_field))
            cells.append(f"<td>{field}<td>{text_of(row.location.rpartition('/')[2])}")
            yield f"<tr>{''.join(cells)}"
        yield "</tbody></table></div></details></section>"

    def defaults(self) -> Iterator[str]:
        yield "<section><h2>Defaults in force</h2><details><summary>"
        yield f"{len(self.report.defaults)} attributes</summary><div class='wide'><table>"
        yield "<thead><tr><th>op<th>attribute<th>default<th>meaning</tr></thead><tbody>"
        for d in self.report.defaults:
            cells = map(text_of, (d.op, d.attribute, d.value, d.doc))
            yield f"<tr>{''.join(f'<td>{cell}' for cell in cells)}"
        yield "</tbody></table></div></details></section>"


_BARS = ("params", "macs", "flops", "activations")
"""Figures of a row that have bars."""

_MEMORY = (
    "Bytes alive while each operator runs, in order of the graph: a buffer for every value, "
    "nothing fused or in place, without weights."
)
_FIELD = "How many positions of the input one position of each layer depends on, in order."


def _is_in(inner: Part, block: Part) -> bool:
    return inner.name.startswith(f"{block.name}.")


def _figure(heading: str, drawn: Any, said: str = "") -> Iterator[str]:
    """A section with a chart; nothing where there is no chart."""
    if drawn is None:
        return
    yield f"<section><h2>{heading}</h2>"
    if said:
        yield f"<p class='small'>{text_of(said)}</p>"
    yield f'<figure class="chart">{drawn.inline(heading)}</figure></section>'


def _bar(value: Figure, most: int) -> str:
    """A number over its share of the column's greatest; `v` is what it is sorted by."""
    known = _known(value)
    share = f" style='--s:{100 * known / most:.1f}%'" if most and known else ""
    return f"<td class=n data-v={known}{share}>{text_of(figure_text(value))}"


def _known(value: Figure) -> int:
    return value if isinstance(value, int) else 0


def _quoted(said: str) -> str:
    return text_of(said).replace("'", "&#39;")


def write_page(path: Path, page: str) -> None:
    """Raises InputError where there is no room, or no such folder."""
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
