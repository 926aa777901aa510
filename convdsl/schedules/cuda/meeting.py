"""What the threads of a team have found, combined: handed around warps, and by shared memory.

The order is fixed by the numbers of threads, so that a sum is the same each time.
"""

from __future__ import annotations

from collections.abc import Sequence

from convdsl.kernel.builder import Builder
from convdsl.kernel.cuda_target import WARP
from convdsl.kernel.expr import Reduce
from convdsl.kernel.nodes import Binary, Buffer, IndexTest, Load, ReduceLanes, Value
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.tensor import Dim, floor_div


def combined(op: str, a: Value, b: Value) -> Value:
    """Two parts of a reduction as one."""
    return Binary(REDUCTIONS[op].combine, a, b)


def warps_memory(b: Builder, reduces: Sequence[Reduce], team: int, units: int) -> list[Buffer]:
    """Shared memory for `in_warps`."""
    if team <= WARP:
        return []
    return [b.shared("warps", team // WARP * units, reduce.dtype) for reduce in reduces]


def in_warps(
    b: Builder,
    reduces: Sequence[Reduce],
    values: Sequence[Value],
    memory: Sequence[Buffer],
    team: int,
    unit: Dim,
    thread: Dim,
) -> list[Value]:
    """The totals of a team of neighbours, whole warps, of which there are `units` in a block: each
    thread has them. Threads may not have read this memory since the last barrier but one."""
    found: list[Value] = []
    for reduce, value in zip(reduces, values, strict=True):
        total = value
        if total.type.lanes > 1:
            total = ReduceLanes(reduce.op, total)
        total = b.let(total, reduce.op)
        mask = WARP // 2
        while mask:
            other = b.exchange(total, mask, WARP)
            total = b.let(combined(reduce.op, total, other), reduce.op)
            mask //= 2
        found.append(total)
    if team == WARP:
        return found
    warps, warp = team // WARP, floor_div(thread, WARP)
    with b.when(IndexTest("eq", thread - warp * WARP, 0)):
        for buffer, total in zip(memory, found, strict=True):
            b.store(buffer, unit * warps + warp, total)
    b.barrier()
    for number, (reduce, buffer) in enumerate(zip(reduces, memory, strict=True)):
        parts: list[Value] = [
            b.let(Load(buffer, unit * warps + i, found[number].type)) for i in range(warps)
        ]
        while len(parts) > 1:
            half = len(parts) // 2
            pairs = zip(parts[:half], parts[half:], strict=True)
            parts = [combined(reduce.op, x, y) for x, y in pairs]
        found[number] = b.let(parts[0], reduce.op)
    return found


def by_halves(
    b: Builder,
    op: str,
    values: Sequence[Value],
    memory: Buffer,
    team: int,
    units: int,
    unit: Dim,
    thread: Dim,
) -> list[Value]:
    """The totals of teams whose threads are `units` apart: known to the first thread of each."""
    if team == 1:
        return list(values)
    type = values[0].type
    step = team * units * type.lanes

    def place(row: Dim, slot: int) -> Dim:
        return slot * step + (row * units + unit) * type.lanes

    for slot, value in enumerate(values):
        b.store(memory, place(thread, slot), value)
    b.barrier()
    half = team // 2
    while half:
        with b.when(IndexTest("lt", thread, half)):
            for slot in range(len(values)):
                near, far = (Load(memory, place(t, slot), type) for t in (thread, thread + half))
                b.store(memory, place(thread, slot), combined(op, near, far))
        b.barrier()
        half //= 2
    return [b.let(Load(memory, place(0, slot), type), op) for slot in range(len(values))]
