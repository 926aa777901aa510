"""The one schedule of a tiny card: a block for each position of the output.

Where a value is a reduction, the threads of its block share out the positions of that: each keeps
its part in a register, leaves it in shared memory, and halves of the threads add up pairs, with
a barrier after each round. The first thread runs what follows and stores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack

from convdsl.kernel.expr import Reduce, walk
from convdsl.kernel.nodes import Binary, Const, Get, IndexTest, Load, Value, ValueType
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.schedules.chain import emit_chain
from convdsl.schedules.emission import Emitter, extent_of
from convdsl.schedules.frame import Frame
from convdsl.schedules.task import Schedule, Scheduled, Task
from convdsl.tensor import Dim, floor_div

THREADS = 4


def emit(task: Task, name: str) -> Scheduled:
    frame = Frame.open(task, name)
    b, names = frame.b, [axis.name for axis in task.axes]
    extents = [extent_of(axis) for axis in task.axes]
    reduces = _shared_out(task)
    with b.blocks(("block",), (math.prod(extents),)) as (block,):
        at = dict(zip(names, _unravelled(block, extents), strict=True))
        parts = [b.shared(f"part{i}", THREADS, e.dtype) for i, e in enumerate(reduces)]
        with b.threads(("t",), (THREADS,)) as (t,):
            emitter, known = Emitter(b, frame.views, 1), list[tuple[Reduce, Value]]()
            for part, reduce in zip(parts, reduces, strict=True):
                type = ValueType(reduce.dtype)
                b.store(part, t, _own_part(emitter, reduce, at, t))
                b.barrier()
                half = THREADS // 2
                while half:
                    with b.when(IndexTest("lt", t, half)):
                        pair = (Load(part, t, type), Load(part, t + half, type))
                        b.store(part, t, Binary(REDUCTIONS[reduce.op].combine, *pair))
                    b.barrier()
                    half //= 2
                known.append((reduce, Load(part, 0, type)))
            with b.when(IndexTest("eq", t, 0)):
                emit_chain(Emitter(b, frame.views, 1, known=tuple(known)), task, at, at)
    return frame.finish()


def _shared_out(task: Task) -> list[Reduce]:
    """The reductions of a task, where none stands in another: else the first thread does them."""
    found = [e for e in walk(task.root.body) if isinstance(e, Reduce)]
    nested = any(isinstance(inner, Reduce) for e in found for inner in walk(e.body))
    return [] if nested else found


def _own_part(emitter: Emitter, reduce: Reduce, at: dict[str, Dim], t: Dim) -> Value:
    """What one thread combines: every so many positions of the first axis, all of the others."""
    b, type, reduction = emitter.b, ValueType(reduce.dtype), REDUCTIONS[reduce.op]
    acc = b.registers(1, type)
    b.set(acc, 0, Const(reduction.neutral(reduce.dtype), type))
    first, *others = reduce.axes
    extent = extent_of(first)
    with ExitStack() as stack:
        turn = stack.enter_context(b.serial("turn", -(-extent // THREADS)))
        position = turn * THREADS + t
        stack.enter_context(b.when(IndexTest("lt", position, extent)))
        bound = {first.name: position}
        for axis in others:
            bound[axis.name] = stack.enter_context(b.serial(axis.name, extent_of(axis)))
        value = emitter.emit(reduce.body, {**at, **bound})
        b.set(acc, 0, Binary(reduction.combine, Get(acc, 0), value))
    return Get(acc, 0)


def _unravelled(number: Dim, extents: list[int]) -> Iterator[Dim]:
    """The position of which a number is the row-major place."""
    for i, extent in enumerate(extents):
        inner = math.prod(extents[i + 1 :])
        yield floor_div(number, inner) - floor_div(number, inner * extent) * extent


GRID = Schedule("grid", lambda task: 1.0, emit)
