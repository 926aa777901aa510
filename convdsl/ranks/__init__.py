"""The processes of one job, its ranks: what they say to each other while they train one network.

    rank, size       which one this is, of how many
    all_reduce       begins a sum over all ranks, in place; the next one may begin meanwhile
    gather           what each rank has, for all of them
    broadcast        what rank 0 has
    barrier          all have come here
    shared, agree    what those on one machine have together: memory, and sums among them
    fail, abort      the end of the job

One process alone is a job too (`ALONE`), so that whoever trains need not ask.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy.typing as npt

from convdsl.diagnostics import Error

T = TypeVar("T")
Array = npt.NDArray[Any]


LARGEST = 4 << 20
"""Bytes of a message: more gains nothing, and what comes behind it would wait longer."""


class RankError(Error):
    """Another process of the job has failed, for the reason given."""


class Pending(Protocol):
    """A sum over ranks that has begun."""

    def wait(self) -> None:
        """Return when the sum is there. Raises RankError when another rank has failed."""
        ...


class Ranks(Protocol):
    """The processes of a job, as one of them sees them. All of them call the same, in one order,
    from one thread; only `fail` and `abort` are for one rank alone."""

    @property
    def rank(self) -> int:
        """The number of this one, from 0."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    @property
    def local(self) -> int:
        """The number of this one among those on its machine, from 0."""
        ...

    @property
    def beside(self) -> int:
        """How many, with this one, are on its machine."""
        ...

    @property
    def sharing(self) -> int:
        """How many, with this one, share its processors."""
        ...

    def all_reduce(self, memory: Array) -> Pending:
        """Begin to replace an array, contiguous, f32, f64 or i64, by its sum over all ranks: the
        same bits on each, and in every run. It is not to be touched before that is there."""
        ...

    def gather(self, value: T) -> list[T]:
        """What each rank has, in their order."""
        ...

    def broadcast(self, value: T) -> T:
        """What rank 0 has."""
        ...

    def barrier(self) -> None:
        """Wait until all are here."""
        ...

    def shared(self, size: int) -> Array | None:
        """Bytes, zero at first, that those on this machine have together, as long as anyone keeps
        them; None for all ranks where any of them cannot have that."""
        ...

    def agree(self, memory: Array) -> None:
        """`all_reduce` among those on this machine; returns when the sum is there."""
        ...

    def fail(self, message: str) -> bool:
        """Have rank 0 end the job with a message. True where this rank is to say it itself: rank 0,
        or one that rank 0 has not heard in time."""
        ...

    def abort(self, code: int) -> None:
        """End all ranks at once. Returns where there are no others."""
        ...


class _Done:
    def wait(self) -> None:
        """It is there."""


DONE: Pending = _Done()


class Alone:
    """A job of one process."""

    rank, size, local, beside, sharing = 0, 1, 0, 1, 1

    def all_reduce(self, memory: Array) -> Pending:
        return DONE

    def gather(self, value: T) -> list[T]:
        return [value]

    def broadcast(self, value: T) -> T:
        return value

    def barrier(self) -> None:
        """All are here."""

    def shared(self, size: int) -> Array | None:
        return None

    def agree(self, memory: Array) -> None:
        """The sum is what is there."""

    def fail(self, message: str) -> bool:
        return True

    def abort(self, code: int) -> None:
        """There are no others."""


ALONE: Ranks = Alone()
