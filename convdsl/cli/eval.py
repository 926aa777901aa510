"""Measure how good a model is on a data set.

The loss and the metrics are those of the file's `train` block, or, where it has none, cross-entropy
and accuracy; --set train.metrics='[accuracy(5), f1]' asks for others. Data are read as by `convdsl
train`: all of them, or of data in parts the one named by --part.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any, cast

from convdsl.cli import console, listing
from convdsl.cli.options import (
    add_format,
    add_model,
    add_processor,
    add_winograd,
    completes,
    positive,
)
from convdsl.cli.settings import model_and_settings
from convdsl.cli.train import add_data

PARTS = ("train", "validation", "test")


def configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser, validation=False)
    group = parser.add_argument_group("measuring")
    completes(group.add_argument("--weights", metavar="FILE", help="as for `convdsl run`"))
    group.add_argument(
        "--part", choices=PARTS, help="of data in parts (default: test, else validation, else all)"
    )
    group.add_argument("--batch", type=positive, metavar="N", help="samples at once")
    add_processor(group)
    group.add_argument("--workers", type=positive, metavar="W", help="that read data ahead")
    add_winograd(group)
    add_format(group)


def run(options: argparse.Namespace) -> int:
    from convdsl.training.fit import evaluate_model

    model, training, _ = model_and_settings(options)
    figures = evaluate_model(
        model,
        options.data,
        options.weights,
        options.labels,
        training,
        part=options.part,
        threads=options.threads,
        workers=options.workers,
        cpu=options.cpu,
        winograd=options.winograd,
        device=options.device,
        precision=options.precision,
    )
    if not math.isfinite(figures.get("loss", 0.0)):
        console.note(
            "the loss is no number: `convdsl run` says what of the data, or of the weights, is none"
        )
    if options.format == "json":
        console.result(json.dumps(figures, indent=2, ensure_ascii=False))
        return 0
    plain = {name: value for name, value in figures.items() if not isinstance(value, list)}
    listing.show([plain], options.format)
    for name in (name for name in figures if name not in plain):
        console.result("")
        listing.show_beside(_rows(name, figures[name]), options.format)
    return 0


def _rows(name: str, value: list[Any]) -> list[dict[str, Any]]:
    """A list, or a table, by class."""
    if value and isinstance(value[0], list):
        table = cast("list[list[Any]]", value)
        return [
            {name: row, **{str(column): cell for column, cell in enumerate(cells)}}
            for row, cells in enumerate(table)
        ]
    return [{"class": number, name: cell} for number, cell in enumerate(value)]
