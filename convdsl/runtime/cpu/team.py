"""Teams of threads: the caller, and helpers from a small pool of the process.

Compiled code hands out the work of a step in shares that whoever is there claims (see
backends.llvm.module), and the caller takes part from the first instruction on. So nothing
ever waits for a helper to arrive: one that the system, the interpreter's lock or another
caller keeps busy is not missed, and one that comes late finds nothing left to do. Results do
not depend on who came.

The pool grows to the largest team asked for and is shared by all callers. After a call a helper
stays awake for a moment, without the interpreter's lock, because the next call often follows at
once and waking takes longer than a small network; then it sleeps. A forked child, which has none
of its parent's threads, starts a pool of its own.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

from convdsl.diagnostics import InputError, expect
from convdsl.kernel.cpu_abi import (
    BOARD,
    BOARD_AWAKE,
    BOARD_INSIDE,
    BOARD_REST,
    BOARD_SEATS,
    BOARD_WORDS,
    TEAM_SIZE,
    TICKET,
    YIELD,
)

MOST_HELPERS = 255

MOST_THREADS = 1 << 16
"""The largest team that can be asked for; results do not depend on who comes to help."""

_LINGER = 40_000  # pauses, about a millisecond, in which a helper waits for a next call


def available_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def team_size(threads: object) -> int:
    """A number of threads that somebody asks for; None is one for each processor. InputError for
    what is no such number."""
    if threads is None:
        return available_threads()
    expect("the number of threads", threads, int)
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise InputError(f"{threads!r} threads: at least one is needed")
    if threads > MOST_THREADS:
        raise InputError(f"{threads} threads: at most {MOST_THREADS}")
    return threads


class Board:
    """Where one caller at a time shows its call to helpers that are awake."""

    def __init__(self) -> None:
        self._words = (ctypes.c_int64 * (BOARD_WORDS + 8))()
        self._address = -(-ctypes.addressof(self._words) // 64) * 64
        self._first = (self._address - ctypes.addressof(self._words)) // 8
        self._tickets = count(1)
        self._words[self._first + BOARD_REST] = _REST or 0
        self._caller: dict[None, weakref.ref[Any]] = {}
        self._kept: list[object] = []

    def take(self, context: ctypes.Array[Any], helpers: int) -> int | None:
        """Have the call that the context is made for shown to that many helpers. Says how many
        are awake; None, and nothing is shown, while the board is another caller's."""
        mine = weakref.ref(context)
        holder = self._caller.setdefault(None, mine)  # in one step
        if holder is not mine:
            if holder() is None and threading.current_thread() is threading.main_thread():
                self._caller.pop(None, None)  # an interrupt, of this thread, kept it from leaving
            return None
        if self._kept and not self._words[self._first + BOARD_INSIDE]:
            self._kept.clear()
        self._words[self._first + BOARD_SEATS] = helpers
        context[BOARD] = self._address
        context[TICKET] = next(self._tickets)
        return self._words[self._first + BOARD_AWAKE]

    def is_held(self, context: ctypes.Array[Any]) -> bool:
        """Whether the call shown is that of the context."""
        holder = self._caller.get(None)
        return holder is not None and holder() is context

    def leave(self, context: ctypes.Array[Any], alive: object) -> None:
        """After a call of `take`. What it needed is kept while any helper may look at it."""
        if context[TICKET]:
            self._kept.append(alive)
        self._caller.pop(None, None)


