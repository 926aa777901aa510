"""What a forked child must find in order, although its parent's other threads are not in it.

A lock that another thread held would stay locked in the child for ever, and a compiler that was
at work there would stay half done. So locks are renewed in the child, and a fork waits until
nobody is `compiling`: seconds at most, and only where one thread forks while another compiles.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from types import TracebackType


class Lock:
    """A mutual exclusion that a forked child finds open. What it protects must be whole between
    any two steps of the interpreter: the child may have been forked there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Open it, whoever held it: in a child, where nobody does."""
        self._lock = threading.Lock()


_locks: WeakSet[Lock] = WeakSet()


class _Work:
    """Who is at work on what a fork must not tear apart."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._own = threading.local()

    def enter(self) -> None:
        with self._changed:
            self._inside += 1
            self._own.depth = self.depth + 1

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._own.depth = self.depth - 1
            self._changed.notify_all()

    @property
    def depth(self) -> int:
        """How often this thread has entered: it does not wait for itself."""
        return getattr(self._own, "depth", 0)

    def pause(self) -> None:
        """Wait until the others have left, and let nobody in."""
        self._changed.acquire()
        self._changed.wait_for(lambda: self._inside == self.depth)

    def resume(self) -> None:
        self._changed.release()


class _Process:
    """The work of this process."""

    def __init__(self) -> None:
        self.work = _Work()

    def pause(self) -> None:
        """Before a fork."""
        self.work.pause()

    def resume(self) -> None:
        """After it, in the parent."""
        self.work.resume()

    def renew(self) -> None:
        """In a forked child: no thread but this one, no lock held."""
        self.work = _Work()
        for lock in list(_locks):
            lock.renew()


_process = _Process()
os.register_at_fork(
    before=_process.pause,
    after_in_parent=_process.resume,
    after_in_child=_process.renew,
)


def enter_work() -> None:
    """What this thread does from here to `leave_work` is not torn apart by a fork of another."""
    _process.work.enter()


def leave_work() -> None:
    """The other end of `enter_work`."""
    _process.work.leave()


@contextmanager
def compiling() -> Generator[None]:
    """While LLVM, or a part of the compiler that others wait for, is at work."""
    enter_work()
    try:
        yield
    finally:
        leave_work()
