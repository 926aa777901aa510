"""Products of warp groups on the interpreter: what one thread has begun, and has not waited for.

Sums that products are being added to hold nothing until the wait. What a product reads is noted
where it begins and again where it is waited for, and must be the same bytes at both ends: so it
does not matter when it really happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from convdsl.kernel.grid import Party
from convdsl.kernel.group_mma import GROUP, PIECE, swizzled
from convdsl.kernel.mma import ROWS, WARP, as_tf32
from convdsl.kernel.nodes import Buffer, GroupMma
from convdsl.kernel.verify import KernelError
from convdsl.tensor import Dim, DType
from convdsl.tensor.conversion import convert

Array = npt.NDArray[Any]
Key = tuple[str, int]
"""A register: the array's name, and the slot."""


class Registers(dict[Key, Array]):
    """Of a thread: what each register holds. Those that products are added to hold nothing."""

    def __missing__(self, key: Key) -> Array:
        raise KernelError(f"{key[0]}[{key[1]}] is touched before its products are waited for")


class Owner(Protocol):
    """The thread: its registers, its number in the block, and how it reads memory."""

    registers: dict[Key, Array]
    parties: Sequence[Party]

    def index(self, dim: Dim) -> int: ...

    def load(self, buffer: Buffer, start: int, count: int) -> Array: ...


@dataclass(frozen=True, slots=True)
class _Begun:
    """A product: the pieces that this thread has read for it, as they were then; its sums, and what
    it makes of them."""

    read: list[tuple[Buffer, int, bytes]]
    sums: tuple[Key, ...]
    totals: Array


@dataclass
class Behind:
    """See above. `closed`: sums that were set since products were opened. `hidden`: what was
    written, and not shown."""

    owner: Owner
    groups: list[list[_Begun]] = field(default_factory=lambda: [[]])
    totals: dict[Key, float] = field(default_factory=dict[Key, float])
    closed: set[Key] = field(default_factory=set[Key])
    hidden: list[tuple[str, slice]] = field(default_factory=list[tuple[str, slice]])

    def set(self, key: Key) -> None:
        """A register is about to be set."""
        if key in self.totals:
            raise KernelError(f"{key[0]}[{key[1]}] is touched before its products are waited for")
        self.closed.add(key)

    def show(self) -> None:
        """What was written may be multiplied after the next barrier."""
        own = self.owner.parties[-1]
        for name, part in self.hidden:
            own.ledger.show(name, part, own.number)
        self.hidden.clear()

    def begin(self, mma: GroupMma) -> Array:
        """What a thread brings: the first one of a warp its sixteen rows of a, and b; all of them
        their sums."""
        keys = tuple((mma.sums.name, mma.slot + i) for i in range(mma.form.sums))
        for key in keys:
            if key in self.closed:
                raise KernelError(f"{key[0]}[{key[1]}] is added to before products are opened")
        registers, totals = self.owner.registers, self.totals
        sums = [totals[key] if key in totals else registers[key][0] for key in keys]
        parts = [np.array(sums, np.float64)]
        read: list[tuple[Buffer, int, bytes]] = []
        number = self.owner.parties[-1].number
        if number % WARP == 0:
            first = number % GROUP // WARP * ROWS
            own, columns = range(first, first + ROWS), range(mma.form.columns)
            factors = ((mma.a, mma.a_index, own), (mma.b, mma.b_index, columns))
            parts = [*(self._lines(mma, *factor, read) for factor in factors), *parts]
        self.groups[-1].append(_Begun(read, keys, np.empty(len(keys), np.float32)))
        return np.concatenate(parts)

    def _lines(
        self,
        mma: GroupMma,
        buffer: Buffer,
        index: Dim,
        rows: range,
        read: list[tuple[Buffer, int, bytes]],
    ) -> Array:
        """The depths that a product takes of some lines of a factor, in f64."""
        ledger, size = self.owner.parties[-1].ledger, buffer.dtype.bytes
        start, each = self.owner.index(index) * size, PIECE // size
        pieces = mma.form.pieces(rows.start, len(rows))
        for piece in pieces:
            at = swizzled(start + piece) // size
            part = self.owner.load(buffer, at, each)
            hole = ledger.concealed(buffer.name, slice(at, at + each))
            if hole is not None:
                raise KernelError(f"{buffer.name}[{hole}] is multiplied before it is shown")
            read.append((buffer, at, part.tobytes()))
        count = len(pieces)
        found = b"".join(part for _, _, part in read[-count:])
        whole = np.frombuffer(found, buffer.dtype.numpy)
        if mma.form.across:  # depth by depth, as rows follow each other
            whole = whole.reshape(mma.form.k, len(rows)).T.ravel()
        if mma.form.dtype is DType.F32:
            return as_tf32(whole)
        return convert(whole, buffer.dtype, DType.F64)

    def take(self, totals: Array) -> None:
        """What the product that was begun last makes of its sums."""
        begun = self.groups[-1][-1]
        begun.totals[:] = totals
        for key, total in zip(begun.sums, totals, strict=True):
            self.totals[key] = total
            self.owner.registers.pop(key, None)

    def wait(self, left: int) -> None:
        """All groups but the last ones are complete."""
        while len(self.groups) - 1 > left:
            for begun in self.groups.pop(0):
                self._finish(begun)

    def _finish(self, begun: _Begun) -> None:
        for buffer, at, found in begun.read:
            if self.owner.load(buffer, at, PIECE // buffer.dtype.bytes).tobytes() != found:
                raise KernelError(f"{buffer.name} is written while it is multiplied")
        left = {key for group in self.groups for other in group for key in other.sums}
        for key, total in zip(begun.sums, begun.totals, strict=True):
            if key not in left:
                self.owner.registers[key] = np.array([total])
                self.totals.pop(key, None)
