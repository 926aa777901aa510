"""What demo and walkthroughs share: commands, shown as they are run, and installed packages."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path


def convdsl(*arguments: str | Path, silent: bool = False) -> str:
    """Run a command and show it; the end of everything where it fails. silent: what it says is
    returned instead of shown, as wide as it would be."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ convdsl {shlex.join(words)}", flush=True)
    started = time.perf_counter()
    out = subprocess.PIPE if silent else None
    size = {"COLUMNS": str(shutil.get_terminal_size().columns)} if sys.stdout.isatty() else {}
    command = [sys.executable, "-m", "convdsl", *words]
    done = subprocess.run(command, stdout=out, text=True, check=False, env=os.environ | size)
    if done.returncode:
        sys.exit(done.returncode)
    print(f"# {time.perf_counter() - started:.1f} s", flush=True)
    return done.stdout or ""


def package(name: str, how: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        sys.exit(f"this needs the package {name}: {how}")
    return Path(spec.origin).parent
