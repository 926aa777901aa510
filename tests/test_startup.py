"""What README promises of starting: importing loads next to nothing, help little more."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("numpy", "networkx", "llvmlite", "lark", "rich", "onnx", "PIL", "safetensors", "IPython")
"""Packages that no start needs."""


def seconds(*arguments: str) -> float:
    """The least time of a processor that a start takes; others' work does not count."""
    found: list[float] = []
    for _ in range(5):
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        found.append(used.ru_utime + used.ru_stime)
    return min(found)


def test_importing_takes_at_most_50_ms() -> None:
    assert seconds("-c", "import convdsl") - seconds("-c", "pass") <= 0.05


def test_help_takes_at_most_100_ms() -> None:
    """Beside what Python takes to start, which differs by three from one machine to another."""
    assert seconds("-m", "convdsl", "--help") - seconds("-c", "pass") <= 0.1


@pytest.mark.parametrize("how", ["import convdsl", "from convdsl.cli import main; main(['-h'])"])
def test_nothing_heavy_is_loaded(how: str) -> None:
    found = f"import sys; {how}; print([n for n in {HEAVY!r} if n in sys.modules])"
    said = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"
