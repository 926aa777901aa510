"""Compare two models, layer by layer and in total.

Layers are matched by name. Exit code 0: nothing differs; 1: something does.
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
    batch_of,
    completes_files,
    input_shapes,
    parameters,
)

if TYPE_CHECKING:
    from convdsl.analysis.report import Layer, Report


def configure(parser: argparse.ArgumentParser) -> None:
    for name, which in (("old", "the one"), ("new", "the other")):
        completes_files(parser.add_argument(name, metavar=name.upper(), help=f"{which} model"))
    add_set(parser)
    add_shapes(parser, batch=None)
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    from convdsl import driver, loading

    given = parameters(options)
    models = [loading.load(name, **given) for name in (options.old, options.new)]
    old, new = (
        driver.report(m, "all", input_shapes(options), batch=batch_of(m, options)) for m in models
    )
    rows = [*_layers(old, new), *_totals(old, new)]
    if rows or options.format != "table":
        listing.show(rows, options.format, spare=())
    else:
        console.note("the models do not differ")
    return 1 if rows else 0


def _layers(old: Report, new: Report) -> Iterator[dict[str, Any]]:
    """Layers that one model lacks, or that differ; in the order of the new one."""
    before = {layer.name: _facts(layer) for layer in old.layers}
    after = {layer.name: _facts(layer) for layer in new.layers}
    names = [*(name for name in before if name not in after), *after]
    for name in names:
        left, right = before.get(name), after.get(name)
        if left is None or right is None:
            yield _row(name, "layer", *(x and f"{x['op']} {x['output']}" for x in (left, right)))
            continue
        for fact in left | right:
            if left.get(fact) != right.get(fact):
                yield _row(name, fact, left.get(fact), right.get(fact))


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
    return {"layer": layer, "what": what, "old": plain[0], "new": plain[1]}
