"""Teams of threads: the caller, and helpers from a small pool of the process.

Compiled code hands out the work of a step in shares that whoever is there claims (see
backends.llvm_module), and the caller takes part from the first instruction on. So nothing
ever waits for a helper to arrive: one that the system, the interpreter's lock or another
caller keeps busy is not missed, and one that comes late finds nothing left to do. Results do
not depend on who came.

The pool grows to the largest team asked for, is shared by all callers, and sleeps between
calls. A forked child, which has none of its parent's threads, starts a pool of its own.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from convdsl.kernel.program import TEAM_SIZE, YIELD

MOST_HELPERS = 255


def available_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


class Helpers:
    """Daemon threads that run jobs in order of arrival."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self.count = 0

    def invite(self, job: Callable[[], None], helpers: int) -> None:
        """Let up to `helpers` threads run the job, when they can. Does not wait for them."""
        helpers = min(helpers, MOST_HELPERS)
        with self._changed:
            while self.count < helpers:
                self.count += 1
                name = f"convdsl-helper-{self.count}"
                threading.Thread(target=self._serve, name=name, daemon=True).start()
            self._jobs.extend([job] * helpers)
            self._changed.notify(helpers)

    def withdraw(self, job: Callable[[], None]) -> None:
        """Take back the invitations that nobody has followed yet."""
        with self._changed, suppress(ValueError):
            while True:
                self._jobs.remove(job)

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._jobs:
                    self._changed.wait()
                job = self._jobs.popleft()
            job()
            del job  # what it kept alive goes now, not with the next one


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
_YIELD = ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value


class Region:
    """Machine code that every thread of a team enters: entry(context, thread number).

    `owner` keeps the code mapped as long as a late helper may still enter it.
    """

    def __init__(self, address: int, owner: object) -> None:
        self._call = _entry(address)
        self._owner = owner

    def run(self, context: ctypes.Array[Any], threads: int, kept: object) -> None:
        """Enter on this thread, number 0, and on helpers that come. Returns when all work is
        done; a late helper may read the context after that, so it and `kept`, what it points to
        and what is not the caller's for good, stay alive until the last has left."""
        context[YIELD] = _YIELD
        context[TEAM_SIZE] = threads
        where = ctypes.addressof(context)
        if threads > 1:
            alive = (context, kept, self)

            def help_out() -> None:
                alive[2]._call(where, 1)

            helpers = process.helpers
            helpers.invite(help_out, threads - 1)
            try:
                self._call(where, 0)
            finally:
                helpers.withdraw(help_out)
        else:
            self._call(where, 0)
