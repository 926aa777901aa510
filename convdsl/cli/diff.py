"""Compare two models, layer by layer and in total.

Layers are matched by name, blocks with --depth. --set is for both models, --set-a and --set-b for
the one and the other, as in `convdsl diff net.cnn net.cnn --set-b width=32`. With --against a file
is compared with what it was, imports included: `convdsl diff --against main net.cnn`. --format md
is made for comments on pull requests. Exit code 0: nothing differs; 1: something does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from convdsl.cli import console, listing
from convdsl.cli.options import (
    add_format,
    add_set,
    add_shapes,
    assignment,
    batch_of,
    completes,
    input_shapes,
    parameters,
    positive,
    settings_of,
)
from convdsl.diagnostics import InputError

if TYPE_CHECKING:
    from convdsl.analysis.report import Layer, Report
    from convdsl.ir.model import Model
    from convdsl.reporting.comparison import Change


def configure(parser: argparse.ArgumentParser) -> None:
    completes(parser.add_argument("old", metavar="OLD", help="the one model"), "model")
    completes(
        parser.add_argument("new", nargs="?", metavar="NEW", help="the other; none with --against"),
        "model",
    )
    parser.add_argument(
        "--against", metavar="REV", help="compare the file with that of a revision of git"
    )
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
    from convdsl import driver
    from convdsl.reporting.comparison import comparison_markdown

    models = _models(options)
    old, new = (
        driver.report(m, "all", input_shapes(options), batch=batch_of(m, options)) for m in models
    )
    totals = list(_totals(old, new))
    layers = list(_layers(old, new, options.depth))
    changes = [*(change for change in totals if change.old != change.new), *layers]
    if options.format == "md":
        console.result(comparison_markdown(_names(options), totals, layers))
    elif changes or options.format != "table":
        rows = [change.to_row() for change in changes]
        listing.show(rows, options.format, digits=1, spare=())
    else:
        console.note("the models do not differ")
    return 1 if changes else 0


def _models(options: argparse.Namespace) -> tuple[Model, Model]:
    """The one and the other."""
    from convdsl import loading

    if (options.new is None) == (options.against is None):
        raise InputError("diff takes two models, or with --against REV one file")
    both = parameters(options)
    place = nullcontext(options.old)
    if options.against is not None:
        from convdsl.cli.revisions import at_revision

        place = at_revision(options.old, options.against)
    with place as old:
        first = loading.load(old, **(both | settings_of(options.set_a)))
    return first, loading.load(options.new or options.old, **(both | settings_of(options.set_b)))


def _names(options: argparse.Namespace) -> tuple[str, str]:
    """What is compared, as it was named."""
    if options.against is not None:
        return f"{options.against}:{options.old}", options.old
    own = [f" --set {' --set '.join(f'{n}={v}' for n, v in x)}" if x else ""
           for x in (options.set_a, options.set_b)]  # fmt: skip
    return f"{options.old}{own[0]}", f"{options.new}{own[1]}"


def _layers(old: Report, new: Report, depth: int | None) -> Iterator[Change]:
    """Layers or blocks that one model lacks, or that differ; in the order of the new one."""
    before, after = (_facts_of(report, depth) for report in (old, new))
    names = [*(name for name in before if name not in after), *after]
    for name in names:
        left, right = before.get(name), after.get(name)
        if left is None or right is None:
            yield _change(name, "layer", *(x and f"{x['op']} {x['output']}" for x in (left, right)))
            continue
        for fact in left | right:
            if left.get(fact) != right.get(fact):
                yield _change(name, fact, left.get(fact), right.get(fact))


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


def _totals(old: Report, new: Report) -> Iterator[Change]:
    for name, value in old.totals.items():
        yield _change("total", name, value, new.totals[name])


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


def _change(layer: str, what: str, old: Any, new: Any) -> Change:
    from convdsl.reporting.comparison import Change

    plain = [value if isinstance(value, int | None) else str(value) for value in (old, new)]
    return Change(layer, what, *plain, percent=_percent(old, new))


def _percent(old: Any, new: Any) -> float | None:
    """By how much a figure has grown, where both are numbers, or polynomials of which one is a
    multiple of the other."""
    before, after = _terms(old), _terms(new)
    if not before or before.keys() != after.keys():
        return None
    ratios = {Fraction(after[monomial]) / Fraction(before[monomial]) for monomial in before}
    return round(float(100 * (ratios.pop() - 1)), 2) if len(ratios) == 1 else None


def _terms(figure: Any) -> Mapping[Any, Any]:
    """Coefficients by monomial, as far as they are none of 0."""
    from convdsl.tensor.dim import SymDim

    if isinstance(figure, SymDim):
        return dict(figure.terms)
    is_number = isinstance(figure, int) and not isinstance(figure, bool)
    return {(): figure} if is_number and figure else {}
