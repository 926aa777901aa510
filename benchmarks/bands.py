"""What two layers could gain by going through bands of rows together.

    python -m benchmarks.bands [--threads T] [--rounds R] [--json FILE]

What the first of two layers makes goes beyond the second-level cache and comes back, where it is
large. A schedule of both, band after band, would spare that and nothing else. So the same two
layers run on maps of a half, a fourth and an eighth of the rows, one after the other in the same
program: what lies between them then stays near. Their times, multiplied by how many such maps make
up the whole, are the least that bands could take: no row is made twice there, and no register tile
is worse. Best step times of several rounds; borders make parts a little cheaper.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import convdsl
from benchmarks.__main__ import processor
from convdsl.backends.llvm.objects import find_target
from convdsl.compilation import Plan
from convdsl.measure.steps import step_seconds
from convdsl.toolchain import cpu_toolchain
from convdsl.weights import RandomWeights, bind

PARTS = (1, 2, 4, 8)
SECONDS = 0.06  # of timing a program in a round
_SOURCE = """convdsl 1
model pair {{
    input x: f32[1, {channels}, {rows}, {size}]
    x -> {before} {first} as first -> relu as a -> {second} as second -> output y
}}
"""


@dataclass(frozen=True)
class Pair:
    """Two layers, and how many channels come in; those of `before` make what is read blocked."""

    name: str
    channels: int
    size: int
    first: str
    second: str
    before: str = ""


def depthwise(channels: int, size: int, kernel: int, stride: int, out: int) -> Pair:
    name = f"depthwise {kernel}x{kernel}/{stride} {channels} -> 1x1 {out}, {size}x{size}"
    first = f"conv({channels}, {kernel}, {stride}, groups = {channels})"
    return Pair(name, 8, size, first, f"conv({out}, 1x1)", f"conv({channels}, 1x1) -> relu ->")


def expansion(channels: int, wide: int, size: int, kernel: int, stride: int) -> Pair:
    name = f"1x1 {channels} to {wide} -> depthwise {kernel}x{kernel}/{stride}, {size}x{size}"
    second = f"conv({wide}, {kernel}, {stride}, groups = {wide})"
    before = f"conv({channels}, 1x1) -> relu ->"
    return Pair(name, 8, size, f"conv({wide}, 1x1)", second, before)


PAIRS = (
    depthwise(32, 112, 3, 1, 16),
    depthwise(96, 112, 3, 2, 24),
    depthwise(144, 56, 3, 1, 24),
    depthwise(144, 56, 5, 2, 40),
    depthwise(240, 28, 3, 1, 80),
    expansion(16, 96, 112, 3, 2),
    expansion(24, 144, 56, 3, 1),
    Pair(
        "7x7/2 3 to 64 -> max-pool 3x3/2, 224x224",
        3,
        224,
        "conv(64, 7x7, 2)",
        "maxpool(3x3, stride = 2, pad = 1)",
    ),
)


def step_times(pair: Pair, part: int, threads: int) -> list[float]:
    """Seconds of the two layers on one of so many parts of the rows."""
    text = _SOURCE.format(
        channels=pair.channels,
        rows=pair.size // part,
        size=pair.size,
        before=pair.before,
        first=pair.first,
        second=pair.second,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pair.cnn"
        path.write_text(text)
        model = convdsl.load(path)
    target = find_target()
    lowered = Plan(model, cpu_toolchain(target)).lower({})
    arrays = dict(bind(RandomWeights(0), model.graph.states))
    spent = step_seconds(lowered, target, arrays, threads, SECONDS, 40)
    found = {"first": 0.0, "second": 0.0}
    for choice, seconds in zip(lowered.choices, spent, strict=True):
        if choice.nodes[0] in found:
            found[choice.nodes[0]] += seconds
    return list(found.values())


def measure(pair: Pair, threads: int, rounds: int) -> dict[str, Any]:
    """Microseconds of both layers, whole and in parts."""
    row: dict[str, Any] = {"pair": pair.name}
    least: dict[int, list[float]] = {}
    for _ in range(rounds):
        for part in (p for p in PARTS if pair.size % p == 0):
            found = [1e6 * part * seconds for seconds in step_times(pair, part, threads)]
            least[part] = list(map(min, found, least.get(part, found)))
    for part, times in least.items():
        row["whole us" if part == 1 else f"{part} parts"] = sum(times)
    whole = sum(least[1])
    row["gain"] = f"{100 * (1 - min(map(sum, least.values())) / whole):.0f} %"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bands", description=__doc__)
    parser.add_argument("--threads", type=int, default=1, metavar="T")
    parser.add_argument("--rounds", type=int, default=3, metavar="R")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args()
    print(f"{processor()}, {options.threads} threads")
    rows = [measure(pair, options.threads, options.rounds) for pair in PAIRS]
    heads = ["pair", "whole us", *(f"{part} parts" for part in PARTS[1:]), "gain"]
    print(f"| {' | '.join(heads)} |\n|---{'|--:' * (len(heads) - 1)}|")
    for row in rows:
        cells = (row.get(head, "-") for head in heads)
        print(f"| {' | '.join(c if isinstance(c, str) else f'{c:.0f}' for c in cells)} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
