"""How long each step of a program takes, in the program: with the caches as the others leave them.

The code reads the processor's clock before the first step and after each. Times are those that
thread 0 sees: of one thread the best of several runs, of several threads the median.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from convdsl.backends.llvm import module as llvm_module
from convdsl.backends.llvm import objects as llvm
from convdsl.kernel.program import Program
from convdsl.kernel.target import Target
from convdsl.runtime.code import Code
from convdsl.runtime.cpu.code import LoadedCode, aligned
from convdsl.tensor import DType
from convdsl.tensor.conversion import convert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from convdsl.lowering.lower import Lowered

LEAST_RUNS = 20
MOST_RUNS = 1000
SECONDS = 3.0  # of timing, unless the least number of runs takes longer


def step_seconds(
    lowered: Lowered,
    target: Target,
    arrays: Mapping[str, Any],
    threads: int,
    seconds: float | None = None,
    least: int = LEAST_RUNS,
) -> list[float]:
    """Seconds of each step, in all rounds, on inputs drawn from a normal distribution. `arrays` are
    the weights by key; at least so many runs, and runs for as long as `seconds` say."""
    program = lowered.program
    weights = aligned(program.weight_bytes)
    weights[:] = 0
    lowered.pack_weights(arrays, weights)
    ir = llvm_module.print_module(program, target, timed=True)
    loaded = LoadedCode(Code.of(program, llvm.emit_object(ir, target)), weights, target)
    runs = _timed_runs(loaded, program, threads, SECONDS if seconds is None else seconds, least)
    each = seconds_of_steps(*runs, threads)
    count = len(program.steps)
    return [sum(each[step::count]) for step in range(count)]


def _timed_runs(
    loaded: LoadedCode, program: Program, threads: int, seconds: float, least: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The processor's clock before the first and after each step, a row per run; and the seconds
    that the runs took."""
    inputs = random_inputs(program)
    states = [np.zeros(port.type.sizes, port.type.dtype.numpy) for port in program.states]
    clocks: list[NDArray[np.int64]] = []
    elapsed: list[float] = []
    end = time.perf_counter() + seconds
    while len(clocks) < least or (len(clocks) < MOST_RUNS and time.perf_counter() < end):
        clock = np.zeros(len(program.steps) * program.rounds + 1, np.int64)
        started = time.perf_counter()
        loaded.run(inputs, threads, states, clock)
        elapsed.append(time.perf_counter() - started)
        clocks.append(clock)
    return np.stack(clocks), np.array(elapsed)


def seconds_of_steps(
    clocks: NDArray[np.int64], elapsed: NDArray[np.float64], threads: int
) -> list[float]:
    """The time of each step, as thread 0 saw it, by its best run. Several threads: by its median
    one, because thread 0 may find that the others have already done a step, in no time.

    The processor's clock is set against the system's by the run with the least around it.
    """
    spans = clocks[:, -1] - clocks[:, 0]
    tick = float((elapsed / spans).min()) if spans.all() else 0.0
    steps = np.diff(clocks, axis=1)
    ticks = steps.min(axis=0) if threads == 1 else np.median(steps, axis=0)
    return [float(count) * tick for count in ticks]


def random_inputs(program: Program) -> list[NDArray[Any]]:
    """An array for each input, the same ones each time."""
    generator = np.random.default_rng(0)
    return [
        convert(generator.standard_normal(port.type.sizes), DType.F64, port.type.dtype)
        for port in program.inputs
    ]
