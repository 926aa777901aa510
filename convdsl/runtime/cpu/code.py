"""Machine code for the CPU in memory, and one call of it."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import ArtifactError
from convdsl.forking import open_lock
from convdsl.kernel.cpu_abi import (
    ARENA,
    COUNTERS,
    COUNTERS_PER_STEP,
    PORTS,
    TIMES,
    WEIGHTS,
)
from convdsl.kernel.program import Port
from convdsl.kernel.target import Target
from convdsl.ranks import ALONE, Pending
from convdsl.runtime.code import Code, check_memory
from convdsl.runtime.cpu.addresses import address_of
from convdsl.runtime.cpu.common import Common, Turn
from convdsl.runtime.cpu.mapping import Mapped, check_whole, link
from convdsl.runtime.cpu.processor import refusal
from convdsl.runtime.cpu.team import Region

_ALIGNMENT = 64
_POOL = 4  # arenas kept for calls to come


def aligned(size: int) -> npt.NDArray[np.uint8]:
    """Uninitialised bytes at a multiple of 64."""
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size]


class LoadedCode:
    """Machine code mapped into the process, with its weights. Serves many threads at once:
    scratch memory belongs to the call, weights are shared and read-only. States are the caller's,
    who lends them to one call at a time."""

    def __init__(
        self, code: Code, weights: npt.NDArray[np.uint8], target: Target | None = None
    ) -> None:
        """`target`: of code that was made here, for whatever processor. What this one cannot run
        may be saved; `run` raises ArtifactError."""
        if weights.nbytes != code.weight_bytes:
            raise ArtifactError(f"{weights.nbytes} bytes of weights, {code.weight_bytes} expected")
        code.check()
        check_memory(code.scratch_bytes(1), code.weight_bytes)
        self.code = code
        self.weights = weights
        self._refused = "" if target is None else refusal(target)
        self._mapped = None if self._refused else Region(*_load(code))
        self._results = [(p.type.sizes, np.dtype(p.type.dtype.numpy)) for p in code.outputs]
        self._names = tuple(port.name for port in code.outputs)
        self._sums = bool(code.sums)
        self._weights = address_of(weights)
        self.ranks = ALONE  # whose parts the program's sums over ranks add
        self.common: Common | None = None  # what those of this machine have together
        self._counters = ctypes.c_uint64 * (code.steps * COUNTERS_PER_STEP + 7)
        self._pool: list[npt.NDArray[np.uint8]] = []
        self._lock = open_lock()

    @property
    def _region(self) -> Region:
        if self._mapped is None:
            raise ArtifactError(self._refused)
        return self._mapped

    @property
    def results(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self._names

    @property
    def states(self) -> tuple[Port, ...]:
        """What a call changes, in the order in which `run` takes the arrays."""
        return self.code.states

    def run(
        self,
        inputs: Sequence[npt.NDArray[Any]],
        threads: int,
        states: Sequence[npt.NDArray[Any]] = (),
        times: npt.NDArray[np.int64] | None = None,
    ) -> list[npt.NDArray[Any]]:
        """One call: C-contiguous arrays of the program's exact types in, new arrays out; states
        are changed in place. Timed code needs `times`: the number of steps and one more."""
        outputs = [np.empty(sizes, dtype) for sizes, dtype in self._results]
        arena = self._take_arena(self.code.scratch_bytes(threads))
        ports = (*inputs, *outputs, *states)
        table = (ctypes.c_void_p * (PORTS + len(ports) + self._sums))()
        table[WEIGHTS] = self._weights
        table[ARENA] = address_of(arena)
        table[TIMES] = None if times is None else address_of(times)
        _place(table, PORTS, ports)
        try:
            if self._sums:
                self._run_phases(table, threads, arena, states)
            else:
                self._enter(table, threads)
        finally:
            self._give_arena(arena)
        return outputs

    def _enter(self, context: ctypes.Array[Any], threads: int) -> None:
        counters = self._counters()
        context[COUNTERS] = -(-ctypes.addressof(counters) // 64) * 64
        self._region.run(context, threads, counters)

    def _run_phases(
        self,
        table: ctypes.Array[Any],
        threads: int,
        arena: npt.NDArray[np.uint8],
        states: Sequence[npt.NDArray[Any]],
    ) -> None:
        """Phase after phase, each a call of its own, with sums over ranks under way meanwhile."""
        pending: dict[int, Pending] = {}
        turn = (
            None
            if self.common is None or self.common.is_over
            else Turn(self.common, self.code, states)
        )
        for number, phase in enumerate(self.code.phases):
            for each in phase.waits:
                pending.pop(each).wait()
            if phase.first < phase.last:
                counters = None if turn is None else turn.counters(phase)
                context = type(table).from_buffer_copy(table)  # late helpers look at the old one
                context[len(table) - 1] = number
                if turn is not None:
                    _place(context, len(table) - 1 - len(states), turn.states)
                if turn is not None and counters is not None:
                    context[COUNTERS] = counters
                    self._region.take_part(context, turn.team, turn.leads)
                else:
                    self._enter(context, threads)
            for each in phase.begins:
                sum = self.code.sums[each]
                memory = arena[sum.offset : sum.offset + sum.bytes].view(sum.dtype.numpy)
                pending[each] = self.ranks.all_reduce(memory)
        if turn is not None:
            turn.end()

    def _take_arena(self, size: int) -> npt.NDArray[np.uint8]:
        with self._lock:
            for number, arena in enumerate(self._pool):
                if arena.nbytes >= size:
                    return self._pool.pop(number)
        return aligned(size)

    def _give_arena(self, arena: npt.NDArray[np.uint8]) -> None:
        """Keep the largest."""
        with self._lock:
            self._pool.append(arena)
            if len(self._pool) > _POOL:
                self._pool.sort(key=lambda kept: kept.nbytes)
                del self._pool[0]


def _place(table: ctypes.Array[Any], first: int, arrays: Sequence[npt.NDArray[Any]]) -> None:
    for slot, array in enumerate(arrays, first):
        table[slot] = address_of(array)


def _load(code: Code) -> tuple[int, object]:
    """(address of the entry, what keeps the code mapped)."""
    image = link(code.object_code, code.entry)
    if image is not None:
        mapped = Mapped(image)
        return mapped.address, mapped
    file = check_whole(code.object_code, platform.machine())
    from convdsl.runtime.cpu import engine

    return engine.load(code.object_code, code.entry, () if file is None else file.elsewhere)
