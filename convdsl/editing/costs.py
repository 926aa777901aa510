"""Models that cost more than the project file allows: counted when all else is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from convdsl.diagnostics import CompileError, Diagnostic, InputError
from convdsl.editing.project import Buffers, Reading
from convdsl.elaborate.examination import Examination, examine
from convdsl.kernel.signature import batch_symbol
from convdsl.project.budgets import OPEN, Budget, counted, exceeded
from convdsl.project.reading import project_of, read
from convdsl.syntax import ast


def beyond_budgets(
    reading: Reading,
    examinations: Sequence[Examination],
    place: Path,
    library: Buffers,
    wanted: Callable[[], bool],
) -> Iterator[Diagnostic]:
    """What models of a text cost beyond their budgets in convdsl.toml, and what is wrong there."""
    file = project_of(place)
    if file is None:
        return
    library.asked.add(file)
    try:
        project = read(file)
    except CompileError as error:
        yield from error.diagnostics
        return
    for examination in examinations:
        if examination.made is None or examination.model is None:
            continue
        for budget in project.budgets_of(place, examination.model):
            if budget.limits:
                yield from _beyond(reading, examination, budget, place, library, wanted)


def _beyond(
    reading: Reading,
    examination: Examination,
    budget: Budget,
    place: Path,
    library: Buffers,
    wanted: Callable[[], bool],
) -> Iterator[Diagnostic]:
    made, name = examination.made, examination.model
    if budget.parameters:
        values = budget.values()
        set_ = examine(reading.source, reading.tree, name, place, library, wanted, values)
        made = set_.made
        if made is None:
            yield from map(budget.set_here, set_.findings)
            return
    definition = reading.definitions.get(name or "")
    if made is None or not isinstance(definition, ast.Model):
        return
    span = definition.name.span
    is_open = batch_symbol(symbol.name for symbol in made.symbols) is not None
    batch = budget.batch or (1 if is_open else None)
    try:
        of = counted(made, budget.inputs, batch)
        yield from exceeded(made, span, budget.limits, of, OPEN)
    except InputError as error:
        yield budget.misfit(str(error), span)
