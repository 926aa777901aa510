"""Compare two models, layer by layer and in total.

Layers are matched by name, blocks with --depth. --set is for both models, --set-a and --set-b for
the one and the other, as in `convdsl diff net.cnn net.cnn --set-b width=32`. Exit code 0: nothing
differs; 1: something does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from convdsl.cli import console, listing
from convdsl.cli.options import (
    add_format,
    add_set,
    add_shapes,
    assignment,
    batch_of,
    completes_files,
    input_shapes,
    parameters,
    positive,
    settings_of,
)

if TYPE_CHECKING:
    from convdsl.analysis.report import Layer, Report


def configure(parser: argparse.ArgumentParser) -> None:
    for name, which in (("old", "the one"), ("new", "the other")):
        completes_files(parser.add_argument(name, metavar=name.upper(), help=f"{which} model"))
    add_set(parser)
    for letter, which in (("a", "OLD"), ("b", "NEW")):
        parser.add_argument(
            f"--set-{letter}",
            action="append",
            default=[],
            type=assignment,
            metavar="NAME=VALUE",
            help=f"set a parameter of {which} alone; may be repeated",
        )
    parser.add_argument(
        "--depth", type=positive, metavar="D", help="sum up blocks by D leading names"
    )
    add_shapes(parser, batch=None)
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    from convdsl import driver, loading

    both = parameters(options)
    sides = ((options.old, options.set_a), (options.new, options.set_b))
    models = [loading.load(name, **(both | settings_of(own))) for name, own in sides]
    old, new = (
        driver.report(m, "all", input_shapes(options), batch=batch_of(m, options)) for m in models
    )
    rows = [*_totals(old, new), *_layers(old, new, options.depth)]
    if rows or options.format != "table":
        listing.show(rows, options.format, digits=1, spare=())
    else:
        console.note("the models do not differ")
    return 1 if rows else 0


def _layers(old: Report, new: Report, depth: int | None) -> Iterator[dict[str, Any]]:
    """Layers or blocks that one model lacks, or that differ; in the order of the new one."""
    before, after = (_facts_of(report, depth) for report in (old, new))
    names = [*(name for name in before if name not in after), *after]
    for name in names:
        left, right = before.get(name), after.get(name)
        if left is None or right is None:
            yield _row(name, "layer", *(x and f"{x['op']} {x['output']}" for x in (left, right)))
            continue
        for fact in left | right:
            if left.get(fact) != right.get(fact):
                yield _row(name, fact, left.get(fact), right.get(fact))


def _facts_of(report: Report, depth: int | None) -> dict[str, dict[str, Any]]:
    """What makes each layer, or each block, what it is."""
    from convdsl.reporting.rows import rows

    if depth is None:
        return {layer.name: _facts(layer) for layer in report.layers}
    return {
        row.name: {
            "op": row.op,
            "output": str(row.output),
            "params": row.cost.params,
            "macs": row.cost.macs,
            "flops": row.cost.flops,
        }
        for row in rows(report, depth)
    }


def _totals(old: Report, new: Report) -> Iterator[dict[str, Any]]:
    for name, value in old.totals.items():
        if value != new.totals[name]:
            yield _row("total", name, value, new.totals[name])


def _facts(layer: Layer) -> dict[str, Any]:
    """What makes a layer what it is."""
    facts: dict[str, Any] = {
        "op": layer.op,
        "output": str(layer.output),
        "params": layer.cost.params,
        "macs": layer.cost.macs,
        "flops": layer.cost.flops,
    }
    return facts | dict(layer.attributes)


def _row(layer: str, what: str, old: Any, new: Any) -> dict[str, Any]:
    plain = [value if isinstance(value, int | None) else str(value) for value in (old, new)]
    return {
        "layer": layer,
        "what": what,
        "old": plain[0],
        "new": plain[1],
        "change %": _percent(*plain),
    }


def _percent(old: Any, new: Any) -> float | None:
    """By how much a figure has grown, where both are numbers."""
    if not (isinstance(old, int) and isinstance(new, int) and old):
        return None
    return round(100 * (new - old) / old, 2)
