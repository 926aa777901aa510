"""Packed weights: where each comes from, and how it gets into the weight memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.ir.canonical import Origins
from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.timing import Timing
from convdsl.ir.weight_time import weight_time_values
from convdsl.kernel.evaluate import evaluate
from convdsl.kernel.expr import TensorExpr, format_tensor_expr, reads
from convdsl.lowering.compose import Composed
from convdsl.lowering.memory import round_up
from convdsl.schedules.task import Pack
from convdsl.tensor import DType
from convdsl.tensor.conversion import convert

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Source:
    """Where a packed weight comes from: a value of the graph that is known when weights are bound,
    or a stage of a group over such. `stage` names that by the group's last node and the
    variable; equal stages of two groups are one source."""

    value: Value | None
    expr: TensorExpr | None = None
    inputs: tuple[tuple[str, Source], ...] = ()
    stage: tuple[OpNode, str] | None = field(default=None, compare=False)

    @property
    def dtype(self) -> DType:
        """Of its elements."""
        if self.value is not None:
            return self.value.type.dtype
        assert self.expr is not None
        return self.expr.stages[-1].target.type.dtype

    def values(self) -> Iterator[Value]:
        """The values of the graph that it is made of."""
        if self.value is not None:
            yield self.value
        for _, source in self.inputs:
            yield from source.values()


@dataclass(frozen=True)
class Packing:
    """One packed weight: its source, its form, its place in the weight memory."""

    source: Source
    pack: Pack
    dtype: DType
    offset: int

    @property
    def bytes(self) -> int:
        return self.pack.size * self.dtype.bytes


class Shelf:
    """One weight memory for the programs of several sizes, which are lowered one after the other:
    what a later one packs as an earlier one does of equal weights, it finds there."""

    def __init__(self) -> None:
        self.bytes = 0
        self._places: dict[tuple[str, Pack, DType], int] = {}

    def place(self, packings: Sequence[Packing], alignment: int) -> tuple[Packing, ...]:
        """The packings of a program at their places."""
        origins = Origins()
        placed: list[Packing] = []
        for packing in packings:
            key = (_origin(packing.source, origins), packing.pack, packing.dtype)
            if key not in self._places:
                self._places[key] = self.bytes
                self.bytes += round_up(packing.bytes, alignment)
            placed.append(replace(packing, offset=self._places[key]))
        return tuple(placed)


def _origin(source: Source, origins: Origins) -> str:
    if source.value is not None:
        return origins.of(source.value)
    assert source.expr is not None
    inner = [f"{name}={_origin(part, origins)}" for name, part in source.inputs]
    return "\n".join((format_tensor_expr(source.expr), *inner))


def bound_sources(composed: Composed, last: OpNode, timing: Timing) -> dict[str, Source]:
    """The variables of a group, whose last node is given, that are known when weights are bound:
    operands, and what stages make of such alone."""
    found: dict[str, Source] = {}
    for name, value in composed.sources.items():
        if timing.is_bound(value.node):
            found[name] = Source(value)
    for stage in composed.folded:
        name = stage.target.name
        variables = {read.tensor.name: read.tensor for read in reads(stage.body)}
        expr = TensorExpr(tuple(variables.values()), (stage,), (name,))
        inputs = tuple((variable, found[variable]) for variable in variables)
        found[name] = Source(None, expr, inputs, (last, name))
    return found


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
    array = convert(_evaluate(packing.source, values), packing.source.dtype, packing.dtype)
    end = packing.offset + packing.bytes
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
        end = packing.offset + packing.bytes
    out[end:] = 0
