"""What the ranks of one machine have together: large states, and the work of replacing them.

All ranks have the same states, to the bit, and once gradients are summed all would replace them by
the same values. Those of one machine keep large states once, in memory that all of them see, and
are one team for the steps that write these (`kernel.joint`):

    other steps     each rank takes all of them, on memory of its own
    agree           nobody reads old values any more
    joint steps     each claims shares, as threads do, by counters in that memory; a step is over
                    when all its shares are done, whoever did them

Where parts of a batch differ in size so may programs. If joint steps are not the same, the first
rank of the machine takes its own, and what it makes is what becomes of the states; the others work
on copies. So do all whose programs have steps that write such states and something else, once: then
each has states of its own for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.kernel.cpu_abi import COUNTERS_PER_STEP
from convdsl.kernel.program import Phase, Port, is_large
from convdsl.ranks import Ranks
from convdsl.runtime.code import Code
from convdsl.runtime.device import HOST, Held, Plain

Array = npt.NDArray[Any]

_PER_STEP = 8 * COUNTERS_PER_STEP  # bytes
_STEPS = 1 << 14  # of a program; memory that nobody touches costs nothing
_COUNTERS = 2 * _STEPS * _PER_STEP  # there are two, as others may still look at the old ones
_ALIGNMENT = 64


def open_common(ranks: Ranks, ports: Sequence[Port], threads: int) -> Common | None:
    """What ranks have together of these states; None where that is nothing: ranks of several
    threads are as quick by themselves. All ranks call it together."""
    large = [port for port in ports if is_large(port)]
    if ranks.size == 1 or not large:
        return None
    single = np.array([threads == 1 and ranks.beside > 1], np.int64)
    ranks.all_reduce(single).wait()
    if single[0] < ranks.size:
        return None
    sizes = [-(-_bytes(port) // _ALIGNMENT) * _ALIGNMENT for port in large]
    memory = ranks.shared(2 * _COUNTERS + sum(sizes))
    return None if memory is None else Common(ranks, memory)


class Common:
    """The memory. States are held in it as they are asked for: by all ranks in the
    same order."""

    def __init__(self, ranks: Ranks, memory: Array) -> None:
        self.ranks = ranks
        self._memory = memory
        self._free = 2 * _COUNTERS
        self._held: dict[int, Plain] = {}  # by address
        self.is_over = False
        self._turn = 0
        self._used = [0, 0]  # bytes of counters

    def hold(self, port: Port) -> Held:
        """Memory for a state: of all, if it is large."""
        if not is_large(port):
            return HOST.hold(port)
        size = _bytes(port)
        piece = self._memory[self._free : self._free + size].view(port.type.dtype.numpy)
        self._free += -(-size // _ALIGNMENT) * _ALIGNMENT
        array = piece.reshape(port.type.sizes)
        return self._held.setdefault(array.ctypes.data, Plain(array))

    def is_shared(self, state: Array) -> bool:
        """Whether an array is one of those that all have together."""
        return state.ctypes.data in self._held

    def agree(self, digest: int = 0) -> tuple[bool, bool]:
        """Wait until all are here. Whether all have the same digest, and whether all have one that
        is not 0: all come to the same answer. Numbers are equal if the mean of their squares is the
        square of their mean."""
        said = np.array([digest, digest * digest, digest > 0], np.int64)
        self.ranks.agree(said)
        total, squares, some = (int(number) for number in said)
        return squares * self.ranks.beside == total * total, some == self.ranks.beside

    def end(self) -> None:
        """Each has states of its own from now on; all end it together."""
        for held in self._held.values():
            held.leave()
        self.is_over = True

    def counters(self, first: int, last: int) -> int:
        """The address from which on counters are zero that steps from `first` to before `last` use.
        All have agreed on something since the last time, and will before the next."""
        this, other = self._turn, 1 - self._turn
        if self.ranks.local == 0:  # all are through with the other ones, and none begins with them
            start = other * _COUNTERS + _STEPS * _PER_STEP
            self._memory[start : start + self._used[other]] = 0
        self._turn, self._used[this] = other, (last - first) * _PER_STEP
        return self._memory.ctypes.data + this * _COUNTERS + (_STEPS - first) * _PER_STEP


class Turn:
    """A call of a program: which of its phases are taken together, and on which states."""

    def __init__(self, common: Common, code: Code, states: Sequence[Array]) -> None:
        self.states = list(states)
        self.team, self.leads = common.ranks.beside, common.ranks.local == 0
        self._given = states
        self._common = common
        self._joint = code.joint if code.steps <= _STEPS else None
        self._alike: bool | None = None  # not known before the first joint steps
        self._all = False  # all ranks have joint steps
        self._counters = 0
        if self._joint is None:
            self._copy()

    def counters(self, phase: Phase) -> int | None:
        """Before the steps of a phase: where counters are, if all take it together."""
        runs = () if self._joint is None else self._joint.runs
        run = next((run for run in runs if run[0] <= phase.first < run[1]), None)
        if run is None or self._joint is None:
            return None
        if self._alike is None:
            alike, self._all = self._common.agree(self._joint.digest)
            self._alike = alike and self._all
            if not self._alike:
                if not self.leads:
                    self._copy()
                self._common.agree()
        elif self._alike and phase.first == run[0]:
            self._common.agree()
        if self._alike and phase.first == run[0]:
            self._counters = self._common.counters(*run)
        return self._counters if self._alike else None

    def end(self) -> None:
        """After the last phase."""
        if self._joint is None:
            self._common.agree()
            self._common.agree()
            if self.leads:
                for own, given in zip(self.states, self._given, strict=True):
                    given[...] = own
        if not self._alike:
            self._common.agree()
        if not self._all:
            self._common.end()

    def _copy(self) -> None:
        shared = self._common.is_shared
        self.states = [array.copy() if shared(array) else array for array in self._given]


def _bytes(port: Port) -> int:
    return int(np.prod(port.type.sizes, dtype=np.int64)) * port.type.dtype.bytes
