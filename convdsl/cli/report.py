"""Parameters, multiply-accumulates, FLOPs, memory and receptive fields of a model.

Sizes that are not bound stay symbols, and figures polynomials; --batch and --input bind them.
Counting conventions: `all` counts every arithmetic operation, `torchvision` twice the
multiply-accumulates. Several values of a parameter (--set width=16,32,64) stand beside each other,
a column of totals each, with --depth the multiply-accumulates of blocks, too. With --machine, the
least time of every kernel after passes instead; with --target cuda as well, a prediction for every
kernel of the code for that card, from its registers, its shared memory, its grid and the
instructions of its main loop. Nothing is run for it.

--html writes one file for a browser, or for paper: the graph with blocks that open, costs by layer,
memory over time, receptive fields, the roofline. It needs no network and no scripts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from convdsl.cli import console, listing, sweep
from convdsl.cli.building import load_model
from convdsl.cli.files import place_of
from convdsl.cli.options import (
    PRECISIONS,
    TARGETS,
    add_format,
    add_model,
    add_shapes,
    batch_of,
    completes,
    input_shapes,
    natural,
)
from convdsl.cli.watching import add_watch, watch
from convdsl.diagnostics import InputError

if TYPE_CHECKING:
    from convdsl.analysis.machine import Machine


def configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser, artifacts=True)
    add_shapes(parser, batch=None)
    group = parser.add_argument_group("report")
    group.add_argument(
        "--count", choices=("all", "torchvision"), default="all", help="counting convention"
    )
    group.add_argument(
        "--depth", type=natural, metavar="D", help="sum up blocks by D leading names; 0: totals"
    )
    group.add_argument(
        "--columns", metavar="NAME,..", help="of tables, e.g. layer,input,kernel/stride,output"
    )
    completes(
        group.add_argument(
            "--machine",
            metavar="M",
            help="roofline on a named machine, on this one (measured), or GFLOPS/GBS",
        ),
        "machine",
    )
    group.add_argument("--target", choices=TARGETS, help="with --machine: predict code for it")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="with --target cuda: of products, as for `convdsl compile`",
    )
    group.add_argument(
        "--training",
        action="store_true",
        help="what a step of training costs; --set train.NAME=VALUE changes its settings",
    )
    group.add_argument(
        "--html",
        metavar="FILE",
        help="write one HTML file: the graph, charts, a table; with --machine the roofline, too",
    )
    add_format(group)
    add_watch(group)


def run(options: argparse.Namespace) -> int:
    from convdsl.forking import CYCLES

    once = partial(CYCLES.during, partial(_once, options))  # what is made is kept until the end
    return watch(once, options, [options.model]) if options.watch else once()


def _once(options: argparse.Namespace) -> int:
    from convdsl.runtime.saved import is_artifact

    if options.html is not None:
        return _page(options)
    width = console.table_width()
    color = console.use_colour(sys.stdout)
    if options.target == "cuda":
        from convdsl.cli import card_report

        card_report.show(options)
        return 0
    if options.machine is not None:
        console.result(_roofline(options, width, color), drawn=options.format == "table")
        return 0
    if options.training:
        from convdsl.cli import training_cost

        training_cost.show(options)
        return 0
    if is_artifact(options.model):
        return _carried(options)
    if sweep.is_one(options):
        return sweep.show(options)
    from convdsl import figures
    from convdsl.reporting import render

    model = load_model(options)
    report = figures.report(
        model, options.count, input_shapes(options), batch=batch_of(model, options)
    )
    asked: str | None = options.columns
    text = render(
        report,
        options.format,
        depth=options.depth,
        verbose=options.verbose,
        width=width,
        color=color,
        columns=None if asked is None else [name.strip() for name in asked.split(",")],
    )
    console.result(text, drawn=options.format == "table")
    if options.format == "table" and options.depth is None:
        from convdsl.reporting.rows import how_to_shorten

        if (shorter := how_to_shorten(report)) is not None:
            console.note(shorter)
    return 0


def _page(options: argparse.Namespace) -> int:
    """The HTML file; the roofline is that of --machine, or of this machine where it has been
    measured."""
    from convdsl.analysis.machine import find_machine
    from convdsl.measure.machine import known_machine
    from convdsl.reporting.page import html_page, write_page

    said: str | None = options.machine
    path = place_of("a page", options.html, ".html")
    machine = known_machine() if said is None else find_machine(said, _this_machine)
    model = load_model(options)
    shapes, batch = input_shapes(options), batch_of(model, options)
    page = html_page(model, options.count, shapes, batch=batch, machine=machine)
    write_page(path, page)
    console.note(f"{path}: {len(page.encode('utf-8')):,} bytes")
    return 0


def _carried(options: argparse.Namespace) -> int:
    """The figures that an artifact carries: those of the network it was made of."""
    from convdsl.runtime.saved import read_reports

    asked = {"--set": options.set, "--input": options.input, "--columns": options.columns}
    refused = [name for name, value in asked.items() if value]
    refused += ["--depth"] * (options.depth is not None)
    if refused:
        said = f"its figures are those it was compiled with, without {', '.join(refused)}"
        raise InputError(f"{options.model} is compiled already: {said}")
    (sizes, found), *others = read_reports(options.model, options.batch)
    if others:
        first, *rest = map(_sizes_text, (sizes, *(made_for for made_for, _ in others)))
        more = "; --batch chooses" if options.batch is None else ""
        said = f"these are the figures for {first}; there is code for {'; '.join(rest)}, too"
        console.note(f"{said}{more}")
    if options.format == "json":
        console.result(json.dumps(found, indent=2))
        return 0
    totals = [{"figure": name, "value": value} for name, value in found["total"].items()]
    listing.show(totals, options.format, spare=())
    if options.format == "table":
        console.result("")
        listing.show([_carried_row(layer) for layer in found["layers"]], "table", spare=("flops",))
    return 0


def _sizes_text(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {size}" for name, size in sizes.items())


def _carried_row(layer: dict[str, Any]) -> dict[str, Any]:
    shape = "x".join(map(str, layer["output_shape"]))
    figures = {name: layer[name] for name in ("params", "macs", "flops")}
    return {"layer": layer["name"], "op": layer["op"], "output": shape, **figures}


def _roofline(options: argparse.Namespace, width: int | None, color: bool) -> str:
    """Kernels as they run: after passes, the batch 1 unless said."""
    from convdsl.analysis.machine import find_machine
    from convdsl.analysis.roofline import roofline
    from convdsl.passes import run as run_passes
    from convdsl.reporting import render_roofline
    from convdsl.sizes import bind

    machine = find_machine(options.machine, _this_machine)
    model = load_model(options)
    batch = batch_of(model, options) or 1
    binding = bind(model, input_shapes(options), batch)
    graph = model.settled(binding).graph.bind(binding)
    roof = roofline(run_passes(graph), machine)
    return render_roofline(roof, options.format, width=width, color=color)


def _this_machine() -> Machine:
    from convdsl.measure.machine import this_machine

    return this_machine()
