"""Channels that move between vectors: concatenation, split, slice and shuffle at any offset.

    y[n, k, ..] = x[n, k - 58, ..]     y[n, k, ..] = x[n, k mod 2 * 58 + floor(k / 2), ..]

Which channel of which operand each lane takes is known when code is made: a vector of the output
is a shuffle of a few vectors. Most of them move alike, as far apart on either side: vectors that do
are a run, and share code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Expr, IndexCompare, Read, Reduce, Select, walk
from convdsl.kernel.nodes import Load, Shuffle, Value, ValueType
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.kernel.target import Target
from convdsl.schedules.chain import emit_chain
from convdsl.schedules.contraction import depends
from convdsl.schedules.cpu import generic
from convdsl.schedules.emission import Emitter, View, extent_of, lane_symbol
from convdsl.schedules.frame import Frame
from convdsl.schedules.merging import merged
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, evaluate, substitute, symbols_of
from convdsl.tensor.records import record

_RUNS = 16  # each is code of its own
_SOURCES = 16  # vectors that one is made of; beyond, lanes may as well be picked one by one
_SHUFFLE, _MOVE = 1.0, 1.0  # cycles of a shuffle, and of a vector that is loaded or stored

_Numbers: TypeAlias = "npt.NDArray[np.int64]"


@record
class Move:
    """Where the lanes of one vector come from: `vectors` are (read, number of the vector), `lanes`
    of each lane (which of them, the lane there)."""

    vectors: tuple[tuple[Read, int], ...]
    lanes: tuple[tuple[int, int], ...]

    @property
    def shuffled(self) -> bool:
        """Whether it is anything but a vector as it lies."""
        return len(self.vectors) > 1 or any(i != lane for i, (_, lane) in enumerate(self.lanes))

    def beside(self, other: Move) -> tuple[int, ...] | None:
        """How many vectors further on in each operand another one reads, if alike."""
        reads = [read for read, _ in self.vectors]
        if self.lanes != other.lanes or reads != [read for read, _ in other.vectors]:
            return None
        pairs = zip(self.vectors, other.vectors, strict=True)
        return tuple(there - here for (_, here), (_, there) in pairs)


@record
class Run:
    """The vectors first, first + every, .. of the output: those of the operands go on by `steps`.
    The last one may have `valid` channels alone."""

    first: int
    every: int
    count: int
    move: Move
    steps: tuple[int, ...]
    valid: int | None = None


@record
class Plan:
    """A task over as few axes as it has, and how its vectors move."""

    task: Task
    runs: tuple[Run, ...]

    @property
    def cycles(self) -> float:
        """Of whole vectors."""
        each = sum(r.count * (_MOVE + len(r.move.vectors) * (_MOVE + _SHUFFLE)) for r in self.runs)
        layout = self.task.layout
        return each * (layout.size / layout.block / layout.blocks)


def plan(task: Task, target: Target) -> Plan | None:
    """None where channels stay where they are, or are more than moved."""
    root = task.stages[0]
    if task.layout.axis != 1 or task.layout.block < 2 or task.ending or task.earlier or task.over:
        return None
    if len(task.outputs) != 1 or task.outputs[0].at is not None or not _moves(root.body):
        return None
    if any(isinstance(node, Reduce) for stage in task.stages for node in walk(stage.body)):
        return None
    task = merged(task)
    if not all(_in_vectors(read, task) for read in _reads(task.stages[0].body)):
        return None
    moves = _all(task)
    if moves is None:
        return None
    runs = tuple(_runs(moves, extent_of(task.axes[1]) % task.layout.block))
    return Plan(task, runs) if len(runs) <= _RUNS else None


def _moves(body: Expr) -> bool:
    """Whether it is a read, or chooses among some by an index."""
    match body:
        case Read():
            return body.outside is None
        case Select(IndexCompare(), one, other):
            return _moves(one) and _moves(other)
        case _:
            return False


def _reads(body: Expr) -> Iterator[Read]:
    return (node for node in walk(body) if isinstance(node, Read))


def _in_vectors(read: Read, task: Task) -> bool:
    """Whether an operand lies in vectors of channels, as the output does, and whatever moves
    channels moves nothing else."""
    layout, channel = task.operand(read.tensor.name).layout, task.axes[1]
    if layout is None or (layout.axis, layout.block) != (1, task.layout.block):
        return False
    others = [axis for axis in task.axes if axis is not channel]
    return not any(depends(read.index[1], axis) for axis in others) and not any(
        depends(d, channel) for i, d in enumerate(read.index) if i != 1
    )


def _all(task: Task) -> list[Move] | None:
    """How every vector moves; None where one comes from too many, where something else than the
    channel decides that, or where all stay as they are. Lanes that do not exist go on behind the
    last channel that does, as far as its vector goes: a last vector that is as it lies stays so."""
    body, channel, block = task.stages[0].body, task.axes[1], task.layout.block
    places = _Places([], *(np.zeros(extent_of(channel), np.int64) for _ in range(2)))
    if not places.find(body, channel.name, np.arange(extent_of(channel))):
        return None
    reads, missing = places.reads, -extent_of(channel) % block
    end = (places.channel[-1] // block + 1) * block - 1
    behind = np.minimum(places.channel[-1] + np.arange(1, missing + 1), end)
    read = np.append(places.read, np.full(missing, places.read[-1])).reshape(-1, block)
    at = np.append(places.channel, behind).reshape(-1, block)
    first, stays = at[:, :1], np.arange(block)
    if np.all((read == read[:, :1]) & (first % block == 0) & (at == first + stays)):
        return None
    moves = [_move(reads, *rows) for rows in zip(read.tolist(), at.tolist(), strict=True)]
    return moves if all(len(move.vectors) <= _SOURCES for move in moves) else None


@record
class _Places:
    """Where channels come from: of each the number of who reads it, among those there are, and its
    number in there."""

    reads: list[Read]
    read: _Numbers
    channel: _Numbers

    def find(self, body: Expr, channel: str, those: _Numbers) -> bool:
        """Write down those channels; False where something else decides that too."""
        if not those.size:
            return True
        if isinstance(body, Select):
            assert isinstance(body.condition, IndexCompare)
            chosen = _chosen(body.condition, channel, those)
            return (
                chosen is not None
                and self.find(body.yes, channel, those[chosen])
                and self.find(body.no, channel, those[~chosen])
            )
        assert isinstance(body, Read)
        if body not in self.reads:
            self.reads.append(body)
        self.read[those] = self.reads.index(body)
        self.channel[those] = evaluate(body.index[1], {channel: those})
        return True


def _chosen(test: IndexCompare, channel: str, those: _Numbers) -> npt.NDArray[np.bool_] | None:
    """For which of those channels a test holds; None where that depends on anything else."""
    difference = test.a - test.b
    if not {symbol.name for symbol in symbols_of(difference)} <= {channel}:
        return None
    holds = FUNCTIONS[test.op].meaning(evaluate(difference, {channel: those}), 0)
    return np.broadcast_to(holds, those.shape)


def _move(reads: Sequence[Read], which: Sequence[int], channels: Sequence[int]) -> Move:
    block = len(channels)
    places = [(i, *divmod(channel, block)) for i, channel in zip(which, channels, strict=True)]
    vectors = list(dict.fromkeys((i, vector) for i, vector, _ in places))
    lanes = tuple((vectors.index((i, vector)), lane) for i, vector, lane in places)
    return Move(tuple((reads[i], vector) for i, vector in vectors), lanes)


def _runs(moves: Sequence[Move], ragged: int) -> Iterator[Run]:
    """Vectors that move alike and at equal distances, each once; a ragged last one by itself."""
    left = dict(enumerate(moves))
    if ragged:
        number, move = left.popitem()
        yield Run(number, 1, 1, move, (0,) * len(move.vectors), ragged)
    while left:
        first = min(left)
        move = left.pop(first)
        alike = [(n, steps) for n, m in left.items() if (steps := move.beside(m)) is not None]
        if not alike:
            yield Run(first, 1, 1, move, (0,) * len(move.vectors))
            continue
        second, steps = alike[0]
        every, count, found = second - first, 1, dict(alike)
        while found.get(first + count * every) == tuple(step * count for step in steps):
            del left[first + count * every]
            count += 1
        yield Run(first, every, count, move, steps)


def cost(task: Task, target: Target) -> float | None:
    """Cycles of loads, shuffles and stores, where that is less than picking lane by lane."""
    found = plan(task, target)
    return None if found is None else found.cycles


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """A loop over the positions of each run; images, vectors and rows are shared out."""
    found = plan(task, target)
    assert found is not None
    task, block = found.task, found.task.layout.block
    frame = generic.cut(task, target).frame(task, name)
    image, space = task.axes[0], task.axes[2:]
    names = [image.name, "run", *(axis.name for axis in space[:-1])]
    for run in found.runs:
        extents = [extent_of(image), run.count, *map(extent_of, space[:-1])]
        with frame.b.parallel(names, extents) as places:
            at = dict(zip(names, places, strict=True))
            number = at.pop("run")
            first = (run.first + number * run.every) * block
            if not space:
                _vector(frame, task, run, at, number, first)
                continue
            with frame.b.serial(space[-1].name, extent_of(space[-1])) as last:
                _vector(frame, task, run, {**at, space[-1].name: last}, number, first)
    return frame.finish()


def _vector(
    frame: Frame, task: Task, run: Run, at: dict[str, Dim], number: Dim, first: Dim
) -> None:
    """One vector of the output at a place of all axes but that of channels."""
    b, channel = frame.b, task.axes[1].name
    value = _made(b, frame.views, run, at, number)
    emitter = Emitter(b, frame.views, b.lanes, run.valid, ((task.stages[0].body, value),))
    lane = lane_symbol(b.lanes)
    emit_chain(emitter, task, {**at, channel: first + lane}, {**at, channel: first})


def _made(b: Builder, views: dict[str, View], run: Run, at: dict[str, Dim], number: Dim) -> Value:
    """The vectors that it comes from, shuffled into one: each in turn joins what is there."""
    loaded: list[Value] = []
    for (read, vector), step in zip(run.move.vectors, run.steps, strict=True):
        view = views[read.tensor.name]
        index = [substitute(d, at) for d in read.index]
        index[1] = (vector + number * step) * b.lanes
        where = view.layout.offset(index)
        loaded.append(b.let(Load(view.buffer, where, ValueType(read.dtype, b.lanes)), "x"))
    made = loaded[0]
    if run.move.shuffled:
        for i, other in list(enumerate(loaded))[min(1, len(loaded) - 1) :]:
            made = b.let(Shuffle(made, other, _joined(run.move, i, b.lanes)), "y")
    return made


def _joined(move: Move, i: int, block: int) -> tuple[int, ...]:
    """The lanes of what is made of the vectors before i, and of vector i behind it."""
    behind = block if i else 0
    before = [own if i <= 1 else place for place, (_, own) in enumerate(move.lanes)]
    pairs = zip(move.lanes, before, strict=True)
    return tuple(behind + own if source == i else kept for (source, own), kept in pairs)


def lanes(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "lanes",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
    )
