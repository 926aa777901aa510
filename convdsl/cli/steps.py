"""Why each step runs as it does: schedule, predicted time, and on request the measured time.

Predicted cycles are those of one core by the schedule's own cost model, of the schedule that
was chosen and of those that were not. Predicted times add this machine, as it was measured once
(measure.prediction). With --measure it is measured anew in the same run, and every step is timed
on the given number of threads: the best of several runs of one thread, the median of several
threads. The share is of the peak that the same threads reach with nothing but multiply-adds.

A table has the slowest steps first and the columns that fit a terminal; --rows and --columns ask
for others. JSON, CSV and Markdown have all of them, in the order in which the steps run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convdsl.bound import bind_weights_of
from convdsl.cli import console, listing
from convdsl.cli.building import PassWatcher, load_model
from convdsl.cli.options import input_shapes, selected_passes, weights_of
from convdsl.compilation import Plan
from convdsl.diagnostics import InputError
from convdsl.kernel.program import Program
from convdsl.kernel.signature import one_sample
from convdsl.measure.machine import figures
from convdsl.measure.prediction import Prediction, Team, main_type, predict
from convdsl.measure.steps import step_seconds
from convdsl.runtime.cpu.processor import refusal
from convdsl.runtime.cpu.team import available_threads
from convdsl.sizes import bind
from convdsl.toolchain import FEWER_PRODUCTS, find_toolchain

if TYPE_CHECKING:
    from convdsl.ir.model import Model
    from convdsl.lowering.lower import Lowered
    from convdsl.lowering.tasks import Decision

RANDOM_WEIGHTS = "random:0"

PREDICTED = ("step", "schedule", "MMACs", "bound", "predicted us", "% of time")
MEASURED = ("step", "schedule", "MMACs", "us", "% of peak", "% of time")
"""Columns of a table: they fit eighty characters."""

_ROWS = 10
_LONGEST = 20  # letters of the name of a step in a table


def explain(options: argparse.Namespace) -> int:
    """Print a row per step."""
    model = load_model(options)
    binding = bind(model, input_shapes(options), options.batch)
    one_sample(binding, (symbol.name for symbol in model.symbols))
    chain = find_toolchain("cpu", options.cpu).without(
        *(() if options.winograd else FEWER_PRODUCTS)
    )
    threads = options.threads or available_threads()
    watcher = PassWatcher(options)
    passes = selected_passes(options)
    plan = Plan(model, chain, passes, options.verify, watcher, team=threads)
    lowered = plan.lower(binding)
    team = _team(threads, options, lowered, plan)
    cycles = _cycles(lowered.choices)
    predictions = predict(lowered.program, cycles, team)
    measured = _measured(options, model, plan, lowered, threads) if options.measure else None
    macs = _macs(model, binding)
    rows = [_row(choice, macs) for choice in lowered.choices]
    seconds = [p.seconds for p in predictions] if measured is None else measured
    for number, (row, choice) in enumerate(zip(rows, lowered.choices, strict=True)):
        row |= _predicted(predictions[number])
        if measured is not None:
            row |= _share(row, measured[number], predictions[number], team)
        row["% of time"] = 100 * seconds[number] / sum(seconds) if sum(seconds) else 0.0
        row["form"] = choice.note
        row["not chosen"] = _others(choice)
    _say(lowered.program, predictions, measured, team)  # totals stand first
    _show(rows, options)
    if refused := refusal(chain.target):
        console.note(f"{refused}. The figures are this machine's, with vectors of that width")
    notes = {choice.note for choice in lowered.choices if choice.note}
    if notes:
        console.note(f"fewer products: {'; '.join(sorted(notes))} of direct sums (--no-winograd)")
    return 0


def _show(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """The rows and columns that are asked for."""
    is_table = options.format == "table"
    known = list(rows[0]) if rows else []
    usual = ",".join(MEASURED if options.measure else PREDICTED) if is_table else "all"
    asked: str = options.columns or usual
    names = known if asked == "all" else [name.strip() for name in asked.split(",")]
    for name in names:
        if rows and name not in known:
            raise InputError(f"--columns: no column is called {name}; there are {', '.join(known)}")
    count: str = options.rows or (str(_ROWS) if is_table else "all")
    shown = rows
    if is_table:
        shown = sorted(rows, key=lambda row: -row["% of time"])
        shown = [row | {"step": _short(row["step"])} for row in shown]
    shown = shown if count == "all" else shown[: int(count)]
    picked = [{name: row[name] for name in names} for row in shown]
    listing.show(picked, options.format, digits=1)
    if len(shown) < len(rows) and is_table:
        share = sum(float(row["% of time"]) for row in shown)
        which = f"{len(shown)} of {len(rows)} steps, {share:.0f} % of the time"
        console.note(f"{which}; --rows all and --columns all show more")


def _short(step: str) -> str:
    """A step's first operator, and how many follow it."""
    first, *others = step.split(" + ")
    rest = f" +{len(others)}" if others else ""
    room = _LONGEST - len(rest)
    return (first if len(first) <= room else f"…{first[1 - room :]}") + rest


