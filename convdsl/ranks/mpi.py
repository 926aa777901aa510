"""Ranks that MPI has started, by mpi4py.

MPI goes on with what has begun only when it is asked about it. While a sum is on its way a thread
asks, now and then: often enough for the next piece of a message to leave in time, and rarely enough
to leave the processor to whoever computes. Nobody waits spinning: ranks may share processors.

A rank that fails tells rank 0, which looks for such messages whenever it waits; rank 0 says what it
was, and ends all. So there is one message, whoever failed, and however many.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.ranks import LARGEST, Pending, RankError
from convdsl.ranks.started import started

T = TypeVar("T")
Array = npt.NDArray[Any]

_ASKED = 5e-4
"""Seconds between two questions while others compute: a link of 10 Gbit/s moves half a megabyte
meanwhile, which lies in the system's buffers, and asking takes some 2 % of a processor."""

_WAITED = 1e-4
"""The same while there is nothing else to do."""

_HEARD = 20.0
"""Seconds in which rank 0 looks for messages, unless it does something very long."""

_SPINS = 20
"""Questions in a row before a pause: what is on its way on one machine takes microseconds."""

_HAS_MEMORY = hasattr(os, "memfd_create")

_FAILED = 1
"""The tag of messages that say why a rank has failed."""


def open_ranks() -> MpiRanks:
    """The ranks of this job. InputError without mpi4py, or where its MPI is not the one that has
    started the processes."""
    os.environ.setdefault("MPIR_CVAR_SUPPRESS_ABORT_MESSAGE", "1")  # what is to be said, we say
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise InputError(
            f"several processes need MPI, which is not there: {error}\n"
            "help: pip install 'convdsl[mpi]'"
        ) from None
    except RuntimeError as error:
        raise InputError(f"MPI does not begin: {error}") from None
    count = started()
    if count > 1 and MPI.COMM_WORLD.size == 1:
        raise InputError(
            f"{count} processes were started by an mpiexec of another MPI than that of mpi4py"
            f" ({MPI.Get_library_version().splitlines()[0]}), and do not find each other\n"
            "help: use the mpiexec beside this Python, or --nproc, or build mpi4py for yours"
        )
    return MpiRanks(MPI)


class MpiRanks:
    """MPI's world."""

    def __init__(self, mpi: Any) -> None:
        self._mpi = mpi
        self._world = mpi.COMM_WORLD.Dup()
        self._failures = mpi.COMM_WORLD.Dup()  # nothing else is said there
        self._machine = mpi.COMM_WORLD.Split_type(mpi.COMM_TYPE_SHARED)
        self.rank: int = self._world.rank
        self.size: int = self._world.size
        self.local: int = self._machine.rank
        self.beside: int = self._machine.size
        mine = sorted(os.sched_getaffinity(0))
        self.sharing: int = self._machine.allgather(mine).count(mine)
        self._asking = _Asking(mpi, self._hear)

    def all_reduce(self, memory: Array) -> Pending:
        return self._sum(self._world, memory)

    def _sum(self, those: Any, memory: Array) -> Pending:
        """Begin the sum over those of a communicator."""
        flat = memory.reshape(-1)
        step = max(1, LARGEST // flat.itemsize)
        requests: list[Any] = []
        with self._asking.lock:
            for first in range(0, flat.size, step):
                piece = flat[first : first + step]
                requests.append(those.Iallreduce(self._mpi.IN_PLACE, piece))
            return self._asking.about(_Sent(self._asking, requests, memory))

    def gather(self, value: T) -> list[T]:
        self.barrier()  # which hears of failures
        with self._asking.lock:
            return self._world.allgather(value)

    def broadcast(self, value: T) -> T:
        self.barrier()
        with self._asking.lock:
            return self._world.bcast(value)

    def barrier(self) -> None:
        here = np.zeros(1, np.int64)
        self.all_reduce(here).wait()

    def agree(self, memory: Array) -> None:
        self._sum(self._machine, memory).wait()

    def shared(self, size: int) -> Array | None:
        mine = os.memfd_create("convdsl") if self.local == 0 and _HAS_MEMORY else -1
        if mine >= 0:
            os.ftruncate(mine, size)
        self.barrier()  # which hears of failures
        with self._asking.lock:
            owner, file = self._machine.bcast((os.getpid(), mine))
        found = _mapped(f"/proc/{owner}/fd/{file}", size) if file >= 0 else None
        everywhere = np.array([found is not None], np.int64)
        self.all_reduce(everywhere).wait()
        if mine >= 0:
            os.close(mine)  # the memory goes with the last who has it
        return found if everywhere[0] == self.size else None

    def fail(self, message: str) -> bool:
        if self.rank == 0:
            return True
        with self._asking.lock:
            self._failures.isend(message, 0, _FAILED)
        time.sleep(_HEARD)  # rank 0 ends this process meanwhile
        return True

    def abort(self, code: int) -> None:
        self._mpi.COMM_WORLD.Abort(code)

    def _hear(self) -> None:
        """RankError where another rank has said that it failed."""
        if self.rank == 0 and self._failures.iprobe(tag=_FAILED):
            status = self._mpi.Status()
            message = self._failures.recv(tag=_FAILED, status=status)
            raise RankError(f"rank {status.Get_source()}: {message}")


def _mapped(file: str, size: int) -> Array | None:
    """The memory of another process of this user; None where the system does not show it."""
    try:
        with open(file, "r+b", buffering=0) as opened:  # noqa: PTH123  (a link that is no path)
            return np.frombuffer(mmap.mmap(opened.fileno(), size), np.uint8)
    except (OSError, ValueError):
        return None


class _Sent:
    """Messages on their way."""

    def __init__(self, asking: _Asking, requests: list[Any], memory: Array) -> None:
        self._asking = asking
        self._requests = requests
        self._memory = memory  # alive until they are there
        self._there = False

    def ask(self, mpi: Any) -> bool:
        """Whether all are there; by whoever has the lock."""
        self._there = self._there or bool(mpi.Request.Testall(self._requests))
        return self._there

    def wait(self) -> None:
        asked = 0
        while not self._asking.ask(self):
            asked += 1
            if asked > _SPINS:
                time.sleep(_WAITED)


class _Asking:
    """Asks about what is on its way, as long as anything is."""

    def __init__(self, mpi: Any, hear: Callable[[], None]) -> None:
        self._mpi = mpi
        self._hear = hear
        self.lock = threading.Lock()  # one thread at a time speaks with MPI
        self._sent: list[_Sent] = []
        self._some = threading.Event()
        threading.Thread(target=self._go_on, name="convdsl-ranks", daemon=True).start()

    def about(self, sent: _Sent) -> _Sent:
        """From now on also about this; by whoever has the lock."""
        self._sent.append(sent)
        self._some.set()
        return sent

    def ask(self, sent: _Sent) -> bool:
        """Whether something is there. Raises RankError where it will never be."""
        with self.lock:
            there = sent.ask(self._mpi)
            if not there:
                self._hear()
            return there

    def _go_on(self) -> None:
        while True:
            self._some.wait()
            with self.lock:
                self._sent = [sent for sent in self._sent if not sent.ask(self._mpi)]
                if not self._sent:
                    self._some.clear()
            time.sleep(_ASKED)
