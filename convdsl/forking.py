"""What a fork and an interrupt must not tear apart.

A forked child has none of its parent's other threads. A lock that one of them held would stay
locked in it for ever, and a compiler that was at work there would stay half done. So locks are
opened in the child, and a fork waits until nobody else is `compiling`: seconds at most, and only
where one thread forks while another compiles.

An interrupt (Ctrl-C) is raised in the main thread, between any two steps of the interpreter. So
locks are the interpreter's own, whose `with` is one step, and what must happen as a whole before
and after some work is `sheltered`.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar
from weakref import ReferenceType, ref

T = TypeVar("T")


class _Locks:
    """References to locks that are alive, and to some that are no more: references that call
    back, as those of a WeakSet do, swallow interrupts."""

    def __init__(self) -> None:
        self._registry = threading.Lock()
        self._known: list[ReferenceType[Any]] = []
        self._room = 64

    def add(self, lock: Any) -> None:
        with self._registry:
            self._known.append(ref(lock))
            if len(self._known) > self._room:
                self._known = [known for known in self._known if known() is not None]
                self._room = 64 + 2 * len(self._known)

    def all(self) -> list[Any]:
        return [lock for known in self._known if (lock := known()) is not None]

    def pause(self) -> None:
        """Nobody adds one until `resume`."""
        self._registry.acquire()

    def resume(self) -> None:
        self._registry.release()

    def renew(self) -> None:
        self._registry = threading.Lock()


_locks = _Locks()


def open_lock() -> threading.Lock:
    """A mutual exclusion that a forked child finds open. What it protects must be whole between
    any two steps of the interpreter: the child may have been forked there."""
    lock = threading.Lock()
    _locks.add(lock)
    return lock


class _Process:
    """The work of this process: every thread that is at it holds a lock of its own, which a fork
    takes from all others."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._workers = _Locks()
        self._taken: list[Any] = []

    @property
    def lock(self) -> Any:
        """This thread's. It may be taken several times: nobody waits for himself."""
        lock = getattr(self._own, "lock", None)
        if lock is None:
            lock = threading.RLock()
            self._workers.add(lock)
            self._own.lock = lock
        return lock

    def pause(self) -> None:
        """Before a fork: wait until the others have left, and let nobody in."""
        own = self.lock
        self._workers.pause()
        for lock in self._workers.all():
            if lock is not own:
                lock.acquire()
                self._taken.append(lock)

    def resume(self) -> None:
        """After it, in the parent."""
        while self._taken:
            self._taken.pop().release()
        self._workers.resume()

    def renew(self) -> None:
        """In a forked child: no thread but this one, no lock held."""
        self._taken, self._workers = [], _Locks()
        if hasattr(self._own, "lock"):
            self._workers.add(self._own.lock)
        _locks.renew()
        for lock in _locks.all():
            if lock.locked():
                lock.release()


_process = _Process()
os.register_at_fork(
    before=_process.pause,
    after_in_parent=_process.resume,
    after_in_child=_process.renew,
)


def compiling() -> threading.RLock:  # pyright: ignore[reportInvalidTypeForm]
    """`with compiling():` while LLVM, or a part of the compiler that others wait for, is at work:
    it is not torn apart by a fork of another thread."""
    return _process.lock


class _Shelter:
    """Keeps interrupts until they may be raised."""

    def __init__(self, before: Callable[[int, FrameType | None], Any]) -> None:
        self._before = before
        self._kept = False
        self.is_open = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_open:
            self.is_open = False
            self._before(number, frame)
        else:
            self._kept = True

    def leave(self) -> None:
        signal.signal(signal.SIGINT, self._before)
        if self._kept:
            self._before(signal.SIGINT, None)


def sheltered(begin: Callable[[], object], work: Callable[[], T], end: Callable[[], object]) -> T:
    """begin(), then work(), then end(), which is called wherever begin was. An interrupt is raised
    in work alone: one that comes earlier or later waits for that, or for the end."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        begin()  # nobody is interrupted here
        try:
            return work()
        finally:
            end()
    shelter = _Shelter(before)
    signal.signal(signal.SIGINT, shelter.handle)
    try:
        try:
            begin()
            shelter.is_open = True
            return work()
        finally:
            shelter.is_open = False
            end()
    finally:
        shelter.leave()


class Cycles:
    """Python's search for garbage in cycles. It pauses while graphs and programs are made: what is
    made stays, and looking at all of it again and again took as long as making some of it. It
    belongs to the whole interpreter: the first to begin stops it, the last to end puts it back."""

    def __init__(self) -> None:
        self._lock = open_lock()
        self._users = 0
        self._collects = False

    def pause(self) -> None:
        with self._lock:
            if self._users == 0:
                self._collects = gc.isenabled()
                gc.disable()
            self._users += 1

    def resume(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._collects:
                gc.enable()

    def during(self, work: Callable[[], T]) -> T:
        """What work() returns, done meanwhile."""
        return sheltered(self.pause, work, self.resume)


CYCLES = Cycles()
