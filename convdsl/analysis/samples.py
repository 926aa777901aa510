"""Whether what a network says of a sample depends on that sample alone.

Then samples of different callers may share a batch. An element of a value belongs to a sample if
the value's first axis is the batch and nothing that the element is made of was read at another
place of the batch. Read off the arithmetic of every operator, so no operator has a rule here:
in a stage y[n, ...] of a value per sample,

    values per sample are read at n, and at no other first index;
    n, and the size of the batch, are otherwise in no index, no condition and no number.

What does not depend on inputs is free of both as well. Whatever else there is (statistics of
a batch, products of samples with each other, samples folded into another axis) counts as mixing
them: False says that it is not proven.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.model import Model
from convdsl.kernel.expr import Expr, Pick, Read, Reduce, Stage, indices_of, walk
from convdsl.tensor import Dim, Symbol, TensorType, symbols_of


def samples_are_apart(model: Model) -> bool:
    """Whether all inputs and outputs have the batch first, nothing is kept between calls, and no
    output of a sample depends on another one, nor on how many there are. For a network that is
    another graph for other sizes it is not proven."""
    if model.deciding or model.obstacle is not None:
        return False
    if model.reread is not None and not all(map(_is_any_size, model.symbols)):
        return False
    return apart(model.graph)


def batch_of(graph: Graph) -> Symbol | None:
    """The size that stands first in the first input, whatever it is."""
    types = [value.type for value in graph.inputs.values()]
    symbol = _plain_symbol(types[0].shape[0]) if types and types[0].rank else None
    return symbol if symbol is not None and _is_any_size(symbol) else None


def _is_any_size(symbol: Symbol) -> bool:
    return symbol.minimum <= 1 and symbol.maximum is None and symbol.divisor == 1


def apart(graph: Graph) -> bool:
    """The same of a graph. The batch, `N` in the language and whatever a file calls it, is the size
    that stands first everywhere, and nowhere else."""
    types = [value.type for value in (*graph.inputs.values(), *graph.outputs.values())]
    symbol = _plain_symbol(types[0].shape[0]) if graph.inputs and types[0].rank else None
    if symbol is None or graph.updates or not all(_has_batch(type, symbol) for type in types):
        return False
    kinds: dict[Value, bool | None] = {}
    for node in graph.nodes():
        if isinstance(node, OpNode):
            found = _through(node, kinds, symbol)
        else:
            found = [node.outputs[0] in graph.inputs.values() for _ in node.outputs]
        kinds |= zip(node.outputs, found, strict=True)
    return all(kinds[value] is True for value in graph.outputs.values())


def _plain_symbol(extent: Dim) -> Symbol | None:
    """The symbol that an extent is, where it is one."""
    return next((s for s in symbols_of(extent) if s.name == str(extent)), None)


def _has_batch(type: TensorType, batch: Symbol) -> bool:
    """[N, ...], and N nowhere else."""
    first, others = type.shape[:1], type.shape[1:]
    return [*map(str, first)] == [batch.name] and all(batch.name not in _names(e) for e in others)


def _through(
    node: OpNode, kinds: Mapping[Value, bool | None], batch: Symbol
) -> Iterator[bool | None]:
    """Of each output of an operator whether it is per sample; None where samples are mixed."""
    kernel = node.call.kernel
    known = {name: kinds[value] for name, value in node.inputs.items()}
    for stage in kernel.stages:
        known[stage.target.name] = _kind(stage, known, batch)
    return (known[name] for name in kernel.outputs)


def _kind(stage: Stage, known: Mapping[str, bool | None], batch: Symbol) -> bool | None:
    """Whether a stage is per sample, or the same for all; None where it is neither."""
    expressions = list(walk(stage.body))
    read = {known[e.tensor.name] for e in expressions if isinstance(e, Read)}
    along = {axis.name for axis in stage.axes if batch.name in _names(axis.extent)}
    sample = stage.axes[0] if stage.axes and str(stage.axes[0].extent) == batch.name else None
    if None in read or len(along) > (sample is not None) or (True in read and sample is None):
        return None
    place = None if sample is None else sample.name
    used = {name for e in expressions for name in _used(e, known, place, batch)}
    return None if used & {*along, batch.name} else True in read


def _used(
    e: Expr, known: Mapping[str, bool | None], place: str | None, batch: Symbol
) -> Iterator[str]:
    """Names in an expression's own indices, conditions and extents, but for the place in the batch;
    the batch itself where a value per sample is read anywhere else."""
    indices: tuple[Dim, ...] = indices_of(e)
    match e:
        case Read(tensor, (first, *others)) if str(tensor.type.shape[0]) == batch.name:
            if str(first) == place:
                indices = tuple(others)
            elif known[tensor.name]:
                yield batch.name
        case Reduce():
            indices = tuple(axis.extent for axis in e.axes)
        case Pick():
            indices = (e.axis.extent,)
        case _:
            pass
    for index in indices:
        yield from _names(index)


def _names(value: Dim) -> set[str]:
    return {symbol.name for symbol in symbols_of(value)}
