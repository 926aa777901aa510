"""List the graph passes, or show what they do to a model.

`convdsl passes MODEL` runs them and compares the graph before and after each one.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from typing import TYPE_CHECKING

from convdsl.cli import console, listing
from convdsl.cli.building import PassWatcher, load_model
from convdsl.cli.options import (
    add_format,
    add_model,
    add_passes,
    add_shapes,
    batch_of,
    input_shapes,
    selected_passes,
)
from convdsl.diagnostics import InputError

if TYPE_CHECKING:
    from convdsl.passes import Step


def configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser, optional=True)
    add_format(parser)
    add_shapes(parser)
    add_passes(parser)


_OF_A_MODEL = (
    *("set", "outputs", "batch", "input"),
    *("disable", "pass_option", "print_after", "time_passes", "verify"),
)


def run(options: argparse.Namespace) -> int:
    if options.model is not None:
        return _compare(options)
    said = [f"--{name.replace('_', '-')}" for name in _OF_A_MODEL if getattr(options, name)]
    if said:
        raise InputError(f"{', '.join(said)}: name the model that the passes go over")
    return _list(options)


def _refuse_pass(name: str) -> None:
    """InputError where a pass stands in a model's place."""
    from convdsl.passes import PASSES

    if name in [p.name for p in PASSES]:
        raise InputError(
            f"{name} is a pass: `convdsl passes MODEL --print-after {name}` shows what it makes"
        )


def _list(options: argparse.Namespace) -> int:
    from convdsl.passes import PASSES

    rows = [
        {
            "name": p.name,
            "options": [f"{f.name}={getattr(p, f.name)}" for f in dataclasses.fields(p)],
            "summary": (inspect.getdoc(p) or "").partition("\n")[0],
        }
        for p in PASSES
    ]
    listing.show(rows, options.format, spare=("options",))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from convdsl.analysis.snapshot import Snapshots
    from convdsl.passes import run as run_passes
    from convdsl.reporting import render_passes
    from convdsl.sizes import bind

    _refuse_pass(options.model)
    model = load_model(options)
    binding = bind(model, input_shapes(options), batch_of(model, options))
    graph = model.settled(binding).graph.bind(binding)
    snapshots, watcher = Snapshots(), PassWatcher(options)
    snapshots.begin(graph, "as written")

    def observe(step: Step) -> None:
        snapshots.after(step.graph, step.rewrite.name, step.changes, step.seconds)
        watcher(step)

    run_passes(graph, selected_passes(options), verify=options.verify, observer=observe)
    color = console.use_colour(sys.stdout)
    text = render_passes(snapshots.taken, options.format, width=console.table_width(), color=color)
    console.result(text, drawn=options.format == "table")
    return 0
