"""What README promises of starting: importing loads next to nothing, help little more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

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


def share(*arguments: str) -> tuple[float, str]:
    """What a start takes beyond Python's own, as a part of what a few modules of Python take to be
    imported, and both in words: processors differ by three, and so do hours of one."""
    own = seconds("-c", "pass")
    start, modules = seconds(*arguments) - own, seconds("-c", MODULES) - own
    return start / modules, f"{start * 1e3:.0f} ms beside {modules * 1e3:.0f} ms"


MODULES = "import argparse, dataclasses, pathlib, json, subprocess, typing"


def test_importing_takes_a_part_of_what_a_few_modules_take(
    record_property: Callable[[str, object], None],
) -> None:
    """At most 50 ms, README says: 24 beside 65 on a slow processor."""
    found, said = share("-c", "import convdsl")
    record_property("measured", said)
    assert found <= 0.8


def test_help_takes_little_more_than_a_few_modules(
    record_property: Callable[[str, object], None],
) -> None:
    """At most 100 ms, README says: 75 to 95 beside 65 on a slow processor."""
    found, said = share("-m", "convdsl", "--help")
    record_property("measured", said)
    assert found <= 2


@pytest.mark.parametrize("how", ["import convdsl", "from convdsl.cli import main; main(['-h'])"])
def test_nothing_heavy_is_loaded(how: str) -> None:
    found = f"import sys; {how}; print([n for n in {HEAVY!r} if n in sys.modules])"
    said = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"


def test_ctrl_c_is_answered_before_anything_is_loaded() -> None:
    """Python answers it with a traceback until then: only modules of its own start are there."""
    script = (
        "import sys; before = set(sys.modules)\n"
        "from convdsl.cli import interruption\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    ours = "convdsl convdsl.cli convdsl.cli.interruption"
    assert said.stdout.split() == ["__future__", *ours.split(), "gc"]
