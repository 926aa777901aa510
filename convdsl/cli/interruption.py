"""What Ctrl-C does to the process of the command line: one line, exit code 130, nothing half done.

An exception would not do: raised in a finaliser or while modules are imported it is swallowed, or
shown with a traceback. The process may end at any moment (files are wholly old or wholly new,
locks go with it), so it does; who writes several files that belong together lets it wait. Training
takes the signal over while it runs, to keep a checkpoint.

Until `ends_the_process` Python answers with a traceback: nothing is imported here that the
interpreter has not loaded itself (`signal` is `_signal` with enumerations, ten times as long).
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from types import FrameType, TracebackType
else:
    import _signal as signal

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


class Waiting:
    """`with Waiting():` what belongs together comes to be; Ctrl-C ends the process after it."""

    count = 0
    asked = False

    def __enter__(self) -> None:
        Waiting.count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        Waiting.count -= 1
        if Waiting.asked and not Waiting.count:
            _end(signal.SIGINT, None)


def _end(number: int, frame: FrameType | None) -> None:
    if Waiting.count:
        Waiting.asked = True
        return
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
