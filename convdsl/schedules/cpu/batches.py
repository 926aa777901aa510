"""How many samples of a batch a processor does best to meet at once.

Values of sixteen images leave the caches before the next layer reads them, those of one or two do
not; weights that come from memory again for the next samples have to be hidden by the arithmetic
on fewer.
"""

from __future__ import annotations

from collections.abc import Iterator

from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.kernel.expr import Reduce, Stage, walk
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import match_convolution
from convdsl.schedules.cpu.memory import FROM_MEMORY, NEARBY, beside
from convdsl.schedules.cpu.winograd_plan import suits, transform_cycles
from convdsl.schedules.machine import Batch
from convdsl.schedules.winograd_tiling import tilings
from convdsl.tensor import DType
from convdsl.tensor.records import record

_WAITED = 3.0  # bytes a cycle of values from memory: 1 to 2 on a Zen 3 that others use, 6 else
_ISSUED = 2.0  # vectors of multiply-adds a cycle
_STEP = 3000.0  # cycles that a step takes besides
_SHARED = 6000.0  # and that a team takes to begin one, and to wait for its last share
_DRAWING = 2  # threads that draw all that memory gives
_WORTH = 0.97  # of the time, from which on rounds are made
_ALIKE = 1.01  # of the least time: the most samples that come so near it are taken


@record
class _Way:
    """Of one way to compute an operator for one sample: cycles, and bytes of the weights, which
    come once for all samples that are met at once."""

    cycles: float
    weights: float


@record
class _Layer:
    """One operator and one sample: the ways to compute it, and bytes of each value that it reads
    or makes."""

    ways: tuple[_Way, ...]
    values: tuple[float, ...]

    def time(self, samples: int, near: float, threads: int) -> float:
        """Cycles a sample, of so many at once."""
        streams = FROM_MEMORY * min(threads, _DRAWING)
        arithmetic = min(
            beside(way.cycles / threads, way.weights / streams / samples) for way in self.ways
        )
        waited = sum(size for size in self.values if size * samples > near) / _WAITED / threads
        return arithmetic + waited + (_STEP + _SHARED * (threads > 1)) / samples


def samples_at_once(one: Graph, batch: Batch, target: Target) -> int:
    """How many samples of a batch to meet at once; `one` is the graph of one sample."""
    whole, threads = batch.samples, batch.threads
    near = NEARBY * float(target.caches.l2_bytes) * threads
    layers = list(layers_of(one, target.lanes(DType.F32), "winograd" in batch.schedules))
    if all(size * whole <= near for layer in layers for size in layer.values):
        return whole
    times = {
        samples: sum(layer.time(samples, near, threads) for layer in layers)
        for samples in range(whole, 0, -1)
        if whole % samples == 0
    }
    least = min(times.values())
    best = max(samples for samples, time in times.items() if time <= least * _ALIKE)
    return best if times[best] < times[whole] * _WORTH else whole


def layers_of(graph: Graph, lanes: int, fewer: bool) -> Iterator[_Layer]:
    """Operators that add up; what is done to their elements alone goes with them. `fewer`: with
    fewer products, where there are forms."""
    for node in graph.op_nodes():
        adding = [s for s in node.call.kernel.stages if _adds(s)]
        if not adding:
            continue
        weights = [v for v in node.inputs.values() if isinstance(v.node, StateNode)]
        values = [v for v in node.inputs.values() if not isinstance(v.node, StateNode)]
        direct = _Way(_macs(node) / (lanes * _ISSUED), sum(map(_bytes, weights)))
        ways = [direct]
        if fewer and len(adding) == 1:
            ways += _fewer(adding[0], direct, lanes)
        yield _Layer(tuple(ways), tuple(map(_bytes, (*values, *node.outputs))))


def _adds(stage: Stage) -> bool:
    return any(isinstance(e, Reduce) for e in walk(stage.body))


def _fewer(stage: Stage, direct: _Way, lanes: int) -> Iterator[_Way]:
    """By each of Winograd's forms."""
    conv = match_convolution(stage)
    if conv is None or not suits(conv, lanes):
        return
    channels = conv.groups * conv.channels_in * conv.channels_out
    for tiling in tilings(conv):
        products = tiling.count * tiling.products * channels / (lanes * _ISSUED)
        cycles = products + transform_cycles(conv, tiling, lanes)
        yield _Way(cycles, direct.weights * tiling.products / conv.taps)


def _macs(node: OpNode) -> int:
    macs = node.op.cost(node.call).macs
    return macs if isinstance(macs, int) else 0


def _bytes(value: Value) -> float:
    size = value.type.bytes
    return float(size) if isinstance(size, int) else 0.0
