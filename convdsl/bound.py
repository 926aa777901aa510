"""Weights that are bound to a model, and what they and its text say of a network together.

Whoever gives weights gives a file, `random:SEED` or arrays. Besides arrays a file may remember how
images became an input when it was trained, and what its classes were called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from convdsl.diagnostics import WeightError
from convdsl.ir.model import Model
from convdsl.ir.preprocess import Preprocessing
from convdsl.runtime.executable import Facts
from convdsl.weights import RandomWeights, bind, load


@dataclass(frozen=True)
class Bound:
    """Arrays of all states by key, where they come from, and what is to be said of them."""

    store: Any
    arrays: Mapping[str, Any]
    notes: tuple[str, ...]


def bind_weights(model: Model, weights: Any) -> Bound:
    """Weights checked against the model; against no graph yet, they are only read."""
    states, idle = model.graph.states, model.graph.idle_states
    if model.obstacle is not None:
        return Bound(load(weights or {}), {}, ())
    if weights is None and model.weights is not None:
        weights = model.weights
    if weights is None:
        missing = [n for n, node in states.items() if node.data is None and n not in idle]
        if missing:
            raise WeightError(
                f"{model.name} has {len(missing)} weights ({missing[0]}, ...) and none are given: "
                "name a weight file, or random:SEED (--weights, in Python weights=)"
            )
        weights = {}
    store = load(weights)
    bound = bind(store, states, idle)
    return Bound(store, bound, bound.notes)


def bind_weights_of(model: Model, weights: Any) -> Mapping[str, Any]:
    """Arrays of all states by key, checked against the model. Raises WeightError."""
    return bind_weights(model, weights).arrays


def arrays_of(model: Model, bound: Bound, weights: Any) -> Callable[[Model], Mapping[str, Any]]:
    """The weights that code is made with, for a model whose sizes are settled. What calls change
    is not among them: it lives in the state, and what it began as need not be kept."""
    changing, arrays = model.graph.updates, bound.arrays
    fixed = {key: arrays[key] for key in arrays if key not in changing} if changing else arrays
    if model.reread is None:
        return lambda _: fixed
    return lambda settled: fixed if settled is model else bind_weights(settled, weights).arrays


def facts_of(model: Model, bound: Bound, winograd: bool) -> Facts:
    """What travels with a network besides its code."""
    random = isinstance(bound.store, RandomWeights)
    notes = (f"weights are {bound.store.source}",) if random else ()
    images, said = _images(model, bound.store)
    return Facts(
        model.name,
        images.to_json() if images else None,
        _labels(model, bound.store),
        (*model.notes, *notes, *bound.notes, *said),
        winograd,
    )


def _images(model: Model, store: Any) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """How images become an input: as the text says, else as they did when the weights were
    trained, which is said."""
    declared = model.image_preprocessing
    trained = getattr(store, "trained", None)
    if declared is not None or trained is None or trained.preprocessing is None:
        return declared, ()
    try:
        found = Preprocessing.from_json(trained.preprocessing)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None, ()  # whatever wrote that
    if found.input not in model.inputs:
        return None, ()
    steps = " -> ".join(step.name for step in found.steps)
    return found, (f"images become {found.input} as they did in training: {steps}",)


def images_of(
    model: Model, weights: Any = None
) -> tuple[Preprocessing | None, tuple[str, ...] | None]:
    """How images become an input, and the names of the classes: as the model says, else as its
    weights remember from their training."""
    store = None if weights is None else load(weights)
    return _images(model, store)[0], _labels(model, store)


def _labels(model: Model, store: Any) -> tuple[str, ...] | None:
    """Names of the classes: those of the text, else those that the weights were trained on."""
    said = getattr(store, "labels", None)
    if model.labels is not None or said is None:
        return model.labels
    counts = [type.shape[1] for type in model.outputs.values() if type.rank > 1]
    return said if len(said) in counts else None
