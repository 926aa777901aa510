"""Ranks in the threads of one process: what MPI does between processes, without its start."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from convdsl.ranks import Pending

T = TypeVar("T")
Array = np.ndarray[Any, Any]


class Meeting:
    """Where the ranks of a job meet: sums are made by who comes last, in the order of ranks."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sizes: list[list[int]] = [[] for _ in range(size)]  # elements of each sum, by rank
        self.on_their_way: list[list[int]] = [[] for _ in range(size)]  # at each begin and wait
        self.changed = threading.Condition()
        self._brought: dict[int, dict[int, Any]] = {}
        self._broken = False
        self.memory: dict[int, Array] = {}  # of those on one machine, by turn

    def bring(self, turn: int, rank: int, what: Any) -> None:
        with self.changed:
            self._brought.setdefault(turn, {})[rank] = what
            self.changed.notify_all()

    def end(self) -> None:
        """Somebody will not come again."""
        with self.changed:
            self._broken = True
            self.changed.notify_all()

    def all_of(self, turn: int) -> list[Any]:
        with self.changed:
            self.changed.wait_for(
                lambda: self._broken or len(self._brought[turn]) == self.size, timeout=60
            )
            assert len(self._brought[turn]) == self.size, f"not all ranks came to turn {turn}"
            return [self._brought[turn][rank] for rank in range(self.size)]


class Sum:
    def __init__(self, rank: Rank, turn: int, memory: Array) -> None:
        self._rank, self._turn, self._memory = rank, turn, memory
        rank.count(+1)

    def wait(self) -> None:
        self._rank.count(-1)
        parts = self._rank.meeting.all_of(self._turn)
        total = parts[0].copy()
        with np.errstate(all="ignore"):  # of what lies between operands nothing is known
            for part in parts[1:]:
                total += part
        self._memory[...] = total


class Rank:
    """One rank of a meeting (convdsl.ranks.Ranks)."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.meeting, self.rank, self.size, self.local = meeting, rank, meeting.size, rank
        self.sharing = self.beside = meeting.size
        self._turn = 0

    def count(self, more: int) -> None:
        counts = self.meeting.on_their_way[self.rank]
        counts.append((counts[-1] if counts else 0) + more)

    def _next(self) -> int:
        self._turn += 1
        return self._turn

    def all_reduce(self, memory: Array) -> Pending:
        turn = self._next()
        self.meeting.sizes[self.rank].append(memory.size)
        self.meeting.bring(turn, self.rank, memory.copy())
        return Sum(self, turn, memory)

    def gather(self, value: Any) -> list[Any]:
        turn = self._next()
        self.meeting.bring(turn, self.rank, pickle.dumps(value))
        return [pickle.loads(each) for each in self.meeting.all_of(turn)]

    def broadcast(self, value: Any) -> Any:
        return self.gather(value)[0]

    def barrier(self) -> None:
        self.gather(None)

    def shared(self, size: int) -> Array | None:
        turn = self._next()
        self.meeting.bring(turn, self.rank, None)
        with self.meeting.changed:
            memory = self.meeting.memory.setdefault(turn, np.zeros(size + 64, np.uint8))
        start = -memory.ctypes.data % 64
        return memory[start : start + size]

    def agree(self, memory: Array) -> None:
        turn = self._next()
        self.meeting.bring(turn, self.rank, memory.copy())
        Sum(self, turn, memory).wait()

    def fail(self, message: str) -> bool:
        return True

    def abort(self, code: int) -> None:
        raise AssertionError(f"ended with {code}")


def together(size: int, work: Callable[[Rank], T], meeting: Meeting | None = None) -> list[T]:
    """What the work of each rank gives, all at the same time."""
    meeting, found = meeting or Meeting(size), dict[int, T]()
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            found[rank] = work(Rank(meeting, rank))
        except BaseException as error:  # noqa: BLE001  (raised again below)
            errors.append(error)
            meeting.end()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    assert all(sizes == meeting.sizes[0] for sizes in meeting.sizes), "sums of different sizes"
    return [found[rank] for rank in range(size)]
