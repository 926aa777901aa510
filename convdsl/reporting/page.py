"""A report as one HTML file: it needs no network, and no scripts to be read.

The graph is drawn with its blocks closed; each opens below, as `details` of its own. Scripts, where
they run, sort the table, filter it, and open the block that a box leads to. Colours follow
what the reader prefers, paper gets all that is open.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convdsl import __version__
from convdsl.analysis.cost import CONVENTIONS
from convdsl.analysis.machine import Machine
from convdsl.analysis.report import Report
from convdsl.analysis.roofline import Roofline, roofline
from convdsl.diagnostics import InputError
from convdsl.drawing.svg import text_of
from convdsl.figures import report
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.kernel.signature import one_sample, samples_of
from convdsl.loading import load
from convdsl.passes import PASSES, Step
from convdsl.passes import run as run_passes
from convdsl.pictures.blocks import parts_within
from convdsl.pictures.wiring import Network
from convdsl.reporting.page_charts import costs_by_part, fields_chart, memory_chart, roof_chart
from convdsl.reporting.page_graph import MOST_BOXES, GraphDrawing
from convdsl.reporting.page_style import SCRIPT, file_style
from convdsl.reporting.page_table import signature, table, totals
from convdsl.reporting.rows import rows
from convdsl.runtime.whole_files import write_whole
from convdsl.sizes import bind

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
    binding = bind(model, inputs, batch)
    one_sample(binding, (symbol.name for symbol in model.symbols))
    graph = model.settled(binding).graph.bind(binding)
    batch = samples_of(binding)
    roof: Roofline | None = None

    def observe(step: Step) -> None:
        nonlocal roof
        if machine is not None and step.rewrite is PASSES[-1]:
            roof = roofline(step.graph, machine)

    figures = report(model, count, inputs, symbols=binding, batch=batch, observer=observe)
    if machine is not None and roof is None and not _is_open(graph):
        roof = roofline(run_passes(graph), machine)
    return _Page(figures, Network.of(graph), roof).text()


def _is_open(graph: Graph) -> bool:
    return any(value.type.symbols() for value in graph.inputs.values())


@dataclass
class _Page:
    report: Report
    network: Network
    roof: Roofline | None

    def text(self) -> str:
        name = text_of(self.report.model)
        parts = [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{name}</title><style>{file_style()}</style></head><body>",
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
        yield f"<header><h1>{text_of(self.report.model)}</h1>"
        yield signature(self.report)
        yield from totals(self.report)
        counted = text_of(CONVENTIONS[self.report.count])
        yield f"<p class='small'>Counted: {counted}.</p></header>"

    def drawing(self) -> Iterator[str]:
        yield "<section><h2>Graph</h2>"
        yield from GraphDrawing(self.network).lines()
        yield "</section>"

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

    def table(self) -> Iterator[str]:
        found = rows(self.report)
        yield "<section><h2>Layers</h2>"
        yield from table(found, closed=len(found) > MOST_OPEN)
        yield "</section>"

    def defaults(self) -> Iterator[str]:
        yield "<section><h2>Defaults in force</h2><details><summary>"
        yield f"{len(self.report.defaults)} attributes</summary><div class='wide'><table>"
        yield "<thead><tr><th>op<th>attribute<th>default<th>meaning</tr></thead><tbody>"
        for d in self.report.defaults:
            cells = map(text_of, (d.op, d.attribute, d.value, d.doc))
            yield f"<tr>{''.join(f'<td>{cell}' for cell in cells)}"
        yield "</tbody></table></div></details></section>"


_MEMORY = (
    "Bytes alive while each operator runs, in order of the graph: a buffer for every value, "
    "nothing fused or in place, without weights."
)
_FIELD = "How many positions of the input one position of each layer depends on, in order."


def _figure(heading: str, drawn: Any, said: str = "") -> Iterator[str]:
    """A section with a chart; nothing where there is no chart."""
    if drawn is None:
        return
    yield f"<section><h2>{heading}</h2>"
    if said:
        yield f"<p class='small'>{text_of(said)}</p>"
    yield f'<figure class="chart">{drawn.inline(heading)}</figure></section>'


def write_page(path: Path, page: str) -> None:
    """Raises InputError where there is no room, or no such folder."""
    try:
        write_whole(path, [page.encode("utf-8")], durable=False)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
