"""Tests of which each commit runs a sample, drawn by its hash: over some commits all are run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

import convdsl

SHARES = {"ladder": 24, "drawn": 14}
"""One of so many of the tests with a mark runs; a mark may say another `share`. Of each function
that is `drawn`, and of each module on the `ladder`, at least one does."""


def sampled(items: list[pytest.Item], mark: str) -> list[pytest.Item]:
    """Those with a mark that this commit leaves out. Of a module that is marked as a whole, what
    has no parameters always runs."""
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


def _draw(item: pytest.Item) -> bytes:
    return hashlib.sha256(f"{_commit()} {item.nodeid}".encode()).digest()


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
