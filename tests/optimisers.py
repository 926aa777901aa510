"""Optimisers at work: a compiled graph of one update, called step after step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import convdsl
from convdsl.ir.build import Build
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.ir.techniques import OPTIMIZERS
from convdsl.ops import BY_NAME
from convdsl.tensor import DType, TensorType
from convdsl.training.optimisers import OPTIMISERS, Update

Array = np.ndarray[Any, Any]
STEPS = 100
SHAPE = (7, 5)


def update_graph(
    name: str, arguments: Mapping[str, Any], shape: tuple[int, ...], dtype: DType = DType.F64
) -> tuple[Graph, dict[str, Array]]:
    """Inputs `g` and `rate`, states `p`, the slots and `step`; and what the states start from."""
    taken = OPTIMIZERS[name].complete(arguments)
    graph, type = Graph(), TensorType(dtype, shape)
    b = Build(graph, BY_NAME)
    g, rate = b.input("g", type), b.input("rate", TensorType(DType.F64, ()))
    p, step = b.state("p", type), b.state("step", TensorType(DType.F64, ()))
    optimiser = OPTIMISERS[name]
    start: dict[str, Array] = {"step": np.zeros(())}
    slots = {}
    for slot in optimiser.slots(taken):
        slots[slot.name] = b.state(slot.name, slot.type(type))
        kept = slot.type(type)
        start[slot.name] = np.full(kept.sizes, slot.start, kept.dtype.numpy)
    after = b("add", step, b.constant(1.0, DType.F64))
    new = optimiser.update(Update(b, p, g, slots, rate, after, taken["weight_decay"], taken))
    assert new.keys() == {"parameter", *slots}
    graph.updates = {"step": after, "p": new.pop("parameter"), **new}
    graph.outputs = {"steps": after}
    return graph, start


def trajectory(
    name: str,
    arguments: Mapping[str, Any],
    p: Array,
    gradients: Sequence[Array],
    rates: Sequence[float],
    dtype: DType = DType.F64,
) -> list[Array]:
    """The parameter after every step."""
    graph, start = update_graph(name, arguments, p.shape, dtype)
    network = convdsl.compile(Model(name, graph), {"p": p, **start}, cache=False, threads=1)
    found: list[Array] = []
    for g, rate in zip(gradients, rates, strict=True):
        network(g=g, rate=np.array(rate))
        found.append(network.state["p"])
    return found


def drawn(seed: int, shape: tuple[int, ...] = SHAPE) -> tuple[Array, list[Array], list[float]]:
    """A parameter, gradients of all sizes, zero and negative ones among them, and falling rates."""
    random = np.random.default_rng(seed)
    scale = 10.0 ** random.uniform(-4, 2, shape)
    gradients = [random.normal(size=shape) * scale for _ in range(STEPS)]
    for g in gradients[::7]:
        g[random.random(shape) < 0.3] = 0.0
    gradients[3][...] = 0.0
    return random.normal(size=shape), gradients, [0.05 * 0.99**k for k in range(STEPS)]
