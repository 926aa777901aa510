"""Packed weights: where each comes from, and how it gets into the weight memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.ir.graph import Graph, Value
from convdsl.ir.weight_time import weight_time_values
from convdsl.kernel.evaluate import evaluate
from convdsl.kernel.expr import TensorExpr
from convdsl.schedules.task import Pack
from convdsl.tensor import DType

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Source:
    """Where a packed weight comes from: a weight-time value of the graph, or stages over such."""

    value: Value | None
    expr: TensorExpr | None = None
    inputs: tuple[tuple[str, Source], ...] = ()

    def values(self) -> Iterator[Value]:
        """The values of the graph that it is made of."""
        if self.value is not None:
            yield self.value
        for _, source in self.inputs:
            yield from source.values()


@dataclass(frozen=True)
class Packing:
    """One packed weight: its source, its form, its place in the weight memory.

    stage: for a source that is made by a stage of lowering's own, the number of the step that
    reads it first, and the variable's name there.
    """

    source: Source
    pack: Pack
    dtype: DType
    offset: int
    stage: tuple[int, str] | None = None


def pack_weights(
    graph: Graph,
    packings: Sequence[Packing],
    states: Mapping[str, Array],
    out: npt.NDArray[np.uint8],
) -> None:
    """Evaluate weight-time arithmetic and write all packed weights into `out`, zeros between
    them. Each value is packed as soon as it is known, and then let go."""
    missing = [set(packing.source.values()) for packing in packings]
    waiting: dict[Value, list[int]] = {}
    for number, values in enumerate(missing):
        for value in values:
            waiting.setdefault(value, []).append(number)
    held: dict[Value, Array] = {}
    for number, values in enumerate(missing):
        if not values:  # made of indices alone: fractions of a resize
            _write(packings[number], held, out)
    for value, array in weight_time_values(graph, states, waiting):
        held[value] = array
        for number in waiting[value]:
            missing[number].discard(value)
            if not missing[number]:
                _write(packings[number], held, out)
        if all(not missing[number] for number in waiting[value]):
            del held[value]
    _clear_gaps(packings, out)


def _write(packing: Packing, values: Mapping[Value, Array], out: npt.NDArray[np.uint8]) -> None:
    array = _evaluate(packing.source, values).astype(packing.dtype.numpy, copy=False)
    end = packing.offset + packing.pack.size * packing.dtype.bytes
    packing.pack.pack(array, out[packing.offset : end].view(packing.dtype.numpy))


def _evaluate(source: Source, values: Mapping[Value, Array]) -> Array:
    if source.value is not None:
        return values[source.value]
    assert source.expr is not None
    arrays = {name: _evaluate(inner, values) for name, inner in source.inputs}
    return evaluate(source.expr, arrays)[source.expr.outputs[0]]


def _clear_gaps(packings: Sequence[Packing], out: npt.NDArray[np.uint8]) -> None:
    end = 0
    for packing in sorted(packings, key=lambda p: p.offset):
        out[end : packing.offset] = 0
        end = packing.offset + packing.pack.size * packing.dtype.bytes
    out[end:] = 0
