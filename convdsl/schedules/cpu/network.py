"""Vectors of keys in memory, and networks that sort them, each lane by itself.

A network compares the same places whatever they hold (Batcher 1968): lanes are sorted side by side,
and nothing branches. All comparisons put the lower key first, so that places beyond the end may
be left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from convdsl.kernel.nodes import Buffer, Load, ValueType
from convdsl.schedules.keys import Key, Keys
from convdsl.schedules.powers import power_from
from convdsl.tensor import Dim, DType
from convdsl.tensor.records import record


@record
class Row:
    """Vectors of keys in memory: of each word a buffer."""

    keys: Keys
    buffers: tuple[Buffer, ...]

    @staticmethod
    def private(keys: Keys, name: str, count: int) -> Row:
        """Memory for so many, of each iteration's own."""
        size = count * keys.lanes
        buffers = [keys.b.private(f"{name}{w}", size, DType.I64) for w in range(keys.words)]
        return Row(keys, tuple(buffers))

    def load(self, number: Dim) -> Key:
        index, type = number * self.keys.lanes, self.keys.type
        return tuple(self.keys.b.let(Load(buffer, index, type), "key") for buffer in self.buffers)

    def lane(self, number: Dim, lane: int) -> Key:
        """One key by itself."""
        index, type = number * self.keys.lanes + lane, ValueType(DType.I64)
        return tuple(self.keys.b.let(Load(buffer, index, type), "key") for buffer in self.buffers)

    def store(self, number: Dim, key: Key) -> None:
        for buffer, word in zip(self.buffers, key, strict=True):
            self.keys.b.store(buffer, number * self.keys.lanes, word)

    def fill(self, start: Dim, stop: int) -> None:
        """The last key at the places start .. stop."""
        with self.keys.b.serial("fill", stop, start) as place:
            self.store(place, self.keys.last)


@record
class Network:
    """Sorts the first `count` vectors of a row, each lane by itself; `width`, a power of two, of
    them fit into registers together."""

    row: Row
    count: int
    width: int

    def sort(self) -> None:
        """Blocks in registers, then pairs of runs as one, twice as long each time."""
        with self.row.keys.b.serial("block", self.count // self.width) as block:
            self._block(block * self.width, self.width)
        self._block(self.count - self.count % self.width, self.count % self.width)
        run = self.width
        while run < self.count:
            self._turn(run)
            self.merge(run // 2)
            run *= 2

    def _block(self, first: Dim, size: int) -> None:
        """A few vectors in registers."""
        found = [self.row.load(first + i) for i in range(size)]
        for i, key in enumerate(sorted_keys(self.row.keys, found)):
            self.row.store(first + i, key)

    def _turn(self, run: int) -> None:
        """Of each two runs the lower halves in front: the second is met from its end."""
        b, whole = self.row.keys.b, self.count // (2 * run)
        with b.serial("pair", whole) as pair, b.serial("i", run) as i:
            self._exchange(pair * 2 * run + i, pair * 2 * run + 2 * run - 1 - i)
        rest, first = self.count % (2 * run), whole * 2 * run
        if rest > run:
            with b.serial("i", run, 2 * run - rest) as i:
                self._exchange(first + i, first + 2 * run - 1 - i)

    def _exchange(self, i: Dim, j: Dim) -> None:
        low, high = self.row.keys.exchanged(self.row.load(i), self.row.load(j))
        self.row.store(i, low)
        self.row.store(j, high)

    def merge(self, stride: int) -> None:
        """Exchange what is `stride` apart, half as far, .. side by side; as many of these steps at
        a time as registers allow."""
        while stride:
            steps = min(self.width, 2 * stride).bit_length() - 1
            self._steps(stride * 2 >> steps, 1 << steps)
            stride >>= steps

    def _steps(self, apart: int, many: int) -> None:
        """Vectors `apart` from each other, so `many` together."""
        b, span = self.row.keys.b, apart * many
        whole, rest = divmod(self.count, span)
        with b.serial("span", whole) as number, b.serial("i", apart) as i:
            self._spread(number * span + i, apart, many, many)
        full, part = divmod(rest, apart)
        for start, stop, there in ((0, part, full + 1), (part, apart, full)):
            if there > 1:
                with b.serial("i", stop, start) as i:
                    self._spread(whole * span + i, apart, many, there)

    def _spread(self, first: Dim, apart: int, many: int, there: int) -> None:
        found = [self.row.load(first + j * apart) for j in range(there)]
        for j, key in enumerate(merged(self.row.keys, found, many)):
            self.row.store(first + j * apart, key)


def merged(keys: Keys, found: Sequence[Key], size: int) -> list[Key]:
    """Keys that rise and then fall (the first of `size`, a power of two), sorted."""
    made, stride = list(found), size // 2
    while stride:
        for i in range(len(made)):
            if not i & stride and i + stride < len(made):
                made[i], made[i + stride] = keys.exchanged(made[i], made[i + stride])
        stride //= 2
    return made


def sorted_keys(keys: Keys, found: Sequence[Key]) -> list[Key]:
    """Sorted by merging odds and evens."""
    made = list(found)
    for i, j in comparisons(len(made)):
        made[i], made[j] = keys.exchanged(made[i], made[j])
    return made


def comparisons(count: int) -> list[tuple[int, int]]:
    """Batcher's odd-even merge sort: which places are compared, one after the other."""
    size = power_from(count)
    runs = [1 << level for level in range(size.bit_length() - 1)]
    return [
        (i, i + stride)
        for run in runs
        for stride in (run >> level for level in range(run.bit_length()))
        for first in range(stride % run, size - stride, 2 * stride)
        for i in range(first, min(first + stride, size - stride))
        if i // (2 * run) == (i + stride) // (2 * run) and i + stride < count
    ]
