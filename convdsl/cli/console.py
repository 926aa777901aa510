"""What is said, where and in which colour. Results go to stdout, all else to stderr."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import sys
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TextIO

from convdsl.appearance import columns_of
from convdsl.diagnostics import Diagnostic, InputError, printable

_SHOWN = 80
_LONG = re.compile(rf"\S{{{4 * _SHOWN},}}")
"""Words that nobody reads: of values that are quoted, beginning and end are shown."""

_COLOURS = re.compile(r"(\x1b\[[0-9;]*m)")


@dataclass(slots=True)
class _Manner:
    quiet: bool = False
    verbose: bool = False
    color: str = "auto"
    wide: bool = False


_manner = _Manner()


def begin() -> None:
    """Forget the manner of the command before, in a process that runs several: help, and what is
    wrong with the words of a command, come before its options are known."""
    _manner.__init__()


def configure(options: argparse.Namespace) -> None:
    """Take over --quiet, --verbose, --color and, of commands that have tables, --wide."""
    _manner.wide = getattr(options, "wide", False)
    _manner.quiet = options.quiet
    _manner.verbose = options.verbose
    _manner.color = options.color


def is_wide() -> bool:
    """Whether tables have all their columns, however wide."""
    return _manner.wide


def use_colour(stream: TextIO) -> bool:
    """--color, then NO_COLOR (no-color.org), FORCE_COLOR, then whether it is a terminal."""
    if _manner.color != "auto":
        return _manner.color == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def width(stream: TextIO) -> int | None:
    """The columns of a terminal, for messages; elsewhere their lines are as long as they are."""
    return shutil.get_terminal_size().columns if stream.isatty() and not is_wide() else None


def table_width() -> int | None:
    """The columns to fit tables to, those that COLUMNS says in pipes, too; None: all is shown."""
    return None if is_wide() else columns_of(sys.stdout)


def error(message: str) -> None:
    """An error, on stderr. Diagnostics bring their own heading."""
    _say("error: ", "1;31", message)


def findings(diagnostics: Iterable[Diagnostic]) -> None:
    """What is wrong in a text, on stderr."""
    color = use_colour(sys.stderr)
    columns = width(sys.stderr)
    text = "\n\n".join(d.render(color=color, width=columns) for d in diagnostics)
    _complain(f"{text if color else printable(text)}\n")


def note(message: str, *, always: bool = False) -> None:
    """Something worth knowing, on stderr; --quiet silences it."""
    if always or not _manner.quiet:
        _say("note: ", "1;36", message)


def detail(message: str) -> None:
    """Something for --verbose, on stderr."""
    if _manner.verbose:
        _say("", "", message)


def result(text: str, *, drawn: bool = False) -> None:
    """A result, on stdout. Nothing that steers a terminal gets through but the colours of what
    `reporting` has drawn, which cleans its cells itself."""
    parts = _COLOURS.split(text) if drawn and use_colour(sys.stdout) else [text]
    parts[::2] = map(printable, parts[::2])
    clean = "".join(parts)
    put(clean if clean.endswith("\n") else f"{clean}\n")


def put(data: str | bytes) -> None:
    """A result as it is, on stdout: InputError where that takes no more."""
    with _output():
        (sys.stdout if isinstance(data, str) else sys.stdout.buffer).write(data)  # type: ignore[arg-type]


def flush() -> None:
    """What was said is to be seen now: the command goes on, or ends."""
    with _output():
        sys.stdout.flush()


@contextlib.contextmanager
def _output() -> Generator[None]:
    """Stdout, which may lead to a full disk; a reader that is gone is nobody to be told."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise InputError(f"cannot write the output: {error.strerror or error}") from None


def drop_output() -> None:
    """What stdout holds back goes nowhere."""
    _drop(sys.stdout)


def _drop(stream: TextIO) -> None:
    """What a stream holds back goes nowhere: Python writes it once more as it ends, which fails,
    and makes the command's code 120."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(heading: str, style: str, message: str) -> None:
    if heading and message.startswith(("error[", "warning[", "-->")):
        heading = ""
    text = _LONG.sub(_ends, printable(message))
    if heading and sys.stderr.isatty():
        text = _filled(text, heading)
    if heading and use_colour(sys.stderr):
        heading = f"\x1b[{style}m{heading}\x1b[0m"
    _complain(f"{heading}{text}\n")


def _complain(text: str) -> None:
    """To stderr. Where that takes no more there is nobody to tell, and the work goes on."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:
        _drop(sys.stderr)


def _ends(word: re.Match[str]) -> str:
    return f"{word[0][:_SHOWN]}...{word[0][-_SHOWN // 2 :]}"


def _filled(text: str, heading: str) -> str:
    """Lines that break between words where the terminal would break them within one. The heading's
    place is kept in front of the first."""
    import textwrap

    width = shutil.get_terminal_size().columns
    lines: list[str] = []
    for line in text.split("\n"):
        first = " " * len(heading) if not lines else ""
        if len(first + line) > width:
            line = textwrap.fill(
                line, width, initial_indent=first, subsequent_indent="  ", break_long_words=False,
                break_on_hyphens=False,
            ).removeprefix(first)  # fmt: skip
        lines.append(line)
    return "\n".join(lines)


def remark(text: str) -> None:
    """Something that an option asked for besides the result, on stderr."""
    _say("", "", text)


def counted(count: int, what: str) -> str:
    """`1 sample`, `1,350 samples`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
