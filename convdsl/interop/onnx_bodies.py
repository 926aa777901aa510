"""Nodes that hold graphs: a branch that is chosen, and rounds that are written out.

If, where the condition is known, is the branch that it chooses; where data choose, both are
computed. The rounds of Loop and Scan are written out one behind the other: their number is known,
at most MOST_STEPS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from convdsl.interop.correspondence.recurrent import MOST_STEPS
from convdsl.interop.onnx_nodes import BRANCHES, LOOP, SCAN
from convdsl.interop.reading.node import Reading
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, dtype_of, shape_of

if TYPE_CHECKING:
    import onnx

Tensors: TypeAlias = "Sequence[Tensor | None]"


class Reader(Protocol):
    """Who reads the nodes of a graph inside a node."""

    def stored(self, graph: onnx.GraphProto) -> dict[str, Tensor]:
        """What a graph stores."""
        ...

    def outputs(self, graph: onnx.GraphProto, given: Mapping[str, Tensor]) -> Tensors:
        """A graph's outputs. Names in it are its own, `given` among them; it sees those outside."""
        ...


def read_graphs(r: Reading, reader: Reader) -> Tensors:
    """The outputs of a node that holds graphs."""
    graphs = {attribute.name: attribute.g for attribute in r.proto.attribute}
    match r.proto.op_type:
        case "If":
            return _branch(r, reader, graphs)
        case "Loop":
            return _loop(r, reader, graphs["body"])
        case _:
            return _scan(r, reader, graphs["body"])


# Branches


def _branch(r: Reading, reader: Reader, graphs: Mapping[str, onnx.GraphProto]) -> Tensors:
    condition = r[0]
    if isinstance(condition, Known):
        graph = graphs["then_branch" if r.array(0).reshape(()) else "else_branch"]
        return reader.outputs(graph, reader.stored(graph))
    if shape_of(condition):
        condition = r.reshape(condition, ())
    both = [
        reader.outputs(graph, reader.stored(graph))
        for graph in (graphs["then_branch"], graphs["else_branch"])
    ]
    return [
        _chosen(r, condition, name, *pair)
        for name, *pair in zip(r.proto.output, *both, strict=True)
    ]


def _chosen(
    r: Reading, condition: Tensor, name: str, yes: Tensor | None, no: Tensor | None
) -> Tensor | None:
    if yes is None or no is None or not name:
        return None
    one, other = ((dtype_of(x), shape_of(x)) for x in (yes, no))
    if one != other:
        raise ReadError(
            f"data choose between {name} of shape {list(one[1])} and of shape {list(other[1])}"
        )
    return r.apply("where", {"condition": condition, "a": yes, "b": no})


# Rounds


def _loop(r: Reading, reader: Reader, body: onnx.GraphProto) -> Tensors:
    """How many rounds at most, whether there is a first, and what is carried from round to round:
    the body is given the round's number, the condition and what is carried; it gives the next
    condition, what is carried on, and what each round leaves."""
    most = int(r.array(0).reshape(())) if r.has(0) else None
    goes_on = bool(r.array(1).reshape(())) if r.has(1) else True
    carried = [r[index] for index in range(2, len(r.inputs))]
    names = [info.name for info in body.input]
    stored = reader.stored(body)
    left: list[Tensors] = []
    while goes_on and (most is None or len(left) < most):
        _refuse_many(len(left) + 1 if most is None else most)
        counted = Known(np.asarray(len(left))), Known(np.asarray(True))
        given = dict(zip(names, (*counted, *carried), strict=True))
        condition, *results = reader.outputs(body, {**stored, **given})
        if not isinstance(condition, Known):
            raise ReadError("how many rounds it takes depends on data")
        goes_on = bool(condition.array.reshape(()))
        carried = _present(results[: len(carried)])
        left.append(results[len(carried) :])
    return [*carried, *_stacked(r, left, [0] * (len(body.output) - 1 - len(carried)))]


def _scan(r: Reading, reader: Reader, body: onnx.GraphProto) -> Tensors:
    """What is carried, and what is gone through along an axis: the body is given the former and a
    slice of each of the latter."""
    if r.opset < 9:
        raise ReadError("Scan of before opset 9 is not supported")
    count = r.attribute("num_scan_inputs")
    carried = [r[index] for index in range(len(r.inputs) - count)]
    through = [r[index] for index in range(len(carried), len(r.inputs))]
    axes = _axes(r, "scan_input_axes", [len(shape_of(x)) for x in through])
    backwards = r.attribute("scan_input_directions") or [0] * count
    lengths = {r.extent(shape_of(x)[axis]) for x, axis in zip(through, axes, strict=True)}
    if len(lengths) != 1:
        raise ReadError(f"what is gone through has different lengths: {sorted(lengths)}")
    (length,) = lengths
    _refuse_many(length)
    names = [info.name for info in body.input]
    stored = reader.stored(body)
    left: list[Tensors] = []
    for number in range(length):
        parts = [
            _at(r, x, axis, length - 1 - number if back else number)
            for x, axis, back in zip(through, axes, backwards, strict=True)
        ]
        given = dict(zip(names, (*carried, *parts), strict=True))
        results = reader.outputs(body, {**stored, **given})
        left.append(results[len(carried) :])
        carried = _present(results[: len(carried)])
    back = r.attribute("scan_output_directions") or [0] * (len(body.output) - len(carried))
    columns = zip(*left, strict=True)
    rows = [list(column)[:: -1 if way else 1] for column, way in zip(columns, back, strict=True)]
    ranks = [1 + len(shape_of(x)) for x in _present([row[0] for row in rows])]
    where = _axes(r, "scan_output_axes", ranks)
    return [*carried, *_stacked(r, list(zip(*rows, strict=True)), where)]


def _axes(r: Reading, name: str, ranks: Sequence[int]) -> list[int]:
    given = r.attribute(name) or [0] * len(ranks)
    return [axis % rank for axis, rank in zip(given, ranks, strict=True)]


def _refuse_many(rounds: int) -> None:
    if rounds > MOST_STEPS:
        raise ReadError(f"{rounds} rounds are not written out; at most {MOST_STEPS} are")


def _present(tensors: Tensors) -> list[Tensor]:
    found = [x for x in tensors if x is not None]
    if len(found) < len(tensors):
        raise ReadError("what a round gives is missing")
    return found


def _at(r: Reading, x: Tensor, axis: int, place: int) -> Tensor:
    if isinstance(x, Known):
        return Known(np.take(x.array, place, axis))
    part = r.unary("slice", x, axes=(axis,), start=(place,), stop=(place + 1,), step=(1,))
    return r.unary("squeeze", part, axes=(axis,))


def _stacked(r: Reading, left: Sequence[Tensors], axes: Sequence[int]) -> list[Tensor | None]:
    """What the rounds leave, one behind the other along a new axis."""
    if axes and not left:
        raise ReadError("there is no round, and what rounds leave has no shape")
    found: list[Tensor | None] = []
    for column, axis in zip(zip(*left, strict=True), axes, strict=True):
        parts = _present(column)
        if all(isinstance(part, Known) for part in parts):
            arrays = [part.array for part in parts if isinstance(part, Known)]
            found.append(Known(np.stack(arrays, axis)))
            continue
        apart = [r.unary("unsqueeze", part, axes=(axis,)) for part in parts]
        found.append(r.joined(apart, axis))
    return found


WITH_GRAPHS = (BRANCHES, LOOP, SCAN)
"""Kinds of nodes that hold graphs."""
