"""Tests of which each commit runs a sample, drawn by its hash: over some commits all are run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

import convdsl

SHARES = {"ladder": 12, "drawn": 4}
"""One of so many of the tests with a mark runs; a mark may say another `share`."""


def sampled(items: list[pytest.Item], mark: str) -> list[pytest.Item]:
    """Those with a mark that this commit leaves out. Of a module that is marked as a whole, what
    has no parameters always runs."""
    of_many = [item for item in items if mark == "ladder" or hasattr(item, "callspec")]
    found = ((item, item.get_closest_marker(mark)) for item in of_many)
    return [
        i for i, m in found if m and not _is_drawn(i.nodeid, m.kwargs.get("share", SHARES[mark]))
    ]


def _is_drawn(test: str, share: int) -> bool:
    digest = hashlib.sha256(f"{_commit()} {test}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % share == 0


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
