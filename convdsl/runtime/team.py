"""Teams of threads, from the OpenMP runtime of the system.

One parallel region per inference. The region asks how many threads it really got, so limits
in the environment or pinning do no harm. Three traps are handled here:

- An OpenMP runtime keeps its pool per calling thread, and after `fork` the child's main
  thread would wait for pool threads that do not exist there: a forked child runs its
  regions from a fresh thread, which gets a pool of its own.
- Many concurrent callers would make many pools: one region runs in parallel at a time,
  callers that come meanwhile run theirs on their own thread alone. Results do not depend
  on the team size.
- Where no runtime is found, everything runs on one thread, and a warning says so once.
"""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from convdsl.kernel.program import TEAM_SIZE, THREAD_NUMBER, YIELD

_NAMES = ("libgomp.so.1", "libomp.so.5", "libomp.so", "libiomp5.so", "libomp.dylib")


class OpenMP:
    """An OpenMP runtime, and the addresses of its functions that regions call."""

    def __init__(self, name: str, library: ctypes.CDLL) -> None:
        self.name = name
        self._parallel = library.GOMP_parallel
        self._parallel.argtypes = (
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_uint,
            ctypes.c_uint,
        )
        self._parallel.restype = None
        self.thread_number = _address(library.omp_get_thread_num)
        self.team_size = _address(library.omp_get_num_threads)

    def parallel(self, entry: int, context: int, threads: int) -> None:
        """Run entry(context) on up to `threads` threads; returns when all are done."""
        self._parallel(entry, context, threads, 0)


def _address(function: object) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # pyright: ignore[reportArgumentType]


@lru_cache(maxsize=1)
def find_openmp() -> OpenMP | None:
    """The system's OpenMP runtime (libgomp, libomp or Intel's, through the GOMP interface)."""
    for name in _NAMES:
        try:
            return OpenMP(name, ctypes.CDLL(name))
        except (OSError, AttributeError):
            continue
    return None


def available_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


_YIELD = _address(ctypes.CDLL(None).sched_yield)
_region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Process:
    """What this process knows of its teams."""

    def __init__(self, forked: bool) -> None:
        self.forked = forked
        self.busy = threading.Lock()
        self.warned = False
        self._leader: ThreadPoolExecutor | None = None

    def leader(self) -> ThreadPoolExecutor:
        """One thread, started after the fork, with an OpenMP pool of its own."""
        if self._leader is None:
            self._leader = ThreadPoolExecutor(1, thread_name_prefix="convdsl-team")
        return self._leader

    def renew(self) -> None:
        """In a forked child: nothing of the parent's threads is there."""
        self.forked = True
        self.busy = threading.Lock()
        self._leader = None


_process = _Process(forked=False)
os.register_at_fork(after_in_child=_process.renew)


def openmp_for(threads: int) -> OpenMP | None:
    """The runtime for a team of `threads`, or None for one thread (or where there is none)."""
    if threads <= 1:
        return None
    openmp = find_openmp()
    if openmp is None and not _process.warned:
        _process.warned = True
        warnings.warn(
            "no OpenMP runtime found (libgomp, libomp): running on one thread",
            RuntimeWarning,
            stacklevel=3,
        )
    return openmp


class Region:
    """Machine code that every thread of a team enters: entry(context)."""

    def __init__(self, entry: int) -> None:
        self.entry = entry
        self._call = _region(entry)

    def run(self, context: ctypes.Array[ctypes.c_void_p], threads: int) -> None:
        """Run on a team. The slots that concern threads are set here."""
        context[YIELD] = _YIELD
        openmp = openmp_for(threads)
        where = ctypes.addressof(context)
        busy = _process.busy
        if openmp is None or not busy.acquire(blocking=False):
            context[THREAD_NUMBER] = context[TEAM_SIZE] = None
            self._call(where)
            return
        try:
            context[THREAD_NUMBER] = openmp.thread_number
            context[TEAM_SIZE] = openmp.team_size
            if _process.forked:
                _process.leader().submit(openmp.parallel, self.entry, where, threads).result()
            else:
                openmp.parallel(self.entry, where, threads)
        finally:
            busy.release()
