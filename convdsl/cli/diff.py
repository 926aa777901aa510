"""Compare two models, layer by layer and in total.

Layers are matched by name, blocks with --depth. --set is for both models, --set-a and --set-b for
the one and the other, as in `convdsl diff net.cnn net.cnn --set-b width=32`. With --against the
models of a file are compared with what they were, imports included: `convdsl diff --against main
net.cnn`. --format md
is made for comments on pull requests. Exit code 0: nothing differs; 1: something does.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
from convdsl.reporting.comparison import LONGEST, Change, comparison_markdown

if TYPE_CHECKING:
    from convdsl.analysis.report import Layer, Report
    from convdsl.ir.model import Model


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
    if (options.new is None) == (options.against is None):
        raise InputError("diff takes two models, or with --against REV one file")
    pairs = [_two(options)] if options.against is None else list(_then_and_now(options))
    found = [_compare(pair, options) for pair in pairs]
    if options.format == "md":
        room = LONGEST // max(1, len(found))
        for pair, one in zip(pairs, found, strict=True):
            console.result(comparison_markdown(pair.names, one.totals, one.layers, room))
    elif options.format == "table":
        _show_tables(pairs, found)
    else:
        listing.show(_rows(pairs, found), options.format)
    return 1 if any(one.changes for one in found) else 0


class _Pair(NamedTuple):
    """Two models, and what they are called."""

    names: tuple[str, str]
    old: Model
    new: Model


class _Compared(NamedTuple):
    """What two models differ in: all totals, and the layers that changed."""

    totals: list[Change]
    layers: list[Change]

    @property
    def changes(self) -> list[Change]:
        return [*(change for change in self.totals if change.old != change.new), *self.layers]


def _two(options: argparse.Namespace) -> _Pair:
    """The models that the command line names."""
    from convdsl import loading

    both, models, names = parameters(options), list[Any](), list[str]()
    for name, own in ((options.old, options.set_a), (options.new, options.set_b)):
        models.append(loading.load(name, **(both | settings_of(own))))
        names.append(" ".join([name, *(f"--set {n}={value}" for n, value in own)]))
    return _Pair((names[0], names[1]), *models)


def _then_and_now(options: argparse.Namespace) -> Iterator[_Pair]:
    """The models of a file, each as it was and as it is; one that is new is told."""
    from convdsl import loading
    from convdsl.cli.revisions import at_revision, file_and_name
    from convdsl.elaborate import model_spans

    both, file, name = parameters(options), *file_and_name(options.old)
    is_source = name is None and file.endswith(".cnn")
    names = list(model_spans(Path(file))) if is_source else [name]
    if not names:
        console.note(f"{file} holds no model")
    with at_revision(file, options.against) as place:
        known = list(model_spans(Path(place))) if is_source else names
        old = {
            one: loading.load(
                f"{place}:{one}" if one else place, **(both | settings_of(options.set_a))
            )
            for one in names
            if one in known
        }
    for one in names:
        own = f"{file}:{one}" if one and (name or len(names) > 1) else file
        if one in old:
            new = loading.load(
                f"{file}:{one}" if one else file, **(both | settings_of(options.set_b))
            )
            yield _Pair((f"{options.against}:{own}", own), old[one], new)
        else:
            console.note(f"{own} is new")


def _compare(pair: _Pair, options: argparse.Namespace) -> _Compared:
    from convdsl import figures

    old, new = (
        figures.figures(m, "all", input_shapes(options), batch=batch_of(m, options))
        for m in (pair.old, pair.new)
    )
    return _Compared(list(_totals(old, new)), list(_layers(old, new, options.depth)))


def _show_tables(pairs: Sequence[_Pair], found: Sequence[_Compared]) -> None:
    if not pairs:
        console.note("nothing was compared")
    for pair, one in zip(pairs, found, strict=True):
        which = f" {pair.names[1]}:" if len(pairs) > 1 else ""
        if not one.changes:
            console.note(f"{which} the models do not differ".strip())
            continue
        if which:
            console.result(which.strip())
        rows = [{name: _short(v) for name, v in c.to_row().items()} for c in one.changes]
        listing.show(rows, "table", digits=1, spare=(), numeric=("old", "new"))


def _short(value: Any) -> Any:
    """Shapes as reports have them, `Nx64x56x56`, so that they are not broken over lines."""
    if not isinstance(value, str):
        return value
    return _TYPE.sub(_by_axes, value)


def _by_axes(type: re.Match[str]) -> str:
    axes = [f"({axis})" if " " in axis else axis for axis in type[2].split(", ")]
    if any(axis.count("(") != axis.count(")") for axis in axes):
        return type[0]
    return ("" if type[1] == "f32" else f"{type[1]} ") + "x".join(axes)


_TYPE = re.compile(r"\b([a-z]+\d+|bool)\[([^][,]+(?:, [^][,]+)*)\]")


def _rows(pairs: Sequence[_Pair], found: Sequence[_Compared]) -> list[dict[str, Any]]:
    """All changes; of several models, each with the name of its own."""
    several = len(pairs) > 1
    return [
        ({"model": pair.new.name} if several else {}) | change.to_row()
        for pair, one in zip(pairs, found, strict=True)
        for change in one.changes
    ]


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
    plain = [value if isinstance(value, int | None) else str(value) for value in (old, new)]
    return Change(layer, what, *plain, percent=_percent(old, new))


def _percent(old: Any, new: Any) -> float | None:
    """By how much a figure has grown, where both are numbers, or polynomials of which one is a
    multiple of the other, or nearly: the share of `a*N + b` lies between those of N = 1 and of
    large N, and is told where these are the same to a tenth."""
    before, after = _terms(old), _terms(new)
    if not before or after is None or not before.keys() >= after.keys():
        return None
    ratios = [Fraction(after.get(term, 0)) / Fraction(before[term]) for term in before]
    if len(before) == 2 and () in before and min(*before.values(), *after.values()) > 0:
        ratios[list(before).index(())] = Fraction(sum(after.values())) / sum(before.values())
    shares = [float(100 * (ratio - 1)) for ratio in ratios]
    return round(shares[0], 2) if len({round(share, 1) for share in shares}) == 1 else None


def _terms(figure: Any) -> Mapping[Any, Any] | None:
    """Coefficients by monomial, those with symbols first, as far as they are none of 0; None of
    what is no figure."""
    from convdsl.tensor.dim import SymDim

    if isinstance(figure, SymDim):
        return dict(figure.terms)
    if not isinstance(figure, int) or isinstance(figure, bool):
        return None
    return {(): figure} if figure else {}
