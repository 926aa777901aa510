"""The updates of several weights as one model: gradients come in, weights change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import convdsl
from convdsl import Executable
from convdsl.ir.build import Build
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.ir.opdef import Role
from convdsl.ir.techniques import OPTIMIZERS
from convdsl.ir.training import Choice, Training
from convdsl.ops import BY_NAME
from convdsl.tensor import DType, TensorType
from convdsl.training.updates import COUNTER, replace_weights

Array = np.ndarray[Any, Any]
SHAPES = {"stem.weight": (4, 3, 3, 3), "stem.bias": (4,), "head.weight": (5, 4), "scale": ()}


def settings(optimizer: str = "sgd", lr: float = 0.1, **said: Any) -> Training:
    """Complete settings; arguments of the optimizer in `optimizer_arguments`."""
    arguments = {"lr": lr, **said.pop("optimizer_arguments", {})}
    chosen = Choice(optimizer, OPTIMIZERS[optimizer].complete(arguments))
    return replace(Training(**said), optimizer=chosen)


def update_model(
    training: Training, weights: Mapping[str, Array], dtype: DType = DType.F64
) -> tuple[Graph, dict[str, Array]]:
    """Inputs `g.<key>` and `rate`; and what all states begin as."""
    graph = Graph()
    b = Build(graph, BY_NAME)
    rate = b.input("rate", TensorType(DType.F64, ()))
    counter = b.state(COUNTER, TensorType(DType.I64, ()), Role.BUFFER)
    gradients = {}
    for key, array in weights.items():
        type = TensorType(dtype, array.shape)
        b.state(key, type)
        gradients[key] = b.input(f"g.{key}", type)
    initial = replace_weights(b, training, gradients, counter, rate)
    graph.outputs = {"count": graph.updates[COUNTER]}
    start = {COUNTER: np.zeros((), "i8"), **weights}
    for key, first in initial.items():
        type = graph.states[key].type
        whole = weights[first] if isinstance(first, str) else first
        start[key] = np.full(type.sizes, whole, type.dtype.numpy)
    return graph, start


def compiled(training: Training, weights: Mapping[str, Array], **how: Any) -> Executable:
    graph, start = update_model(training, weights)
    return convdsl.compile(Model("updates", graph), start, cache=False, **how)


def run(
    training: Training,
    weights: Mapping[str, Array],
    steps: Sequence[Mapping[str, Array]],
    rate: float = 0.1,
) -> list[dict[str, Array]]:
    """All states after every step."""
    network = compiled(training, weights, threads=1)
    found: list[dict[str, Array]] = []
    for gradients in steps:
        given = {f"g.{key}": g for key, g in gradients.items()}
        network(**given, rate=np.array(rate))
        found.append(network.state.copy())
    return found


def drawn(seed: int, steps: int, scale: float = 1.0) -> tuple[dict[str, Array], list[Any]]:
    """Weights, and gradients for so many steps."""
    random = np.random.default_rng(seed)

    def arrays() -> dict[str, Array]:
        return {k: np.asarray(random.normal(size=s)) for k, s in SHAPES.items()}

    gradients = [{k: np.asarray(g * scale) for k, g in arrays().items()} for _ in range(steps)]
    return arrays(), gradients
