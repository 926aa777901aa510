"""What models may cost at most: by options (`convdsl check --max-params 5M`), by convdsl.toml."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from convdsl.cli.options import add_shapes, batch_of, input_shapes, parameters
from convdsl.diagnostics import CompileError, Diagnostic, InputError
from convdsl.project.budgets import FIGURES, OPEN, Budget, Limit, amount, counted, exceeded, finding

if TYPE_CHECKING:
    from convdsl.diagnostics import Span
    from convdsl.ir.model import Model

_HINT = "say the sizes that are open: --input CxHxW"


def configure(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("budgets (convdsl.toml may hold them, too)")
    for figure in FIGURES.values():
        group.add_argument(figure.option, type=_amount, metavar="N", help=figure.doc)
    add_shapes(parser)


def _amount(text: str) -> int:
    try:
        return amount(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def limits(options: argparse.Namespace) -> tuple[Limit, ...]:
    """Those of the command line."""
    said = (
        (figure, getattr(options, figure.option[2:].replace("-", "_")))
        for figure in FIGURES.values()
    )
    return tuple(Limit(figure, value) for figure, value in said if value is not None)


def findings(model: Model, span: Span | None, options: argparse.Namespace) -> Iterator[Diagnostic]:
    """What goes beyond a budget of the command line."""
    asked = limits(options)
    if asked:
        of = counted(model, input_shapes(options), batch_of(model, options))
        yield from exceeded(model, span, asked, of, _HINT)


def findings_of_a_file(
    path: Path, span: Span, budget: Budget, options: argparse.Namespace
) -> Iterator[Diagnostic]:
    """What goes beyond one of convdsl.toml; what the command line says stands over it."""
    from convdsl import zoo
    from convdsl.elaborate import load_file

    over = {limit.figure.name for limit in limits(options)}
    asked = [limit for limit in budget.limits if limit.figure.name not in over]
    if not asked:
        return
    try:
        given = budget.values() | parameters(options)
        model = load_file(path, model=span.text, parameters=given, zoo=zoo.folder())
        batch = options.batch or budget.batch
        sizes = argparse.Namespace(**vars(options) | {"batch": batch})
        of = counted(model, input_shapes(options) or budget.inputs, batch_of(model, sizes))
        yield from exceeded(model, span, asked, of, OPEN)
    except CompileError as error:
        yield from map(budget.set_here, error.diagnostics)
    except InputError as error:
        yield budget.misfit(str(error), span)


def findings_of_an_artifact(
    name: str, size: int, place: str, budgets: Iterator[Budget], options: argparse.Namespace
) -> Iterator[Diagnostic]:
    """An artifact of a model that is larger than it may be."""
    figure = FIGURES["artifact"]
    asked = [limit for limit in limits(options) if limit.figure is figure]
    if not asked:
        asked = [limit for budget in budgets for limit in budget.limits if limit.figure is figure]
    for limit in asked:
        text = figure.beyond(name, size, limit)
        if text is not None:
            yield finding(limit, text, None, (f"the artifact is {place}",))
