"""Why each step runs as it does: schedule, predicted cycles, and on request the measured time.

Predicted cycles are those of one core by the schedule's own cost model, of the schedule that
was chosen and of those that were not. Measured times are the best of several runs of timed
code on the given number of threads; the share is of the peak that the same threads reach with
nothing but multiply-adds.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from convdsl.backends import llvm, llvm_module
from convdsl.cli import console, listing
from convdsl.cli.building import PassWatcher, load_model
from convdsl.cli.options import input_shapes, selected_passes
from convdsl.cli.peak import measure_peak
from convdsl.driver import Plan, bind, bind_weights_of, find_target
from convdsl.kernel.program import Program
from convdsl.runtime.cpu import Code, LoadedCode, aligned
from convdsl.runtime.team import available_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from convdsl.ir.model import Model
    from convdsl.lowering.lower import Lowered

RANDOM_WEIGHTS = "random:0"
_RUNS = 20


def explain(options: argparse.Namespace) -> int:
    """Print a row per step."""
    model = load_model(options)
    binding = bind(model, input_shapes(options), options.batch)
    binding.setdefault("N", 1)
    target = find_target("cpu", options.cpu)
    plan = Plan(model, target, selected_passes(options), options.verify, PassWatcher(options))
    lowered = plan.lower(binding)
    macs = _macs(model, binding)
    rows = [_row(choice, macs) for choice in lowered.choices]
    if options.measure:
        _add_measurements(rows, options, model, plan, lowered)
    listing.show(rows, options.format)
    program = lowered.program
    console.note(
        f"{len(program.steps)} steps, {len(program.kernels)} kernels, "
        f"weights {program.weight_bytes:,} B, arena {program.arena_bytes:,} B"
    )
    return 0


def _macs(model: Model, binding: dict[str, int]) -> dict[str, int]:
    """Multiply-accumulates of every operator of the model as written."""
    graph = model.settled(binding).graph.bind(binding)
    costs = ((node.name, node.op.cost(node.call).macs) for node in graph.op_nodes())
    return {name: macs for name, macs in costs if isinstance(macs, int)}


def _row(choice: Any, macs: dict[str, int]) -> dict[str, Any]:
    predicted = dict(choice.bids)
    others = (f"{name} {cost:,.0f}" for name, cost in choice.bids if name != choice.schedule)
    return {
        "step": " + ".join(choice.nodes),
        "schedule": choice.schedule,
        "kernel": choice.kernel,
        "MMACs": sum(macs.get(name, 0) for name in choice.nodes) / 1e6,
        "predicted kcycles": predicted[choice.schedule] / 1e3,
        "not chosen": ", ".join(others) or None,
    }


def _add_measurements(
    rows: list[dict[str, Any]],
    options: argparse.Namespace,
    model: Model,
    plan: Plan,
    lowered: Lowered,
) -> None:
    threads = options.threads or available_threads()
    weights = aligned(lowered.program.weight_bytes)
    weights[:] = 0
    bound = bind_weights_of(model, options.weights or RANDOM_WEIGHTS)
    lowered.pack_weights(bound, weights)
    ir = llvm_module.print_module(lowered.program, plan.target, timed=True)
    loaded = LoadedCode(Code.of(lowered.program, llvm.emit_object(ir, plan.target)), weights)
    seconds = _seconds_of_steps(loaded, lowered.program, threads)
    peak = measure_peak(threads, options.cpu)
    for row, spent in zip(rows, seconds, strict=True):
        rate = 2e-3 * row["MMACs"] / spent if spent else 0.0
        row |= {"us": spent * 1e6, "GFLOP/s": rate, "% of peak": 100 * rate / peak}
    console.note(
        f"best of {_RUNS} runs on {threads} threads; sum {sum(seconds) * 1e3:.2f} ms; "
        f"peak {peak:.1f} GFLOP/s"
    )


def _seconds_of_steps(loaded: LoadedCode, program: Program, threads: int) -> list[float]:
    """The best time of each step; the clock of the processor is set against the system's."""
    inputs = _inputs(program)
    best: NDArray[np.int64] | None = None
    cycles, elapsed = 0, 0.0
    for _ in range(_RUNS):
        times = np.zeros(len(program.steps) + 1, np.int64)
        started = time.perf_counter()
        loaded.run(inputs, threads, times)
        elapsed += time.perf_counter() - started
        cycles += int(times[-1] - times[0])
        steps = np.diff(times)
        best = steps if best is None else np.minimum(best, steps)
    assert best is not None
    return [float(count) * elapsed / cycles for count in best]


def _inputs(program: Program) -> list[NDArray[Any]]:
    generator = np.random.default_rng(0)
    return [
        generator.standard_normal(port.type.sizes).astype(port.type.dtype.numpy)
        for port in program.inputs
    ]
