"""What Ctrl-C does to the process of the command line: one line, exit code 130, nothing half done.

An exception would not do: raised in a finaliser or while modules are imported it is swallowed, or
shown with a traceback. The process may end at any moment (files are wholly old or wholly new,
locks go with it), so it does. Training takes the signal over while it runs, to keep a checkpoint.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
SAID = "interrupted"
_SHOW_CURSOR = "\x1b[?25h"  # a bar of progress hides it


def ends_the_process() -> None:
    """From now on; where nobody asked for the signal to be ignored (nohup does)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def comes_too_late() -> None:
    """All is done: while the interpreter takes itself down, the exit code stands."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end(number: int, frame: FrameType | None) -> None:
    files = sys.modules.get("convdsl.runtime.whole_files")
    if files is not None and hasattr(files, "give_up"):
        files.give_up()
    try:
        shows = _SHOW_CURSOR if os.isatty(2) else ""
        os.write(2, f"{shows}{SAID}\n".encode())
        sys.stdout.flush()
    except (OSError, RuntimeError, ValueError):
        pass  # nobody reads, or it was being written to
    os._exit(INTERRUPTED)
