"""Exact figures of a model. What they take no passes for loads nothing of the compiler: half of the
wait for a small network was that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from convdsl.analysis.report import Report, analyse
from convdsl.calling import suggests
from convdsl.ir.model import Model
from convdsl.loading import load
from convdsl.sizes import Shapes, bind

if TYPE_CHECKING:
    from convdsl.passes import Observer


@suggests
def report(
    model: Model | str | Path,
    count: str = "all",
    inputs: Shapes = None,
    *,
    batch: int | None = None,
    symbols: Mapping[str, int] | None = None,
    observer: Observer | None = None,
) -> Report:
    """Exact figures: parameters, operations, memory, receptive fields. Symbols that `inputs`,
    `batch` and `symbols` leave open stay in the figures as polynomials. Where none is left open
    there are the bytes of the arena, too, that a program compiled for this processor has; for
    them the passes run, which `observer` sees."""
    model = model if isinstance(model, Model) else load(model)
    binding = bind(model, inputs, batch, symbols)
    model = model.settled(binding)
    bound = replace(model, graph=model.graph.bind(binding)) if binding else model
    found = analyse(bound, count)
    if model.deciding or any(type.symbols() for type in found.inputs.values()):
        return found
    from convdsl.compilation import Plan
    from convdsl.toolchain import find_toolchain

    plan = Plan(bound, find_toolchain(), observer=observer)
    return replace(found, arena_bytes=plan.arena_bytes({}))


def figures(
    model: Model,
    count: str = "all",
    inputs: Shapes = None,
    *,
    batch: int | None = None,
    symbols: Mapping[str, int] | None = None,
) -> Report:
    """The same without the arena, so that nothing is lowered for it."""
    binding = bind(model, inputs, batch, symbols)
    return analyse(model.settled(binding), count, binding)
