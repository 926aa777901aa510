"""Receptive fields of every operator in drawn configurations, by perturbation."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Array
from op_cases import draw_case
from op_cases.draw import Case

from convdsl.analysis.fields import Field
from convdsl.analysis.receptive_field import Known, propagate
from convdsl.analysis.tables import Table
from convdsl.ir.graph import Graph, OpNode
from convdsl.kernel.evaluate import evaluate
from convdsl.ops import OPERATORS

pytestmark = pytest.mark.drawn

CASES = 6


def graph_of(case: Case) -> tuple[Graph, OpNode]:
    """The operator alone, all its operands model inputs."""
    graph, call = Graph(), case.call
    inputs = {name: graph.add_input(name, type) for name, type in call.types.items()}
    node = graph.apply(case.op, inputs, call.attributes, name="node")
    graph.outputs = {value.name: value for value in node.outputs}
    return graph, node


def run(case: Case, arrays: dict[str, Array]) -> list[Array]:
    call = case.call
    found = evaluate(call.kernel, arrays)
    return [found[name] for name in call.output_names]


def folds_back(case: Case) -> bool:
    """Copies of the input stand around it: fields count them as padding."""
    attributes = case.call.attributes
    return {attributes.get("pad_mode"), attributes.get("mode")} & {"reflect", "circular"} != set()


@pytest.mark.parametrize(
    ("name", "seed"), [(op.name, seed) for op in OPERATORS for seed in range(CASES)]
)
def test_nothing_outside_the_field_matters(name: str, seed: int) -> None:
    case = draw_case(name, seed)
    if folds_back(case):
        return
    graph, node = graph_of(case)
    seen = propagate(graph)
    before = run(case, dict(case.arrays))
    for source, axis in sorted({key for value in node.outputs for key in seen[value]}):
        for position in range(case.arrays[source].shape[axis]):
            after = run(case, perturbed(case, source, axis, position))
            for value, old, new in zip(node.outputs, before, after, strict=True):
                field = seen[value].get((source, axis), Field(()))
                assert field is not None
                extent = case.arrays[source].shape[axis]
                check(field, position, extent, ~((old == new) | ((old != old) & (new != new))))


def perturbed(case: Case, source: str, axis: int, position: int) -> dict[str, Array]:
    array = case.arrays[source].copy()
    line = array[(slice(None),) * axis + (position,)]
    line[...] = ~line if array.dtype == bool else line + 3 * np.ones_like(line)
    return {**case.arrays, source: array}


def check(field: Known, position: int, extent: int, changed: Array) -> None:
    """Every output position that changed has `position` in its field, borders repeated."""
    if isinstance(field, Table):
        inside = np.broadcast_to((field.lo <= position) & (position <= field.hi), changed.shape)
        assert not (changed & ~inside).any()
        return
    axes = sorted({path.axis for path in field.paths if path.axis is not None})
    others = tuple(axis for axis in range(changed.ndim) if axis not in axes)
    for index in np.argwhere(changed.any(axis=others)):
        interval = field.at(dict(zip(axes, index.tolist(), strict=True)))
        assert interval is not None
        low, high = (min(max(end, 0), extent - 1) for end in (interval.lo, interval.hi))
        assert low <= position <= high
