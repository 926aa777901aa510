"""Measure how fast a model runs.

Weights are random unless given. The first call is told apart; after a warm-up, calls are timed
one by one. The peak is what this machine reaches with nothing but multiply-adds, on as many
threads, measured once (convdsl doctor --measure measures anew). GFLOP/s count two operations
per multiply-accumulate of the model as written. On a card the inputs lie there already, calls are
waited for, and no peak is shown.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from convdsl.cli import listing
from convdsl.cli.building import Network, network
from convdsl.cli.options import add_building, add_format, add_model, positive
from convdsl.cli.tuning import add_tuning

RANDOM_WEIGHTS = "random:0"
_WARM_UP = 3


def configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser, artifacts=True)
    group = parser.add_argument_group("measuring")
    group.add_argument(
        "--seconds", type=positive, default=2, metavar="S", help="time to spend (default 2)"
    )
    group.add_argument("--runs", type=positive, metavar="R", help="calls to time, instead")
    group.add_argument("--no-peak", action="store_true", help="leave out the machine's peak")
    add_format(parser)
    add_building(parser)
    add_tuning(parser)


def run(options: argparse.Namespace) -> int:
    from convdsl.cli import arrays

    started = time.perf_counter()
    made = network(options, default_weights=RANDOM_WEIGHTS)
    seconds = time.perf_counter() - started
    data = made.executable.resident(arrays.load("random:0", made))
    row: dict[str, Any] = {
        "model": made.executable.name,
        "inputs": ", ".join("x".join(map(str, array.shape)) for array in data.values()),
        "device": made.executable.device,
        "threads": made.executable.threads,
        "ready s": seconds,
    }
    row |= _measure(lambda: made.executable.wait(made.run(data)), options)
    macs = _macs(options, made)
    if macs is not None:
        row["GFLOP/s"] = 2 * macs / row["median ms"] / 1e6
    if not options.no_peak and made.executable.device == "cpu":
        from convdsl.measure.machine import figures

        row["peak GFLOP/s"] = figures(made.executable.threads).flops / 1e9
    listing.show([row], options.format)
    return 0


def _measure(call: Callable[[], object], options: argparse.Namespace) -> Mapping[str, float | int]:
    first = _seconds(call)
    for _ in range(_WARM_UP):
        call()
    times: list[float] = []
    end = time.perf_counter() + options.seconds
    while len(times) < options.runs if options.runs else time.perf_counter() < end or not times:
        times.append(_seconds(call))
    return {
        "first ms": first * 1e3,
        "median ms": statistics.median(times) * 1e3,
        "min ms": min(times) * 1e3,
        "runs": len(times),
    }


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _macs(options: argparse.Namespace, made: Network) -> int | None:
    """Multiply-accumulates of one call, or None where the report has no number for them."""
    from convdsl import figures
    from convdsl.kernel.signature import samples_of
    from convdsl.runtime.saved import read_report

    if made.model is None:
        macs = read_report(options.model, samples_of(made.binding))["total"]["macs"]
    else:
        binding = made.executable.complete(made.binding)
        macs = figures.report(made.model, symbols=binding).totals["macs"]
    return macs if isinstance(macs, int) else None
