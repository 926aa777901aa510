"""Parameters, multiply-accumulates, FLOPs, memory and receptive fields of a model.

Sizes that are not bound stay symbols, and figures polynomials; --batch and --input bind them.
Counting conventions: `all` counts every arithmetic operation, `torchvision` twice the
multiply-accumulates.
"""

from __future__ import annotations

import argparse
import shutil
import sys

from convdsl.cli import console
from convdsl.cli.building import load_model
from convdsl.cli.options import add_format, add_model, add_shapes, input_shapes, positive


def configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_shapes(parser, batch=None)
    group = parser.add_argument_group("report")
    group.add_argument(
        "--count", choices=("all", "torchvision"), default="all", help="counting convention"
    )
    group.add_argument(
        "--depth", type=positive, metavar="D", help="sum up blocks by D leading names"
    )
    add_format(group)


def run(options: argparse.Namespace) -> int:
    from convdsl import driver
    from convdsl.reporting import render

    report = driver.report(
        load_model(options), options.count, input_shapes(options), batch=options.batch
    )
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    text = render(
        report,
        options.format,
        depth=options.depth,
        verbose=options.verbose,
        width=width,
        color=console.use_colour(sys.stdout),
    )
    console.result(text)
    return 0
