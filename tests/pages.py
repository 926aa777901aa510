"""Pages that are run: what they show is what convdsl says.

A page is Markdown. Of its fenced blocks

    ```cnn        stands word for word in some file of the zoo, so that pages quote and do not copy;
    ```cnn a.cnn  is written as that file, in the folder of the page;
    ```python a/b.py, ```diff a/b.py  are that file, and changes of it, in the repository: see
                  `take_steps`;
    ```console    `$ convdsl ...` is run, all of a page in one folder, and what follows up to the
                  next `$` is what it prints;
    ```python     `>>> ...` is run as doctest does it, all of a page with the same names; without
                  `>>>` it is run as it is.

`...` in what is printed stands for anything, also for lines. A block called ```console slow or
```python slow is run where slow tests are asked for, in its place among the others.
`--update-golden` writes what commands print anew, unless it has `...`. What a reader need not see
stands in a comment, `<!--` to `-->`. ```python elsewhere needs what the tests of all days have not,
and is run by others. Commands in any other block are not run, but have to be commands.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from convdsl import zoo
from convdsl.cli import app, main

_FENCE = re.compile(r"^```(\w+)((?: [\w./]+)*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FLAGS = doctest.ELLIPSIS


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what is said after it, its text, and where that begins."""

    kind: str
    flags: frozenset[str]
    text: str
    start: int

    @property
    def file(self) -> str | None:
        """The file that it is, or changes; None of most."""
        return next((flag for flag in self.flags if "." in flag), None)


def blocks(page: str) -> list[Block]:
    return [
        Block(match.group(1), frozenset(match.group(2).split()), match.group(3), match.start(3))
        for match in _FENCE.finditer(page)
    ]


def quoted_nowhere(page: str) -> list[str]:
    """The blocks of the language that no file of the zoo has."""
    texts = [path.read_text(encoding="utf-8") for path in zoo.files()]
    quoted = (block.text for block in blocks(page) if block.kind == "cnn" and block.file is None)
    return [text for text in quoted if not any(text in whole for whole in texts)]


def run(page: str, slow: bool = False) -> tuple[str, list[str]]:
    """The page with what its commands print now, and what differs from what it shows. Files that
    commands leave stand in the current folder."""
    names: dict[str, Any] = {}
    found: list[str] = []
    written, end = "", 0
    for block in blocks(page):
        if "elsewhere" in block.flags or ("slow" in block.flags and not slow):
            continue
        if block.file is not None:
            if block.kind == "cnn":
                Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            found += _python(block, names)
        elif block.kind == "console":
            printed, differences = _console(block)
            found += differences
            written += page[end : block.start] + printed
            end = block.start + len(block.text)
    return written + page[end:], found


def check_page(page: Path, request: pytest.FixtureRequest, slow: bool) -> None:
    """Run a page in the working directory; its text is written anew where goldens are."""
    written, found = run(page.read_text(encoding="utf-8"), slow)
    if request.config.getoption("--update-golden"):
        page.write_text(written, encoding="utf-8")
    else:
        assert not found, "\n".join([*found, "run `make golden` and read the diff"])


def take_steps(page: str, root: Path) -> None:
    """Write the files of a page, and change those that it changes, below a folder. Of a change, ` `
    stands before what is there, `+` before what comes, `-` before what goes; `@@` parts places."""
    for block in blocks(page):
        if block.file is None or block.kind == "cnn":
            continue
        file = root / block.file
        if block.kind == "diff":
            text = file.read_text(encoding="utf-8")
            for hunk in re.split(r"^@@\n", block.text, flags=re.MULTILINE):
                text = _changed(text, hunk, block.file)
            file.write_text(text, encoding="utf-8")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")


def _changed(text: str, hunk: str, name: str) -> str:
    lines = [(line[:1] or " ", line[1:]) for line in hunk.splitlines()]
    old, new = (
        "".join(f"{said}\n" for sign, said in lines if sign in kept) for kept in (" -", " +")
    )
    places = re.compile(f"^{re.escape(old)}", re.MULTILINE)
    count = len(places.findall(text))
    assert count == 1, f"a change fits {count} places of {name}:\n{old}"
    return places.sub(lambda _: new, text)


def _python(block: Block, names: dict[str, Any]) -> list[str]:
    if ">>>" not in block.text:
        exec(compile(block.text, "page", "exec"), names)
        return []
    test = doctest.DocTestParser().get_doctest(block.text, names, "page", None, 0)
    said = io.StringIO()
    runner = doctest.DocTestRunner(verbose=False, optionflags=_FLAGS)
    runner.run(test, out=said.write, clear_globs=False)
    names.update(test.globs)
    return [said.getvalue()] if runner.failures else []


def _console(block: Block) -> tuple[str, list[str]]:
    written, found = "", []
    for command, shown in _commands(block.text):
        printed, code = _printed(command)
        same = doctest.OutputChecker().check_output(shown, printed, _FLAGS)
        same = same and (code == 0 or shown.endswith(f"[{code}]\n"))  # `...` hides no failure
        if not same:
            found.append(f"$ {command}\nthe page shows\n{shown}\nand it prints\n{printed}")
        written += f"$ {command}\n{shown if same or '...' in shown else printed}"
    return written, found


def wrong_commands(page: str) -> list[str]:
    """Commands that are shown and not run, and what the command line has against them."""
    found: list[str] = []
    for match in _ANY_FENCE.finditer(page):
        if match.group(1) != "console":
            lines = re.sub(r" *\\\n *", " ", match.group(2)).splitlines()
            found += filter(None, map(_refused, lines))
    return found


_ANY_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_END_OF_COMMAND = {"|", ">", ">>", "&", "&&", ";", "2>"}


def _refused(line: str) -> str | None:
    """What is wrong with a line, where it is a command of ours."""
    words = shlex.split(line.removeprefix("$ "), comments=True) if "convdsl " in line else []
    if words[:1] != ["convdsl"] or len(words) == 1 or words[1].isdigit():  # `convdsl 1` is a text
        return None
    end = next((at for at, word in enumerate(words) if word in _END_OF_COMMAND), len(words))
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            _, unknown = app.parser_of(words[1:end]).parse_known_args(words[1:end])
        except SystemExit as stop:
            return None if stop.code == 0 else f"{line}: {said.getvalue()}"
    return f"{line}: {unknown}" if unknown else None


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command, and what is shown of it."""
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)
    assert not parts[0], f"a block of commands begins with one, not with {parts[0]!r}"
    yield from zip(parts[1::2], parts[2::2], strict=True)


def _printed(command: str) -> tuple[str, int]:
    """What is printed, last the exit status where it is not 0, and that."""
    name, *arguments = shlex.split(command, comments=True)
    assert name == "convdsl", f"pages run convdsl, not {name}"
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        code = main(arguments)
    lines = "".join(f"{line.rstrip()}\n" for line in said.getvalue().splitlines())
    return (lines if code == 0 else f"{lines}[{code}]\n"), code