class Helpers:
    """Daemon threads that run jobs in order of arrival."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], object]] = deque()
        self._lock = threading.Lock()  # taken in one step, which an interrupt cannot tear apart
        self._changed = threading.Condition(self._lock)
        self._threads: list[int] = []  # as the system numbers them
        self._asleep = 0
        self._allowed: set[int] = set()  # processors, to helpers that are awake; none: not known
        self.board = Board()
        self.count = 0

    def invite(self, job: Callable[[], object], helpers: int) -> None:
        """Let up to `helpers` threads run the job, when they can. Does not wait for them."""
        helpers = min(helpers, MOST_HELPERS)
        with self._lock:
            while self.count < helpers:
                name = f"convdsl-helper-{self.count + 1}"
                try:
                    threading.Thread(target=self._serve, name=name, daemon=True).start()
                except RuntimeError:
                    break  # the system grants no more: those who are there, and the caller, do it
                self.count += 1
            self._jobs.extend([job] * helpers)
            if self._asleep:
                self._allowed = _keep_off_this_processor(self._threads)
                self._changed.notify(helpers)

    def withdraw(self, job: Callable[[], object]) -> None:
        """Take back the invitations that nobody has followed yet."""
        with self._lock, suppress(ValueError):
            while True:
                self._jobs.remove(job)

    def _serve(self) -> None:
        with self._lock:
            self._threads.append(threading.get_native_id())
        while True:
            job = self._next()
            job()
            del job  # what it kept alive goes now, not with the next one

    def _next(self) -> Callable[[], object]:
        with self._lock:
            while not self._jobs:
                self._asleep += 1
                self._changed.wait()
                self._asleep -= 1
                _may_run_on(threading.get_native_id(), self._allowed)
            return self._jobs.popleft()


_LIBC = ctypes.CDLL(None)
_YIELD = ctypes.cast(_LIBC.sched_yield, ctypes.c_void_p).value
_REST = ctypes.cast(_LIBC.usleep, ctypes.c_void_p).value if hasattr(_LIBC, "usleep") else None
_current_processor: Callable[[], int] | None = getattr(_LIBC, "sched_getcpu", None)


def _keep_off_this_processor(threads: list[int]) -> set[int]:
    """A thread that is woken is often put where its waker runs, behind it, though another
    processor has less important work: so say where not to. Says where this thread may run, which
    is where they may once they are awake: one that is put aside there has to find another place."""
    if _current_processor is None or not hasattr(os, "sched_setaffinity"):
        return set()
    allowed = os.sched_getaffinity(0)
    for thread in threads:
        _may_run_on(thread, allowed - {_current_processor()})
    return allowed


def _may_run_on(thread: int, processors: set[int]) -> None:
    if processors:
        with suppress(OSError):  # not allowed here: then wherever the system thinks best
            os.sched_setaffinity(thread, processors)


class _Process:
    """The pool of this process."""

    def __init__(self) -> None:
        self.helpers = Helpers()

    def renew(self) -> None:
        """In a forked child: nothing of the parent's threads is there."""
        self.helpers = Helpers()


process = _Process()
os.register_at_fork(after_in_child=process.renew)

_entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)


class Region:
    """Machine code that every thread of a team enters: entry(context, stay), as kernel.cpu_abi
    says. `owner` keeps the code mapped as long as a late helper may still enter it."""

    def __init__(self, address: int, owner: object) -> None:
        self._enter = _entry(address)
        self._owner = owner

    def take_part(self, context: ctypes.Array[Any], team: int, leads: bool) -> None:
        """Enter on this thread alone, one of a team whose others are of other processes, and of
        which one leads."""
        context[YIELD] = _YIELD
        context[TEAM_SIZE] = team
        self._enter(ctypes.addressof(context), 0 if leads else 1)

    def run(self, context: ctypes.Array[Any], threads: int, kept: object) -> None:
        """Enter on this thread, number 0, and on helpers that come. Returns when all work is
        done; a late helper may read the context after that, so it and `kept`, what it points to
        and what is not the caller's for good, stay alive until the last has left."""
        if threads == 1:
            self.take_part(context, 1, True)
            return
        context[YIELD] = _YIELD
        context[TEAM_SIZE] = threads
        where = ctypes.addressof(context)
        alive = (context, kept, self)

        def help_out() -> None:
            alive[2]._enter(where, _LINGER)

        helpers = process.helpers
        missing = threads - 1
        try:
            try:
                awake = helpers.board.take(context, threads - 1)
                missing -= awake or 0
                if missing > 0:
                    helpers.invite(help_out, missing)
            finally:  # an interrupt must not leave helpers alone with arrays that are given away
                self._enter(where, 0)
        finally:
            if missing > 0:
                helpers.withdraw(help_out)
            if helpers.board.is_held(context):
                helpers.board.leave(context, alive)
