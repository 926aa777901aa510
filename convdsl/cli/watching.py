"""`--watch`: a command that runs again whenever a file that it has read changes.

Files are looked at four times a second (no package, no limit of the system on watches, right on
network folders, too). A change counts once nothing has changed since the last look, so that an
editor that removes a file, or renames another one over it, is seen when it is done.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from convdsl.cli import console
from convdsl.cli.answering import answered

if TYPE_CHECKING:
    from convdsl.elaborate.files import Stamp

_SECONDS = 0.25  # between looks
_MISSED = 4  # looks that a file may be missing before that counts as a change
_HOME, _REST_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"


def add_watch(parser: argparse._ActionsContainer) -> None:  # pyright: ignore[reportPrivateUsage]
    """`--watch`."""
    parser.add_argument(
        "--watch", action="store_true", help="run again whenever a file that was read changes"
    )


def watch(work: Callable[[], int], options: argparse.Namespace, named: Iterable[str]) -> int:
    """Run the work now and at every change, until Ctrl-C. `named` are the paths that the command
    line has, which count even where they are no sources."""
    from convdsl.elaborate.files import recorded_reads

    own = [path for name in named for path in _paths(name)]
    while True:
        with recorded_reads() as read:
            before = _stamps(own)  # what changes while the work is under way is a change
            _show(lambda: answered(work, verbose=options.verbose))
        known = before | read
        console.note(f"{_count(known)} watched since {time.strftime('%X')}; Ctrl-C ends")
        _wait(known)


def _paths(name: str) -> list[Path]:
    """What `FILE:NAME` may name: either may be the file."""
    if "\0" in name:
        return []
    head, colon, _ = name.rpartition(":")
    found = [Path(text) for text in (name, head if colon else "") if text]
    return [path for path in found if path.exists()] or found[:1]


def _count(paths: Iterable[Path]) -> str:
    count = len({os.path.realpath(path) for path in paths})
    return f"{count} file{'s' if count > 1 else ''}"


def _stamps(paths: Iterable[Path]) -> dict[Path, Stamp]:
    from convdsl.elaborate.files import stamp

    return {path: stamp(path) for path in paths}


def _wait(known: Mapping[Path, Stamp]) -> None:
    """Return when something is otherwise than it was known, and has stayed so for a look."""
    last, missed = dict(known), 0
    while True:
        time.sleep(_SECONDS)
        now = _stamps(known)
        missing = any(now[path] is None and known[path] is not None for path in known)
        missed = missed + 1 if missing else 0
        if now != known and now == last and (not missing or missed >= _MISSED):
            return
        last = now


class _Held(io.StringIO):
    """Holds what goes to a terminal, and passes for it."""

    def __init__(self, terminal: TextIO) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal.isatty()

    def fileno(self) -> int:
        return self._terminal.fileno()


def _show(work: Callable[[], int]) -> None:
    """Run the work. On a terminal what it says is drawn over what was there, in one go: a screen
    that is cleared first flickers."""
    out, err = sys.stdout, sys.stderr
    if not out.isatty() or os.environ.get("TERM") == "dumb":
        work()
        out.flush()
        return
    held = _Held(out)
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(held))
        if err.isatty():
            stack.enter_context(redirect_stderr(held))
        work()
    lines = held.getvalue().splitlines()
    out.write("".join([_HOME, *(f"{line}{_REST_OF_LINE}\n" for line in lines), _REST]))
    out.flush()
