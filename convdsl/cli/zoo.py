"""List the models that come along, or print one.

Parameters and multiply-accumulates are those of the defaults, for one sample; the receptive field
is that of the last map on the way to the first output. `convdsl zoo NAME` prints the model's text,
to read or to start from.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from convdsl.cli import console, listing
from convdsl.cli.options import add_format
from convdsl.cli.parsing import suggestion
from convdsl.diagnostics import InputError

if TYPE_CHECKING:
    from convdsl.zoo import Entry


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this model's file")
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    from convdsl import zoo

    entries = zoo.names()
    if options.name is None:
        exact = options.format == "json"
        rows = [_row(entry, exact) for entry in entries.values()]
        listing.show(rows, options.format, spare=("parameters", "paper", "receptive_field"))
        return 0
    entry = zoo.find(options.name)
    if entry is None:
        near = suggestion(options.name, entries)
        raise InputError(f"no model of the zoo is called {options.name}{near}")
    console.result(entry.path.read_text(encoding="utf-8"))
    return 0


def _row(entry: Entry, exact: bool) -> dict[str, Any]:
    """What is listed of a model as it is without settings; `exact`: fields as reports have them."""
    from convdsl.analysis.cost import costs, known_sum
    from convdsl.analysis.receptive_field import field_of_last_map
    from convdsl.analysis.report import field_to_json
    from convdsl.loading import load
    from convdsl.reporting.rows import field_text
    from convdsl.tensor import evaluate

    graph = load(entry.model).graph
    figures = costs(graph).values()
    params, macs = (known_sum(f.params for f in figures), known_sum(f.macs for f in figures))
    field = field_of_last_map(graph)
    as_in_reports = {name: field_to_json(axes) for name, axes in field.items()}
    return {
        "name": entry.model,
        "title": entry.title,
        "paper": entry.paper,
        "params": int(evaluate(params, {"N": 1})),
        "macs": int(evaluate(macs, {"N": 1})),
        "receptive_field": as_in_reports if exact else field_text(field),
        "parameters": list(entry.parameters),
    }
