"""The analyses against brute force on random branched graphs."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from graphs import Array, evaluate_graph, random_arrays
from random_graphs import (
    activation,
    batch_norm,
    convolution,
    copy,
    depthwise,
    gate,
    join,
    pooling,
    random_graph,
    scaled,
    transposed,
)

from convdsl.analysis.cost import costs
from convdsl.analysis.fields import Field
from convdsl.analysis.receptive_field import propagate
from convdsl.ir.graph import Graph
from convdsl.kernel.evaluate import Counter

SPATIAL = (convolution, convolution, depthwise, transposed, pooling, join, join, activation,
           batch_norm, copy, gate, scaled)  # fmt: skip


@pytest.mark.dear
@pytest.mark.drawn(share=2)
@pytest.mark.parametrize("block", range(10))
def test_flops_are_the_arithmetic_really_executed(block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        graph, counter = random_graph(seed), Counter()
        evaluate_graph(graph, random_arrays(graph, seed), counter)
        stated = sum(cost.flops for cost in costs(graph).values())
        assert counter.operations == stated, f"seed {seed}"


def line_graph(seed: int) -> Graph:
    """A graph of one or two spatial axes whose batch holds a sample per perturbed position."""
    rank = 1 if seed % 4 else 2
    length = random.Random(seed).randint(3, 7)
    size = 30 if rank == 1 else 14
    return random_graph(
        seed, rank=rank, size=size, batch=size + 4, steps=SPATIAL, length=length, tail=False
    )


def moved(graph: Graph, axis: int, seed: int) -> Array:
    """[output position, input position] along an axis: whether the one moves with the other.

    Sample i of the batch has position i of the input changed, the last one nothing. Every
    other seed makes all numbers positive, so that nothing is cut off by a relu.
    """
    arrays = random_arrays(graph, seed)
    if seed % 2:
        arrays = {name: np.abs(array) for name, array in arrays.items()}
    x = arrays["x"]
    x[:] = x[:1]
    for position in range(x.shape[axis]):
        where = [slice(None)] * x.ndim
        where[0], where[axis] = slice(position, position + 1), slice(position, position + 1)
        x[tuple(where)] += 3.0
    y = evaluate_graph(graph, arrays)["y"]
    changed = np.abs(y - y[-1:]) > 1e-11 * np.max(np.abs(y), initial=1e-6)  # beyond rounding
    others = tuple(d for d in range(1, y.ndim) if d != axis)
    return changed.any(axis=others).T[:, : x.shape[axis]]


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("block", range(20))
def test_outputs_move_inside_their_fields_and_nowhere_else(block: int) -> None:
    """Outside the field nothing moves; at either end of it something does.

    The ends are tried where the field lies inside the input and the position in the middle of
    the output: nearer the border, part of it is seen through padding or was cut off.
    """
    for seed in range(block * 10, block * 10 + 10):
        graph = line_graph(seed)
        seen = propagate(graph)[graph.outputs["y"]]
        for axis in range(2, graph.outputs["y"].type.rank):
            field = seen[("x", axis)]
            assert field is not None, f"seed {seed}"
            check_axis(graph, field, axis, seed)


def check_axis(graph: Graph, field: Field, axis: int, seed: int) -> None:
    found = moved(graph, axis, 0)
    for trial in range(1, 3):
        found = found | moved(graph, axis, trial)
    outputs, inputs = found.shape
    for o, i in itertools.product(range(outputs), range(inputs)):
        interval = field.at({axis: o})
        inside = interval is not None and interval.lo <= i <= interval.hi
        assert inside or not found[o, i], f"seed {seed} axis {axis}: {i} moves {o}"
    for o in range(outputs // 3, outputs - outputs // 3):
        interval = field.at({axis: o})
        if interval is not None and interval.lo >= 0 and interval.hi < inputs:
            for end in (interval.lo, interval.hi):
                assert found[o, end], f"seed {seed} axis {axis}: {end} does not move {o}"


@pytest.mark.dear(share=4)
def test_most_fields_are_checked_at_their_ends() -> None:
    """The check above would be idle if fields were wider than inputs."""
    checked = 0
    for seed in range(200):
        graph = line_graph(seed)
        y = graph.outputs["y"]
        for axis in range(2, y.type.rank):
            field, extent = propagate(graph)[y][("x", axis)], y.type.shape[axis]
            assert field is not None
            middle = [field.at({axis: o}) for o in range(extent // 3, extent - extent // 3)]
            size = graph.inputs["x"].type.shape[axis]
            checked += any(i is not None and i.lo >= 0 and i.hi < size for i in middle)
    assert checked > 150
