"""List the models that come along, or print one.

`convdsl zoo NAME` prints the model's text, to read or to start from.
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
            {"name": name, "title": entry.title, "parameters": list(entry.parameters)}
            for name, entry in entries.items()
        ]
        listing.show(rows, options.format)
        return 0
    entry = zoo.find(options.name)
    if entry is None:
        near = suggestion(options.name, entries)
        raise InputError(f"no model of the zoo is called {options.name}{near}")
    console.result(entry.path.read_text(encoding="utf-8"))
    return 0
