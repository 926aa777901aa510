"""What a model may cost at most: `convdsl check --max-params 5M --max-memory 64MiB`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from convdsl.cli.options import add_shapes, batch_of, input_shapes
from convdsl.diagnostics import Diagnostic, Label

if TYPE_CHECKING:
    from convdsl.analysis.report import Layer, Report
    from convdsl.diagnostics import Span
    from convdsl.ir.model import Model

UNITS = {"": 1} | {
    f"{prefix}{binary}": base**power
    for power, prefix in enumerate("KMGT", start=1)
    for binary, base in (("", 1000), ("I", 1024))
}
NAMED = 3  # layers that a finding names


def configure(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("budgets")
    for name, what in (
        ("params", "parameters, e.g. 5M"),
        ("macs", "multiply-accumulates, e.g. 4.1G"),
        ("memory", "bytes of weights and activations together, e.g. 64MiB"),
    ):
        group.add_argument(
            f"--max-{name}", type=amount, metavar="N", help=f"at most so many {what}"
        )
    add_shapes(parser)


def amount(text: str) -> int:
    """`25M`, `4.1G`, `64MiB`, `1000000`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", text.strip().upper())
    if found is None or found.group(2) not in UNITS:
        raise argparse.ArgumentTypeError(f"no amount: {text}; write 5000000, 5M, 4.1G or 64MiB")
    return int(Fraction(found.group(1)) * UNITS[found.group(2)])


def are_set(options: argparse.Namespace) -> bool:
    return any(
        limit is not None for limit in (options.max_params, options.max_macs, options.max_memory)
    )


def findings(model: Model, span: Span | None, options: argparse.Namespace) -> Iterator[Diagnostic]:
    """What goes beyond its budget."""
    from convdsl import driver

    report = driver.report(model, inputs=input_shapes(options), batch=batch_of(model, options))
    totals = report.totals
    memory = totals["weight_bytes"] + report.peak.bytes
    for code, limit, figure, what in (
        ("E1001", options.max_params, totals["params"], "parameters"),
        ("E1002", options.max_macs, totals["macs"], "multiply-accumulates"),
        ("E1003", options.max_memory, memory, "bytes of weights and activations"),
    ):
        if limit is None:
            continue
        gaps = what == "multiply-accumulates" and "macs" in report.lower_bounds
        if isinstance(figure, int) and figure <= limit and not gaps:
            continue
        if not isinstance(figure, int):
            text = f"`{model.name}` has {figure} {what}, which no budget can be compared with"
            help = ("say the sizes that are open: --input CxHxW",)
        else:
            least = "at least " if gaps else ""
            text = f"`{model.name}` has {least}{figure:,} {what}; the budget is {limit:,}"
            help = _largest(report, what)
        yield Diagnostic(code, text, () if span is None else (Label(span),), help=help)


def _largest(report: Report, what: str) -> tuple[str, ...]:
    """Where most of it is."""

    def cost(layer: Layer) -> int:
        figure = layer.cost.params if what == "parameters" else layer.cost.macs
        return figure if isinstance(figure, int) else 0

    if what.startswith("bytes"):
        return (f"most at {report.peak.at.name}",) if report.peak.at is not None else ()
    most = sorted(report.layers, key=cost, reverse=True)[:NAMED]
    return (f"most in {', '.join(f'{layer.name} ({cost(layer):,})' for layer in most)}",)
