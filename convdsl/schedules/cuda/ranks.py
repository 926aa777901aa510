"""The first few along an axis, or all in order: chunks sorted by blocks, runs merged by search.

A block sorts a chunk of a row in its shared memory. Where a row is longer, chunks leave the keys
that may be wanted as runs, and pairs of runs become one until there is one: each place of a longer
run finds by halving how many of those before it come from which. That is n (log n)**2 for all.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from math import prod

from convdsl.kernel.builder import Builder
from convdsl.kernel.counting import decide
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import (
    Binary,
    Buffer,
    Compare,
    Const,
    Get,
    IndexAsValue,
    IndexTest,
    Kernel,
    Load,
    Select,
    Unary,
    Value,
)
from convdsl.schedules.chain import declare_outputs
from convdsl.schedules.cuda.costs import nanoseconds
from convdsl.schedules.cuda.frame import THREADS, each, guarded, unravelled
from convdsl.schedules.emission import Emitter, View, extent_of
from convdsl.schedules.keys import Key, Keys
from convdsl.schedules.powers import power_from, power_to
from convdsl.schedules.selection import Selection, match_selection, placed, put
from convdsl.schedules.task import Arguments, Pack, Schedule, Scheduled, Scratch, Task
from convdsl.tensor import Dim, DType, floor_div
from convdsl.tensor.records import record

_CHUNK = 2048
"""Keys that a block sorts: 32 KB of shared memory in two words, of the 48 that any card has."""


@record
class Way:
    """Rows of `chunks`, a power of two, of `size` keys each, another one; `words` to a key."""

    selection: Selection
    size: int
    chunks: int
    words: int

    @property
    def rows(self) -> int:
        return prod(self.extents)

    @property
    def extents(self) -> tuple[int, ...]:
        """Of the kept dimensions."""
        return tuple(extent_of(self.selection.axes[d]) for d in self.selection.kept)

    @property
    def runs(self) -> list[int]:
        """Lengths of runs after each step: no longer than what is wanted."""
        found = [min(self.size, self.selection.wanted)]
        for _ in range(self.chunks.bit_length() - 1):
            found.append(min(2 * found[-1], self.selection.wanted))
        return found

    def kept(self, row: Dim) -> dict[int, Dim]:
        """The kept dimensions at a row."""
        return dict(zip(self.selection.kept, unravelled(row, self.extents), strict=True))


def plan(task: Task) -> Way | None:
    """None where the task is no selection."""
    selection = match_selection(task)
    if selection is None:
        return None
    size = min(power_from(selection.extent), _CHUNK)
    chunks = power_from(-(-selection.extent // size))
    return Way(selection, size, chunks, selection.bits // 32)


def cost(task: Task, target: CudaTarget) -> float | None:
    """Nanoseconds: all read and written once, the steps of sorting and of merging, keys each."""
    way = plan(task)
    if way is None:
        return None
    outputs = way.selection.outputs
    moved = sum(prod(o.var.type.sizes) * o.var.type.dtype.bytes for o in task.operands)
    moved += sum(o.layout.held * o.var.type.dtype.bytes for o in outputs)
    levels = way.size.bit_length()
    accesses = way.rows * way.chunks * way.size * levels * levels / 2
    count = way.chunks
    for length in way.runs[:-1]:
        accesses += way.rows * count * length * length.bit_length()
        moved += 2 * way.rows * count * length * 8 * way.words
        count //= 2
    return nanoseconds(target, moved, accesses, launches=len(way.runs))


def emit(task: Task, name: str) -> Scheduled:
    """One kernel where a block has the whole row; else one for chunks, one for each doubling of
    runs, and one for what leaves."""
    way = plan(task)
    assert way is not None
    if way.chunks == 1:
        return Scheduled((_Kernel(task, way, name).sort_and_put(),))
    last = len(way.runs) - 1
    kernels = [_Kernel(task, way, f"{name}_chunks").sort_chunks("runs0")]
    for step in range(last):
        names = (f"runs{step % 2}_", f"runs{(step + 1) % 2}_")
        kernels.append(_Kernel(task, way, f"{name}_{step}").double(step, *names))
    kernels.append(_Kernel(task, way, name).put_runs(f"runs{last % 2}_"))
    sizes = [way.rows * (way.chunks >> step) * length for step, length in enumerate(way.runs)]
    scratch = tuple(
        Scratch(f"runs{half}_{word}", DType.I64, max(sizes[half::2]))
        for half in range(2)
        for word in range(way.words)
    )
    return Scheduled(tuple(kernels), scratch)


class _Kernel:
    """A kernel under construction."""

    def __init__(self, task: Task, way: Way, name: str) -> None:
        self.task, self.way = task, way
        self.b = Builder(name, DType.I64, 1)
        self.keys = Keys(self.b, 1, way.words)
        self.views: dict[str, View] = {}
        self.arguments: list[tuple[str, Pack | None]] = []

    def operands(self) -> None:
        for operand in self.task.operands:
            var = operand.var
            layout = operand.layout or Layout(var.type.sizes)
            buffer = self.b.buffer(var.name, var.type.dtype, layout.size)
            self.views[var.name] = View(buffer, layout)
            self.arguments.append((var.name, layout if operand.static else None))

    def outputs(self) -> None:
        outputs = self.way.selection.outputs
        self.views |= declare_outputs(self.b, outputs)
        self.arguments += [(output.var.name, None) for output in outputs]

    def runs(self, name: str, count: int, *, written: bool = False) -> list[Buffer]:
        """Scratch for so many keys."""
        names = [f"{name}{word}" for word in range(self.way.words)]
        self.arguments += [(name, None) for name in names]
        return [self.b.buffer(name, DType.I64, count, written) for name in names]

    def finished(self) -> tuple[Kernel, Arguments]:
        return self.b.kernel(), tuple(self.arguments)

    # Kernels

    def sort_and_put(self) -> tuple[Kernel, Arguments]:
        """A block for each row."""
        self.operands()
        self.outputs()
        with self.b.blocks(("row", "chunk"), (self.way.rows, 1)) as (row, _):
            memory = [self.b.shared("keys", self.way.size) for _ in range(self.way.words)]
            with self.b.threads(("thread",), (self.team,)) as (thread,):
                self.sort(memory, row, 0, thread)
                with self.share(self.way.selection.wanted, thread) as number:
                    self.put(row, number, self.load(memory, number))
        return self.finished()

    def sort_chunks(self, name: str) -> tuple[Kernel, Arguments]:
        """A block for each chunk, which leaves a run."""
        way, length = self.way, self.way.runs[0]
        self.operands()
        made = self.runs(f"{name}_", way.rows * way.chunks * length, written=True)
        with self.b.blocks(("row", "chunk"), (way.rows, way.chunks)) as (row, chunk):
            memory = [self.b.shared("keys", way.size) for _ in range(way.words)]
            with self.b.threads(("thread",), (self.team,)) as (thread,):
                self.sort(memory, row, chunk, thread)
                with self.share(length, thread) as number:
                    where = (row * way.chunks + chunk) * length + number
                    self.store(made, where, self.load(memory, number))
        return self.finished()

    def double(self, step: int, source: str, target: str) -> tuple[Kernel, Arguments]:
        """Pairs of runs as one: each place finds the key that belongs there."""
        way, length, longer = self.way, self.way.runs[step], self.way.runs[step + 1]
        count = way.rows * (way.chunks >> step) // 2
        given = self.runs(source, count * 2 * length)
        made = self.runs(target, count * longer, written=True)
        with each(self.b, count * longer, THREADS) as number:
            pair = floor_div(number, longer)
            key = self.merged(given, pair * 2 * length, length, number - pair * longer)
            self.store(made, number, key)
        return self.finished()

    def put_runs(self, name: str) -> tuple[Kernel, Arguments]:
        """What leaves, from runs of whole rows."""
        way, wanted = self.way, self.way.selection.wanted
        self.operands()
        self.outputs()
        runs = self.runs(name, way.rows * wanted)
        with each(self.b, way.rows * wanted, THREADS) as number:
            row = floor_div(number, wanted)
            self.put(row, number - row * wanted, self.load(runs, number))
        return self.finished()

    # Keys

    def load(self, buffers: Sequence[Buffer], where: Dim) -> Key:
        type = self.keys.type
        return tuple(self.b.let(Load(buffer, where, type), "key") for buffer in buffers)

    def store(self, buffers: Sequence[Buffer], where: Dim, key: Key) -> None:
        for buffer, word in zip(buffers, key, strict=True):
            self.b.store(buffer, where, word)

    @property
    def team(self) -> int:
        """Threads of a block, each with a pair of keys or several."""
        return max(1, min(THREADS, self.way.size // 2))

    @contextmanager
    def share(self, count: int, thread: Dim) -> Generator[Dim]:
        """A thread's numbers below `count`, one after the other."""
        with self.b.serial("turn", -(-count // self.team)) as turn:
            number = turn * self.team + thread
            with guarded(self.b, IndexTest("lt", number, count)):
                yield number

    def sort(self, memory: Sequence[Buffer], row: Dim, chunk: Dim, thread: Dim) -> None:
        """A chunk in shared memory, in order: runs twice as long each time (Batcher 1968)."""
        b, size = self.b, self.way.size
        with self.share(size, thread) as number:
            self.bring(memory, row, chunk, number)
        b.barrier()
        run = 1
        while run < size:
            with self.share(size // 2, thread) as number:
                pair = floor_div(number, run)
                i = number - pair * run
                self.exchange(memory, pair * 2 * run + i, pair * 2 * run + 2 * run - 1 - i)
            b.barrier()
            apart = run // 2
            while apart:
                with self.share(size // 2, thread) as number:
                    i = number + floor_div(number, apart) * apart
                    self.exchange(memory, i, i + apart)
                b.barrier()
                apart //= 2
            run *= 2

    def bring(self, memory: Sequence[Buffer], row: Dim, chunk: Dim, number: Dim) -> None:
        """One key, behind all others where the row has no such element."""
        b, selection = self.b, self.way.selection
        element = chunk * self.way.size + number
        inside = IndexTest("lt", element, selection.extent)
        with guarded(b, inside):
            place = {**self.way.kept(row), selection.dim: element}
            emitter = Emitter(b, self.views, 1)
            x = b.let(emitter.emit(selection.ranks.value, placed(selection.axes, place)))
            position = IndexAsValue(element, 0, self.keys.type)
            self.store(memory, number, self.keys.of(x, position, largest=selection.ranks.largest))
        if decide(inside) is not True:
            with b.when(IndexTest("ge", element, selection.extent)):
                self.store(memory, number, self.keys.last)

    def exchange(self, memory: Sequence[Buffer], i: Dim, j: Dim) -> None:
        low, high = self.keys.exchanged(self.load(memory, i), self.load(memory, j))
        self.store(memory, i, low)
        self.store(memory, j, high)

    def merged(self, runs: Sequence[Buffer], first: Dim, length: int, place: Dim) -> Key:
        """The key at a place of two runs as one; of keys that are the same the first run's go
        before. By halving: how many of those before it are the first run's?"""
        b, type = self.b, self.keys.type
        whole, start = Const(length, type), Const(0, type)
        here = b.let(IndexAsValue(place, 0, type), "place")
        found = b.registers(1, type, "found")

        def met(one: Value, other: Value) -> tuple[Value, Key, Key]:
            """Whether a key of the first run goes before one of the second; the keys."""
            a = self.load(runs, first + b.index(one, length, "one"))
            c = self.load(runs, first + length + b.index(other, length, "other"))
            goes = Binary("or", Compare("ge", other, whole), Unary("not", self.keys.before(c, a)))
            exist = Binary("and", Compare("lt", one, whole), Compare("ge", other, start))
            return b.let(Binary("and", exist, goes), "goes"), a, c

        b.set(found, 0, start)
        step = power_to(length)
        while step:
            last = b.let(Binary("add", Get(found, 0), Const(step - 1, type)), "last")
            other = b.let(Binary("sub", Binary("sub", here, last), Const(1, type)), "other")
            goes, _, _ = met(last, other)
            more = Select(goes, Const(step, type), start)
            b.set(found, 0, Binary("add", Get(found, 0), more))
            step //= 2
        count = b.let(Get(found, 0), "count")
        goes, a, c = met(count, b.let(Binary("sub", here, count), "other"))
        return tuple(b.let(Select(goes, x, y), "key") for x, y in zip(a, c, strict=True))

    def put(self, row: Dim, number: Dim, key: Key) -> None:
        """What belongs to a place in the order."""
        selection = self.way.selection
        place = {**self.way.kept(row), selection.dim: number}
        position = self.b.let(self.keys.position(key), "position")
        put(Emitter(self.b, self.views, 1), selection, place, selection.dim, position)


def ranks(target: CudaTarget) -> Schedule:
    """The schedule for a card."""
    return Schedule("ranks", lambda task: cost(task, target), emit, joins=True)
