"""How many launches a step of training takes on a card, and which it has no need of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from cuda.test_networks import MODELS
from graphs import rewritten

from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.program import Access, Place, Program, Step
from convdsl.lowering.lower import lower
from convdsl.schedules.cuda.machine import cuda_machine
from convdsl.training.settings import complete
from convdsl.training.step import training_step


def step_of(name: str, more: Mapping[str, Any]) -> Program:
    """The program of a step of training."""
    model = MODELS[name]()
    said = {"optimizer": "sgd(lr = 0.1, momentum = 0.9)", "augment": "[]", **more}
    step = training_step(model, complete(model, said), list(model.graph.outputs))
    return lower(rewritten(step.model.graph), cuda_machine(CudaTarget()), "step").program


def copying(program: Program) -> list[Step]:
    """Steps that bring a new value to where its state is."""
    return [step for step in program.steps if any(n.startswith("update ") for n in step.nodes)]


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "attention"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"optimizer": "adamw(lr = 0.001)", "ema": 0.9},
        {"optimizer": "rmsprop(lr = 0.001)", "clip": 1.0, "accumulate": 2},
    ],
    ids=["sgd", "adamw", "rmsprop"],
)
def test_states_are_changed_where_they_lie(name: str, more: Mapping[str, Any]) -> None:
    """Weights, slots and running statistics, by the kernels that make them."""
    program = step_of(name, more)
    assert copying(program) == []
    changed = {
        argument.slot
        for step in program.steps
        for argument in step.arguments
        if argument.place is Place.STATE and argument.access is not Access.READ
    }
    assert changed == set(range(len(program.states)))
