"""Tests of which each commit runs a sample, drawn by its hash: over some commits all are run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import convdsl

SHARES = {"ladder": 24, "drawn": 14, "dear": 12, "case": 4}
"""One of so many of the tests with a mark runs; a mark may say another `share`. Of each function
that is `drawn`, and of each module on the `ladder`, at least one does. What is `dear` is drawn by
functions, of each folder and share at least one, and of their cases one in four, unless these are
`drawn` themselves."""


def sampled(items: list[pytest.Item], mark: str) -> list[pytest.Item]:
    """Those with a mark that this commit leaves out. Of a module that is marked as a whole, what
    has no parameters always runs."""
    if mark == "dear":
        return _left_whole(items)
    groups: dict[tuple[str, int], list[pytest.Item]] = {}
    for item in items:
        marker = item.get_closest_marker(mark)
        if marker and (mark == "ladder" or hasattr(item, "callspec")):
            share = marker.kwargs.get("share", SHARES[mark])
            kind = item.nodeid.partition("::" if mark == "ladder" else "[")[0]
            groups.setdefault((kind, share), []).append(item)
    return [
        item
        for (_, share), group in groups.items()
        for item in sorted(group, key=_draw)[-(-len(group) // share) :]
    ]


def draw_cases(metafunc: pytest.Metafunc) -> None:
    """The same of the cases of one function that is `drawn` or `dear`, before there are tests of
    them. Those that are slow are drawn apart: the others are not left to them."""
    definition, calls = metafunc.definition, metafunc._calls
    whole = definition.get_closest_marker("drawn")
    dear = definition.get_closest_marker("dear")
    groups: dict[tuple[int, bool], list[Any]] = {}
    for call in calls:
        marks = (mark for mark in (*definition.own_markers, *call.marks) if mark.name == "drawn")
        if marker := next(marks, whole):
            share = marker.kwargs.get("share", SHARES["drawn"])
        elif dear:
            share = SHARES["case"]
        else:
            continue
        slow = any(mark.name == "slow" for mark in call.marks)
        groups.setdefault((share, slow), []).append(call)
    left = {
        id(call)
        for (share, _), group in groups.items()
        for call in sorted(group, key=lambda call: _drawn(f"{definition.nodeid}[{call.id}]"))[
            -(-len(group) // share) :
        ]
    }
    calls[:] = [call for call in calls if id(call) not in left]


def _left_whole(items: list[pytest.Item]) -> list[pytest.Item]:
    """Of the functions that are dear, those that this commit leaves out. Those that are slow are
    drawn apart, as their cases are."""
    functions: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("dear"):
            functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
    groups: dict[tuple[str, int, bool], list[str]] = {}
    for name, cases in functions.items():
        folder = name.partition("::")[0].rpartition("/")[0]
        marker = cases[0].get_closest_marker("dear")
        share = marker.kwargs.get("share", SHARES["dear"]) if marker else 1
        slow = all(case.get_closest_marker("slow") for case in cases)
        groups.setdefault((folder, share, slow), []).append(name)
    left: list[pytest.Item] = []
    for (_, share, _), names in groups.items():
        kept = -(-len(names) // share)
        for name in sorted(names, key=_drawn)[kept:]:
            left += functions[name]
    return left


def _draw(item: pytest.Item) -> bytes:
    return _drawn(item.nodeid)


def _drawn(name: str) -> bytes:
    return hashlib.sha256(f"{_commit()} {name}".encode()).digest()


@cache
def _commit() -> str:
    """The commit that is checked out; where there is none, the sources themselves."""
    package = Path(convdsl.__file__).parent
    git = shutil.which("git")
    if git:
        command = [git, "-C", str(package), "rev-parse", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if not found.returncode:
            return found.stdout.strip()
    sources = sorted(package.rglob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()
