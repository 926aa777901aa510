"""Bring .cnn files into the one layout.

Files are rewritten in place, without FILE those that convdsl.toml lists; `-` reads the standard
input and writes the standard output. With --check nothing is written, and the exit code is 1 where
a file would change.
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import sys
from pathlib import Path

from convdsl.cli import console
from convdsl.cli.files import plain_path
from convdsl.cli.options import completes
from convdsl.diagnostics import InputError

_LONGEST = 120
"""Characters of a line that a note shows."""


def configure(parser: argparse.ArgumentParser) -> None:
    completes(
        parser.add_argument("file", nargs="*", metavar="FILE", help="a .cnn file, or -"),
        "source",
    )
    parser.add_argument("--check", action="store_true", help="write nothing, say what would change")
    parser.add_argument("--diff", action="store_true", help="like --check, and show the changes")


def run(options: argparse.Namespace) -> int:
    changed = [name for name in options.file or _listed() if _format(name, options)]
    looking = options.check or options.diff
    if not looking and not changed:
        console.note("nothing to change")
    return 1 if looking and changed else 0


def _listed() -> list[str]:
    """The files that the project file of the current folder lists."""
    from convdsl.project.reading import project_here

    return [str(file) for file in project_here().files_from_here()]


def _format(name: str, options: argparse.Namespace) -> bool:
    """Format one file; whether that changes it."""
    from convdsl.syntax.format import format_source

    before = _given() if name == "-" else _read(name)
    after = format_source(before, "<stdin>" if name == "-" else name)
    if options.diff:
        lines = difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), name, name
        )
        if shown := "".join(lines):
            console.result(shown)
    elif options.check:
        if before != after:
            console.result(name)
            console.note(_first_change(name, before, after))
    elif name == "-":
        console.put(after)
    elif before != after:
        _write(name, after)
        console.note(f"formatted {name}")
    return before != after


def _first_change(name: str, before: str, after: str) -> str:
    """Where a file would change first, to what, and in how many lines."""
    old, new = before.splitlines(), after.splitlines()
    changes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    spans = [
        (i, j, upper - i, higher - j) for tag, i, upper, j, higher in changes if tag != "equal"
    ]
    if not spans:  # line ends alone
        return f"{name}:{max(1, len(old))}: the end of the file"
    line, other, _, _ = spans[0]
    count = sum(max(removed, added) for _, _, removed, added in spans)
    lines = f"{count} line{'s' if count > 1 else ''}"
    meant = new[other] if other < len(new) else ""
    shown = meant if len(meant) <= _LONGEST else f"{meant[:_LONGEST]}..."
    wanted = f"should read `{shown}`" if other < len(new) else "should not be there"
    return f"{name}:{line + 1}: {wanted}; {lines} would change"


def _given() -> str:
    """The standard input, which may be anything."""
    from convdsl.syntax.limits import SOURCE_BYTES

    if (stream := getattr(sys.stdin, "buffer", None)) is None:
        return sys.stdin.read()
    data = stream.read(SOURCE_BYTES + 1)
    if len(data) > SOURCE_BYTES:
        raise InputError(f"the standard input is larger than {SOURCE_BYTES:,} bytes")
    try:
        return io.TextIOWrapper(io.BytesIO(data), "utf-8").read()
    except UnicodeDecodeError:
        raise InputError("the standard input is not UTF-8 text") from None


def _read(name: str) -> str:
    from convdsl.elaborate.files import FileProblem, read_text
    from convdsl.syntax.limits import SOURCE_BYTES

    try:
        return read_text(_behind_links(name), SOURCE_BYTES)
    except FileProblem as problem:
        from convdsl.loading import folder_instead, refuse_others  # slow to load

        refuse_others(_behind_links(name))
        raise InputError(folder_instead(name) or problem.message) from None


def _write(name: str, text: str) -> None:
    from convdsl.runtime.whole_files import told_of, write_whole

    with told_of(name):
        write_whole(_behind_links(name), [text.encode()])


def _behind_links(name: str) -> Path:
    """The file that is read and written; where links go in a circle, one that cannot be."""
    return Path(os.path.realpath(plain_path(name)))
