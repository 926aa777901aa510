"""How many samples of a batch a processor does best to meet at once.

Values of sixteen images leave the caches before the next layer reads them, those of one or two do
not; weights that come from memory again for the next samples have to be hidden by the arithmetic
on fewer.
"""

from __future__ import annotations

from collections.abc import Iterator

from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.kernel.expr import Reduce, walk
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.memory import FROM_MEMORY, NEARBY, beside
from convdsl.tensor import DType
from convdsl.tensor.records import record

_WAITED = 3.0  # bytes a cycle of values from memory: 1 to 2 on a Zen 3 that others use, 6 else
_ISSUED = 2.0  # vectors of multiply-adds a cycle
_STEP = 3000.0  # cycles that a step takes besides
_SAVED, _GROWN = 3.0, 4.0  # arithmetic and filters of Winograd's products, to direct ones
_WORTH = 0.97  # of the time, from which on rounds are made


@record
class _Layer:
    """Of one operator and one sample: cycles of its multiply-adds, bytes of its weights, and of
    each value that it reads or makes. `dense`: a convolution that Winograd's products are for."""

    cycles: float
    weights: float
    values: tuple[float, ...]
    dense: bool

    def time(self, samples: int, near: float) -> float:
        """Cycles a sample, of so many at once."""
        ways = [(self.cycles, self.weights)]
        if self.dense:
            ways.append((self.cycles / _SAVED, self.weights * _GROWN))
        arithmetic = min(beside(work, bytes / FROM_MEMORY / samples) for work, bytes in ways)
        waited = sum(size for size in self.values if size * samples > near) / _WAITED
        return arithmetic + waited + _STEP / samples


def samples_at_once(one: Graph, batch: int, target: Target) -> int:
    """How many samples of a batch to meet at once; `one` is the graph of one sample."""
    near = NEARBY * float(target.caches.l2_bytes)
    layers = list(_layers(one, target.lanes(DType.F32)))
    if all(size * batch <= near for layer in layers for size in layer.values):
        return batch
    times = {
        samples: sum(layer.time(samples, near) for layer in layers)
        for samples in range(batch, 0, -1)
        if batch % samples == 0
    }
    best = min(times, key=lambda samples: times[samples])
    return best if times[best] < times[batch] * _WORTH else batch


def _layers(graph: Graph, lanes: int) -> Iterator[_Layer]:
    """Operators that add up; what is done to their elements alone goes with them."""
    for node in graph.op_nodes():
        stages = node.call.kernel.stages
        if not any(isinstance(e, Reduce) for stage in stages for e in walk(stage.body)):
            continue
        macs = node.op.cost(node.call).macs
        weights = [v for v in node.inputs.values() if isinstance(v.node, StateNode)]
        values = [v for v in node.inputs.values() if not isinstance(v.node, StateNode)]
        yield _Layer(
            (macs if isinstance(macs, int) else 0) / (lanes * _ISSUED),
            sum(map(_bytes, weights)),
            tuple(map(_bytes, (*values, *node.outputs))),
            _is_dense(node),
        )


def _is_dense(node: OpNode) -> bool:
    weight = node.inputs.get("weight")
    attributes = node.call.attributes
    square = weight is not None and tuple(weight.type.shape[2:]) == (3, 3)
    return square and attributes.get("stride") in (1, (1, 1)) and attributes.get("groups", 1) == 1


def _bytes(value: Value) -> float:
    size = value.type.bytes
    return float(size) if isinstance(size, int) else 0.0
