"""The ladder of evidence for cards: all of it by `--evidence all`, else a sample that is drawn anew
with every commit, so that over some commits everything is run (docs/gpu.md)."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from resource_gate import Gate

import convdsl

SHARE = 12
"""One of so many of the tests marked `ladder` runs with any one commit; a mark may say another."""


@cache
def commit() -> str:
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


def drawn(test: str, share: int) -> bool:
    digest = hashlib.sha256(f"{commit()} {test}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % share == 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--evidence") == "all":
        return
    marks = ((item, item.get_closest_marker("ladder")) for item in items)
    left = [i for i, m in marks if m and not drawn(i.nodeid, m.kwargs.get("share", SHARE))]
    if left:
        config.hook.pytest_deselected(items=left)
        gone = set(left)
        items[:] = [item for item in items if item not in gone]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the gate of resources has looked at, in all workers together."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    gates = [
        Gate(**json.loads(str(told)))
        for report in reports
        for name, told in report.user_properties
        if name == "gate"
    ]
    if gates:
        terminalreporter.write_line(f"resources: {Gate.of_all(gates)}")
