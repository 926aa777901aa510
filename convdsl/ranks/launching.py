"""Starting a job of several processes on this machine, and what is said of its end.

mpiexec starts the processes, hands signals on to them, and ends all when one of them dies. When we
are killed ourselves it is asked to stop, and the ranks do so as after Ctrl-C. What it
says of that itself, a dozen lines for every end, is left out; one line is said instead.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import IO

from convdsl.diagnostics import InputError

_BANNER = re.compile(
    r"={20,}$|= +(BAD TERMINATION|PID \d+ RUNNING|EXIT CODE|CLEANING UP|YOU CAN IGNORE)|"
    r"YOUR APPLICATION TERMINATED|This typically refers to a problem|Please see the FAQ page|"
    r"\[(mpiexec|proxy)[:@]|Abort\(\d+\) on node"
)
_KILLED = re.compile(r"YOUR APPLICATION TERMINATED WITH THE EXIT STRING: .*\(signal (\d+)\)")
_PID = re.compile(r"= +PID (\d+) RUNNING")


_FOLLOW = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None)
if hasattr(libc, "prctl"):
    libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, which lasts through execv
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes a command that is told to stop when the process of the given id ends, however it does."""


@dataclass
class Ended:
    """How a job has ended: its exit code; of a process that was killed, which, and the signal."""

    code: int
    signal: int | None = None
    pid: str = ""


def launch(command: Sequence[str], processes: int) -> Ended:
    """Run a command as so many processes, which say what they say on our standard streams; signals
    to stop are handed on to them. InputError where MPI is not there."""
    follow = [sys.executable, "-I", "-S", "-c", _FOLLOW, str(os.getpid())]
    starter = [*follow, _mpiexec(), "-n", str(processes), *command]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    job = subprocess.Popen(  # noqa: S603  (this Python, with the words that we were given)
        starter,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # a terminal's Ctrl-C comes to us alone
        text=True,
        errors="replace",
    )
    heard = _Heard()
    with job:
        pairs = ((job.stdout, sys.stdout), (job.stderr, sys.stderr))
        readers = [threading.Thread(target=heard.hand_on, args=pair) for pair in pairs]
        for reader in readers:
            reader.start()
        with _handed_on(job):
            code = job.wait()
        for reader in readers:
            reader.join()
    return Ended(code, heard.signal, heard.pid)


@contextmanager
def _handed_on(job: subprocess.Popen[str]) -> Generator[None]:
    """Signals to stop are the job's; where they cannot be caught, outside the main thread, not."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        job.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, hand_on) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _Heard:
    """What mpiexec said of a process that died."""

    signal: int | None = None
    pid: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hand_on(self, source: IO[str] | None, target: IO[str]) -> None:
        """Line after line, but for what mpiexec says itself."""
        blank = False
        for line in source or ():
            if not line.strip():
                blank = True  # its banner begins with one
                continue
            if _BANNER.match(line):
                self._note(line)
                blank = False
                continue
            whole = line.removesuffix("\n") + "\n"  # mpiexec may kill it before it ends its line
            with self.lock:
                target.write("\n" + whole if blank else whole)
                target.flush()
            blank = False

    def _note(self, line: str) -> None:
        if found := _KILLED.match(line):
            self.signal = int(found[1])
        if found := _PID.match(line):
            self.pid = found[1]


def _mpiexec() -> str:
    """The one that belongs to mpi4py: that of the wheel `mpich`, beside this Python, else that of
    the system. InputError without one, and without mpi4py."""
    if find_spec("mpi4py") is None:
        raise InputError(
            "several processes need MPI, and mpi4py is not installed\n"
            "help: pip install 'convdsl[mpi]'"
        )
    places = (Path(sys.executable).parent, Path(sysconfig.get_path("scripts")))
    beside = [str(place / name) for place in places for name in ("mpiexec.hydra", "mpiexec")]
    found = [path for path in beside if os.access(path, os.X_OK)]
    if not found:
        found = [path for path in [shutil.which("mpiexec")] if path is not None]
    if not found:
        raise InputError(
            "several processes need MPI, and there is no mpiexec\nhelp: pip install 'convdsl[mpi]'"
        )
    return found[0]
