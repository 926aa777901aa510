"""How many launches a step of training takes on a card, and which it has no need of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from cuda.test_networks import MODELS, compare, drawn
from cuda_shim.graphs import OnCard
from cuda_shim.running import ORDERS
from graphs import Builder, evaluate_graph, random_arrays, rewritten

import convdsl
from convdsl.backends.cuda.printer import print_module
from convdsl.backends.cuda.together import together
from convdsl.kernel.cuda_module import CudaModule, Launch
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.program import Access, Place, Program, Step
from convdsl.lowering.lower import lower
from convdsl.schedules.cuda.machine import cuda_machine
from convdsl.training.settings import complete
from convdsl.training.step import training_step

MAPS = ("vectors", "generic")
WRITTEN = (Access.WRITE, Access.UPDATE)


def step_of(name: str, more: Mapping[str, Any]) -> Program:
    """The program of a step of training."""
    model = MODELS[name]()
    said = {"optimizer": "sgd(lr = 0.1, momentum = 0.9)", "augment": "[]", **more}
    step = training_step(model, complete(model, said), list(model.graph.outputs))
    return lower(rewritten(step.model.graph), cuda_machine(CudaTarget()), "step").program


def copying(program: Program) -> list[Step]:
    """Steps that bring a new value to where its state is."""
    return [step for step in program.steps if any(n.startswith("update ") for n in step.nodes)]


@pytest.mark.dear
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("mobilenet", {}),
        ("attention", {"optimizer": "adamw(lr = 0.001)", "ema": 0.9}),
        ("resnet", {"optimizer": "rmsprop(lr = 0.001)", "clip": 1.0, "accumulate": 2}),
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


def module_of(name: str, optimizer: str, **more: Any) -> tuple[Program, CudaModule]:
    """A step of a network of the zoo, 32 images at once."""
    model = convdsl.load(name)
    said = {"optimizer": optimizer, "schedule": "constant", **more}
    step = training_step(model, complete(model, said), list(model.outputs)[:1])
    graph = rewritten(step.model.graph.bind({"N": 32}))
    target = CudaTarget()
    program = lower(graph, cuda_machine(target), "step").program
    return program, print_module(program, target)


def changing(program: Program, module: CudaModule) -> list[Launch]:
    """Launches that do nothing but change states by maps: updates by themselves."""
    steps = iter(program.steps)
    found: list[Launch] = []
    for launch in module.launches:
        own = [next(steps) for _ in range(launch.steps)]
        written = [
            a.place for s in own if s.schedule in MAPS for a in s.arguments if a.access in WRITTEN
        ]
        if written and all(place is Place.STATE for place in written):
            found.append(launch)
    return found


SGD, ADAMW = "sgd(lr = 0.1, momentum = 0.9)", "adamw(lr = 0.001)"
slow = pytest.mark.slow


@pytest.mark.dear
@pytest.mark.parametrize(
    ("name", "optimizer", "more", "updates", "most"),
    [  # launches before states were changed in place: 533 with SGD in the first
        ("resnet18_cifar", SGD, {}, 1, 350),
        pytest.param("resnet18_cifar", ADAMW, {"clip": 1.0}, 1, 425, marks=slow),
        pytest.param("mobilenet_v2", SGD, {}, 1, 705, marks=slow),
        pytest.param("resnet50", ADAMW, {"clip": 1.0}, 3, 1200, marks=slow),
    ],
)
def test_updates_are_few_launches(
    name: str, optimizer: str, more: Mapping[str, Any], updates: int, most: int
) -> None:
    """By gradients alone they are part of what makes these; by the norm of all of them one launch
    has as many as its arguments have room for."""
    program, module = module_of(name, optimizer, **more)
    assert copying(program) == []
    assert len(changing(program, module)) <= updates
    assert len(module.launches) <= most
    assert all(8 * len(launch.arguments) <= 4096 for launch in module.launches)


@pytest.mark.dear
def test_numbers_of_updates_that_are_launched_together() -> None:
    model = MODELS["lenet"]()
    said = {
        "optimizer": ADAMW,
        "augment": "[]",
        "clip": 0.5,
        "loss": "cross_entropy(logits, label)",
    }
    step = training_step(model, complete(model, said), list(model.graph.outputs))
    graph = rewritten(step.model.graph)
    program = lower(graph, cuda_machine(CudaTarget()), "step").program
    assert max(launch.steps for launch in print_module(program, CudaTarget()).launches) >= 10
    compare(graph, drawn(graph, dict(step.initial)))


def test_only_what_does_not_wait_goes_together() -> None:
    """Two maps of inputs, then one that reads what the first has made."""
    b = Builder()
    first, second = b("exp", b.input("x", 3, 40)), b("tanh", b.input("z", 7, 5))
    last = b("reshape", b("transpose", first, axes=(1, 0)), shape=(8, 15))
    graph = rewritten(b.output(first=first, second=second, last=b("neg", last)))
    program = lower(graph, cuda_machine(CudaTarget()), "fork").program
    groups = list(together(program))
    assert [step for group in groups for step in group] == list(program.steps)
    assert 1 < len(groups) < len(program.steps)
    for group in groups:
        places = [(a.place, a.slot, a.offset, a.access) for s in group for a in s.arguments]
        written = [place[:3] for place in places if place[3] in WRITTEN]
        assert all([place[:3] for place in places].count(w) == 1 for w in written)
    arrays = random_arrays(graph, seed=3)
    exact = evaluate_graph(graph, {k: a.astype("f8") for k, a in arrays.items()})
    for name, array in OnCard(graph).run_in(ORDERS, arrays)[0].items():
        np.testing.assert_allclose(array, exact[name], rtol=0, atol=1e-5)
