"""Single layers drawn from a seed, convdsl beside ONNX Runtime on the same ONNX file.

    python -m benchmarks.layers [--seed S] [--count N] [--family A B] [--threads T] [--rounds R]
                                [--least MS] [--json FILE]

Both run in this process and take turns, a few calls at a time; of each the best time counts. A
layer counts where ONNX Runtime takes at least `--least` milliseconds; layers are drawn, family by
family, until so many count. Results are compared as well. The worst come first, then geometric
means of the ratio, convdsl's time to ONNX Runtime's, by operator and over all. Memory binds a layer
where reading its operands and writing its results once, at the rate of what lies just beyond the
second-level cache, takes longer than its arithmetic at the peak of multiply-adds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, NotImplemented, RuntimeException

import convdsl
from benchmarks.drawing import Layer
from benchmarks.drawn_layers import FAMILIES, draw
from convdsl.measure.machine import Figures, figures

TURN = 3  # calls of one before it is the other's turn
REST = 0.01  # seconds between turns of teams, in which the one before comes to rest
CLOSE = 2e-4  # of the output's range: results further apart are reported


@dataclass(frozen=True)
class Row:
    """A layer measured. Times in milliseconds."""

    seed: list[int]
    family: str
    operator: str
    layer: str
    ours: float
    theirs: float
    ratio: float
    memory_bound: bool
    compile_s: float
    apart: float  # largest difference of results, to the range of theirs


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _best(call: Callable[[], Any], calls: int) -> float:
    best = float("inf")
    for _ in range(calls):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best


def measure(
    layer: Layer, seed: list[int], threads: int, rounds: int, least: float, machine: Figures
) -> Row | None:
    """None where ONNX Runtime is done too soon, or does not run it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        onnx.save(layer.proto, str(path))
        try:
            session = _session(path, threads)
            expected = session.run(None, dict(layer.feeds))
        except (Fail, NotImplemented, RuntimeException):
            return None

        def theirs() -> Any:
            return session.run(None, dict(layer.feeds))

        if _best(theirs, 3) < least / 1.3e3:
            return None
        started = time.perf_counter()
        model = convdsl.load(path)
        given = dict(zip(model.inputs, layer.feeds.values(), strict=True))
        shapes = {name: x.shape for name, x in given.items()}
        run = convdsl.compile(model, threads=threads, inputs=shapes, cache=False)
        compiled = time.perf_counter() - started

        def ours() -> Any:
            return run(**given)

        made = ours()
        found = list(made.values()) if isinstance(made, dict) else [made]
        away = max(map(apart, found, expected))
        best_theirs = best_ours = float("inf")
        for _ in range(rounds):
            for mine in (True, False):
                if threads > 1:
                    time.sleep(REST)
                if mine:
                    best_ours = min(best_ours, _best(ours, TURN))
                else:
                    best_theirs = min(best_theirs, _best(theirs, TURN))
        if best_theirs < least / 1e3:
            return None
        moved = layer.bytes + sum(np.asarray(y).nbytes for y in expected)
        flops = convdsl.report(model, inputs=shapes).totals["flops"]
        work = flops if isinstance(flops, int) else 0
        bound = moved / machine.l3_bytes > work / machine.flops
        return Row(
            seed,
            layer.family,
            layer.operator,
            layer.name,
            best_ours * 1e3,
            best_theirs * 1e3,
            best_ours / best_theirs,
            bound,
            compiled,
            away,
        )


def apart(a: Any, b: Any) -> float:
    """As a part of what finite ones span; infinite where one is finite, or NaN, and the other is
    not. Of integers, the share that differs: positions of equals may be either."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return float("inf")
    if a.dtype.kind != "f":
        return float(np.mean(a != b)) if a.size else 0.0
    there = np.isfinite(b)
    if not np.array_equal(a[~there], b[~there], equal_nan=True):
        return float("inf")
    a, b = a[there], b[there]
    spread = float(np.ptp(b)) if b.size else 0.0
    away = float(np.max(np.abs(a - b), initial=0.0)) / (spread or 1.0)
    return away if np.isfinite(away) else float("inf")


def rows_of(
    seed: int, families: Sequence[str], wanted: int, given: argparse.Namespace
) -> Iterator[Row]:
    """Layers that count, family after family; every family has as many tries."""
    machine = figures(given.threads)
    counted = 0
    for attempt in count():
        for number, family in enumerate(FAMILIES):
            if family not in families:
                continue
            key = [seed, number, attempt]
            layer = draw(family, key)
            try:
                row = measure(layer, key, given.threads, given.rounds, given.least, machine)
            except convdsl.Error as error:
                print(f"{layer.operator} {layer.name} {key}: {str(error)[:200]}")
                continue
            if row is None:
                continue
            yield row
            counted += 1
            if counted >= wanted:
                return
        if attempt > 20 + 20 * wanted:
            return


def _mean(rows: Sequence[Row]) -> float:
    return statistics.geometric_mean([row.ratio for row in rows])


def table(rows: Sequence[Row]) -> str:
    """The worst first, then means."""
    lines = [f"{'ratio':>6} {'ours':>8} {'theirs':>8} ms"]
    for row in sorted(rows, key=lambda row: -row.ratio):
        bound = "memory " if row.memory_bound else ""
        wrong = f"  RESULTS {row.apart:.1e} APART" if not row.apart < CLOSE else ""
        lines.append(
            f"{row.ratio:6.2f} {row.ours:8.3f} {row.theirs:8.3f} {bound:7}"
            f"{row.operator} {row.layer}  [{','.join(map(str, row.seed))}]{wrong}"
        )
    by_operator: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_operator[f"{row.family} {row.operator}"].append(row)
    lines.append("\n  mean  worst layers")
    for name, own in sorted(by_operator.items(), key=lambda item: -_mean(item[1])):
        worst = max(row.ratio for row in own)
        lines.append(f"{_mean(own):6.2f} {worst:6.2f} {len(own):6} {name}")
    bound = [row for row in rows if row.memory_bound]
    lines.append(
        f"\nall {len(rows)}: geometric mean {_mean(rows):.3f}, worst"
        f" {max(row.ratio for row in rows):.2f}, above 1.25: {sum(r.ratio > 1.25 for r in rows)}"
    )
    if bound:
        lines.append(
            f"memory binds {len(bound)}: geometric mean {_mean(bound):.3f},"
            f" above 1.1: {sum(r.ratio > 1.1 for r in bound)}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200, help="layers that count")
    parser.add_argument("--family", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--least", type=float, default=0.2, help="milliseconds of ONNX Runtime")
    parser.add_argument("--layer", type=int, nargs=3, help="one layer, by what the table names it")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows: list[Row] = []
    if given.layer:
        family = list(FAMILIES)[given.layer[1]]
        machine = figures(given.threads)
        row = measure(
            draw(family, given.layer), given.layer, given.threads, given.rounds, 0.0, machine
        )
        rows = [] if row is None else [row]
    else:
        for row in rows_of(given.seed, given.family, given.count, given):
            rows.append(row)
            if given.json:
                given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    if rows:
        print(table(rows))


if __name__ == "__main__":
    main()
