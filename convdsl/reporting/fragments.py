"""What notebooks show of a model, a graph, a report, a finding: parts of `report --html`, in a
style that changes nothing else of the page.

They stay small, as outputs are kept in the notebook: outer blocks are drawn, and as many inner ones
as there is room for; a table that is longer than a page sums up blocks.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from functools import singledispatch

from convdsl.analysis.cost import CONVENTIONS
from convdsl.analysis.report import Report
from convdsl.diagnostics import CompileError, Diagnostic, Error
from convdsl.drawing.svg import text_of
from convdsl.figures import report as counted
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.kernel.signature import Binding, one_sample
from convdsl.pictures.wiring import Network
from convdsl.reporting.page_graph import GraphDrawing
from convdsl.reporting.page_style import SCOPE, embedded_style
from convdsl.reporting.page_table import signature, table, totals
from convdsl.reporting.rows import Row, rows

ROOM = 120
"""Boxes that opened blocks may have together: a box takes about 1.2 kB."""

MOST_ROWS = 200
"""Rows of a table; one takes about .4 kB."""

OPEN_ROWS = 30
"""Rows of a table that stands open: longer ones are opened by who wants them."""

_numbers = itertools.count(1)
"""Of what was shown: places of one output are no other's."""


@singledispatch
def html(thing: object) -> str:
    """The object as HTML. Raises TypeError for what there is no picture of."""
    raise TypeError(f"there is no picture of a {type(thing).__name__}")


@html.register
def _(model: Model) -> str:
    binding: Binding = {}
    one_sample(binding, (symbol.name for symbol in model.symbols))
    try:
        settled = model.settled(binding)
        report = counted(settled, symbols=binding)
    except Error as error:  # of a file whose graph waits for sizes
        said = [f"<p class='signature'>{text_of(repr(model))}</p>", f"<p>{text_of(str(error))}</p>"]
        return fragment(said)
    lines = [f"<h3>{text_of(model.name)}</h3>", signature(report), *totals(report)]
    lines += _drawn(settled.graph.bind(binding))
    lines += [_finding(warning) for warning in model.warnings]
    return fragment(lines)


@html.register
def _(graph: Graph) -> str:
    return fragment(_drawn(graph))


@html.register
def _(report: Report) -> str:
    lines = [f"<h3>{text_of(report.model)}</h3>", signature(report), *totals(report)]
    lines.append(f"<p class='small'>Counted: {text_of(CONVENTIONS[report.count])}.</p>")
    found = summed_up(report)
    place = f"convdsl-layers{next(_numbers)}"
    lines += table(found, place=place, closed=len(found) > OPEN_ROWS)
    return fragment(lines)


@html.register
def _(finding: Diagnostic) -> str:
    return fragment([_finding(finding)])


@html.register
def _(error: CompileError) -> str:
    return fragment(map(_finding, error.diagnostics))


def fragment(lines: Iterable[str]) -> str:
    """Lines of HTML with the style that they need."""
    kind, inner = SCOPE.removeprefix("."), "\n".join(lines)
    return f'<div class="{kind}"><style>{embedded_style()}</style>\n{inner}</div>'


def summed_up(report: Report) -> list[Row]:
    """A row for each operator; where these are too many, for blocks of as many leading names as
    there is room for, and at last for the first ones alone."""
    deepest = max((layer.name.count(".") + 1 for layer in report.layers), default=1)
    found = rows(report)
    while len(found) > MOST_ROWS and deepest > 1:
        deepest -= 1
        found = rows(report, deepest)
    return found[:MOST_ROWS]


def _drawn(graph: Graph) -> Sequence[str]:
    place = f"convdsl-block{next(_numbers)}-"
    return list(GraphDrawing(Network.of(graph), place, ROOM).lines())


_PAINTED = re.compile("\x1b\\[([0-9;]+)m(.*?)\x1b\\[0m", re.DOTALL)
_CLASSES = {"1;31": "said-error", "1;33": "said-warning", "1;34": "said-place", "1": "said-strong"}
"""How the colours of a terminal are called here."""


def _finding(diagnostic: Diagnostic) -> str:
    """The finding as a terminal shows it, its colours as classes."""
    made, end = "", 0
    said = diagnostic.render(color=True)
    for found in _PAINTED.finditer(said):
        made += text_of(said[end : found.start()])
        made += f"<span class='{_CLASSES[found[1]]}'>{text_of(found[2])}</span>"
        end = found.end()
    return f"<pre>{made}{text_of(said[end:])}</pre>"