def _cycles(choices: Sequence[Decision]) -> list[float]:
    """Predicted for each step; those of a task of several kernels are its last one's."""
    nexts = [*choices[1:], None]
    return [
        0.0
        if after is not None and (after.task, after.nodes) == (own.task, own.nodes)
        else dict(own.bids)[own.schedule]
        for own, after in zip(choices, nexts, strict=True)
    ]


def _team(threads: int, options: argparse.Namespace, lowered: Lowered, plan: Plan) -> Team:
    dtype = main_type(lowered.program)
    found = figures(threads, options.cpu, dtype, anew=options.measure)
    return Team(threads, found, plan.toolchain.target.lanes(dtype), find_toolchain().target.caches)


def _say(
    program: Program, predictions: list[Prediction], measured: list[float] | None, team: Team
) -> None:
    """What the rows come to."""
    threads = f"{team.threads} thread{'s' * (team.threads > 1)}"
    console.note(
        f"{len(program.steps)} steps, "
        + (f"{program.rounds} rounds of them, " if program.rounds > 1 else "")
        + f"{len(program.kernels)} kernels, "
        f"weights {program.weight_bytes:,} B, arena {program.arena_bytes:,} B"
        + (f" and {program.private_bytes:,} B a thread" if program.private_bytes else "")
    )
    console.note(
        f"predicted {sum(p.seconds for p in predictions) * 1e3:.2f} ms on {threads} with "
        f"{team.figures.flops / 1e9:.1f} GFLOP/s, {team.figures.memory_bytes / 1e9:.1f} GB/s from "
        f"memory and {team.figures.l3_bytes / 1e9:.1f} GB/s from the third-level cache"
    )
    if measured is not None:
        which = "best" if team.threads == 1 else "median"
        console.note(f"measured {sum(measured) * 1e3:.2f} ms, the {which} of each step")


def _macs(model: Model, binding: dict[str, int]) -> dict[str, int]:
    """Multiply-accumulates of every operator of the model as written."""
    graph = model.settled(binding).graph.bind(binding)
    costs = ((node.name, node.op.cost(node.call).macs) for node in graph.op_nodes())
    return {name: macs for name, macs in costs if isinstance(macs, int)}


def _row(choice: Decision, macs: dict[str, int]) -> dict[str, Any]:
    return {
        "step": " + ".join(choice.nodes),
        "schedule": choice.schedule,
        "kernel": choice.kernel,
        "MMACs": sum(macs.get(name, 0) for name in choice.nodes) / 1e6,
        "predicted kcycles": dict(choice.bids)[choice.schedule] / 1e3,
    }


def _predicted(prediction: Prediction) -> dict[str, Any]:
    return {
        "MB weights": prediction.moved.weights / 1e6,
        "MB values": prediction.moved.values / 1e6,
        "bound": prediction.bound,
        "predicted us": prediction.seconds * 1e6,
    }


def _share(row: dict[str, Any], spent: float, prediction: Prediction, team: Team) -> dict[str, Any]:
    rate = 2e6 * row["MMACs"] / spent if spent else 0.0
    return {
        "us": spent * 1e6,
        "us / predicted": spent / prediction.seconds if prediction.seconds else None,
        "GFLOP/s": rate / 1e9,
        "% of peak": 100 * rate / team.figures.flops,
    }


def _others(choice: Decision) -> str | None:
    """Cycles of the schedules that were not chosen."""
    others = (f"{name} {cost:,.0f}" for name, cost in choice.bids if name != choice.schedule)
    return ", ".join(others) or None


def _measured(
    options: argparse.Namespace, model: Model, plan: Plan, lowered: Lowered, threads: int
) -> list[float]:
    """Seconds of each step."""
    bound = bind_weights_of(model, weights_of(options, RANDOM_WEIGHTS))
    return step_seconds(lowered, plan.toolchain.target, bound, threads)
