"""List the models that come along, or print one.

Parameters and multiply-accumulates are those of the defaults, for one sample, and polynomials where
other sizes are open; the receptive field is that of the last map on the way to the first output.
`convdsl zoo NAME` prints the model's text, to read or to start from.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from convdsl.cli import console, listing
from convdsl.cli.options import add_format, completes
from convdsl.cli.parsing import suggestion
from convdsl.diagnostics import InputError

if TYPE_CHECKING:
    from convdsl.zoo import Entry


def configure(parser: argparse.ArgumentParser) -> None:
    completes(
        parser.add_argument("name", nargs="?", metavar="NAME", help="print this model's file"),
        "name",
    )
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    from convdsl import zoo

    entries = zoo.names()
    if options.name is None:
        _list(entries.values(), options.format)
        return 0
    entry = zoo.find(options.name)
    if entry is None:
        raise InputError(
            f"no model of the zoo is called {options.name}{suggestion(options.name, entries)}"
        )
    console.result(entry.path.read_text(encoding="utf-8"))
    return 0


def _list(entries: Iterable[Entry], format: str) -> None:
    """JSON has receptive fields as reports have them, tables have them as text."""
    from convdsl.reporting.catalogue import catalogue

    rows = list(catalogue(entries))
    for row in rows:
        text = row.pop("field")
        row |= {} if format == "json" else {"receptive_field": text}
    spare = ("parameters", "paper", "receptive_field")
    listing.show(rows, format, spare=spare, numeric=("params", "macs"))
