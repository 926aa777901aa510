"""What `report --training` prints: arithmetic of each part of a step, states, memory by batch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convdsl.cli import console, listing
from convdsl.cli.options import batch_of, input_shapes
from convdsl.cli.settings import model_and_settings
from convdsl.kernel.signature import batch_symbol

if TYPE_CHECKING:
    from convdsl.ir.model import Model
    from convdsl.training.cost import TrainingCost


def show(options: argparse.Namespace) -> None:
    """The cost of training the model named on the command line."""
    from convdsl.sizes import bind
    from convdsl.training.cost import training_cost

    model, training, _ = model_and_settings(options)
    shapes, batch = input_shapes(options), batch_of(model, options)
    binding = bind(model, shapes, batch)
    assert training.batch is not None
    batches = _batches(model, binding, training.batch)
    cost = training_cost(model, training, options.count, binding, batches)
    if options.format == "json":
        console.result(json.dumps(cost.to_json(), indent=2))
        return
    listing.show(_parts(cost), options.format)
    console.result("")
    listing.show(_states(cost), options.format)
    if cost.memory:
        console.result("")
        listing.show(_memory(cost), options.format)


def _batches(model: Model, binding: Mapping[str, int], usual: int) -> tuple[int, ...]:
    """The batch sizes to plan memory for: what --batch says, else the run's, its half and its
    double; none where other sizes are open, or the model fixes its batch."""
    free = {symbol.name for symbol in model.symbols}
    samples = batch_symbol(free)
    if samples is None or free - {samples} - binding.keys():
        return ()
    if samples in binding:
        return (binding[samples],)
    return tuple(sorted({1, max(1, usual // 2), usual, 2 * usual}))


def _parts(cost: TrainingCost) -> list[dict[str, Any]]:
    parts = cost.to_json()["parts"]
    return [{"part": name, **figures} for name, figures in parts.items()]


def _states(cost: TrainingCost) -> list[dict[str, Any]]:
    return [
        {"states": "weights", "elements": cost.parameters, "bytes": cost.weight_bytes},
        {"states": "of these trained", "elements": cost.trained, "bytes": None},
        {"states": "running statistics", "elements": None, "bytes": cost.statistics_bytes},
        {"states": f"{cost.optimiser}'s", "elements": None, "bytes": cost.optimiser_bytes},
    ]


def _memory(cost: TrainingCost) -> list[dict[str, Any]]:
    return [
        {
            "batch": m.batch,
            "arena bytes": m.arena,
            "packed bytes": m.packed,
            "state bytes": m.states,
            "total bytes": m.total,
        }
        for m in cost.memory
    ]
