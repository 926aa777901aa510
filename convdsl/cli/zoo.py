"""List the models that come along, or print one.

Parameters and multiply-accumulates are those of the defaults, for one sample. `convdsl zoo NAME`
prints the model's text, to read or to start from.
"""

from __future__ import annotations

import argparse

from convdsl.cli import console, listing
from convdsl.cli.options import add_format
from convdsl.cli.parsing import suggestion
from convdsl.diagnostics import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this model's file")
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    from convdsl import zoo

    entries = zoo.names()
    if options.name is None:
        rows = [
            {
                "name": name,
                "title": entry.title,
                **_figures(name),
                "parameters": list(entry.parameters),
            }
            for name, entry in entries.items()
        ]
        listing.show(rows, options.format, spare=("parameters",))
        return 0
    entry = zoo.find(options.name)
    if entry is None:
        near = suggestion(options.name, entries)
        raise InputError(f"no model of the zoo is called {options.name}{near}")
    console.result(entry.path.read_text(encoding="utf-8"))
    return 0


def _figures(name: str) -> dict[str, int]:
    """Parameters and multiply-accumulates of a model as it is without settings."""
    from convdsl.analysis.cost import costs, known_sum
    from convdsl.loading import load
    from convdsl.tensor import evaluate

    figures = costs(load(name).graph).values()
    params, macs = (known_sum(f.params for f in figures), known_sum(f.macs for f in figures))
    return {"params": int(evaluate(params, {"N": 1})), "macs": int(evaluate(macs, {"N": 1}))}
