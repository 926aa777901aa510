"""Two checkouts of this repository against each other: latency at batch 1, interleaved.

    python -m benchmarks.checkouts BEFORE [AFTER] [--models A B] [--threads 1 2] [--rounds R]

BEFORE and AFTER (by default the working directory) are folders of checkouts, say of `git worktree`.
Each compiles the networks of `make bench` from its own sources, in a process of its own, with
weights drawn by the same seed; rounds of a few calls alternate, in either order. Ratios are of
minima, after / before: above 1 is slower. Where both checkouts emit the same loops, it says so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.__main__ import networks

CALLS = 3  # of one checkout before it is the other's turn

# Runs in either checkout, so it uses nothing of this package but what both have.
_WORKER = """
import hashlib, json, sys, time
import numpy as np
import convdsl
name, threads = sys.argv[1], int(sys.argv[2])
model = convdsl.load(name)
started = time.perf_counter()
network = convdsl.compile(model, "random:0", threads=threads, batch=1, cache=False)
seconds = time.perf_counter() - started
(type,) = model.inputs.values()
x = np.random.default_rng(0).standard_normal(type.bind({"N": 1}).sizes).astype("f4")
network(x)
loops = hashlib.sha256(convdsl.emit(model, "loops", batch=1).encode()).hexdigest()
print(json.dumps([seconds, loops]), flush=True)
for line in sys.stdin:
    best = float("inf")
    for _ in range(int(line)):
        started = time.perf_counter()
        network(x)
        best = min(best, time.perf_counter() - started)
    print(json.dumps(best), flush=True)
"""


class Checkout:
    """A network compiled by one checkout, in a process."""

    def __init__(self, folder: Path, model: str, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, model, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,  # the first place that modules are looked for in
            env={**os.environ, "PYTHONPATH": str(folder)},
        )
        self.compile_seconds, self.loops = self._read()
        self.best = float("inf")

    def take_turn(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{CALLS}\n")
        self._process.stdin.flush()
        self.best = min(self.best, self._read())

    def close(self) -> None:
        self._process.communicate()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a checkout's process has ended; its message is above")
        return json.loads(line)


def compare(before: Path, after: Path, model: str, threads: int, rounds: int) -> str:
    """A line of the table."""
    pair = [Checkout(folder, model, threads) for folder in (before, after)]
    for number in range(rounds):
        for checkout in pair if number % 2 else reversed(pair):
            checkout.take_turn()
    for checkout in pair:
        checkout.close()
    old, new = pair
    same = "  same loops" if old.loops == new.loops else ""
    return (
        f"{model:<20}{threads:>8}{old.best * 1e3:>12.2f}{new.best * 1e3:>12.2f}"
        f"{new.best / old.best:>8.3f}{old.compile_seconds:>12.1f}{new.compile_seconds:>10.1f}{same}"
    )


def zoo() -> list[str]:
    """Those of the networks of `make bench` that need nothing but a name."""
    return [name for name in networks() if not set(name) & set("/ =.")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, nargs="?", default=Path.cwd())
    parser.add_argument("--models", nargs="+", default=zoo())
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    head = ("model", "threads", "before ms", "after ms", "ratio", "compile s", "then")
    print(
        f"{head[0]:<20}{head[1]:>8}{head[2]:>12}{head[3]:>12}{head[4]:>8}{head[5]:>12}{head[6]:>10}"
    )
    for threads in given.threads:
        for model in given.models:
            folders = (given.before.resolve(), given.after.resolve())
            print(compare(*folders, model, threads, given.rounds), flush=True)


if __name__ == "__main__":
    main()
