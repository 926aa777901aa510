"""Trying schedules out on this machine: which of those that apply is the fastest for each task.

The schedules' predictions choose how code is made (ADR 65). Who has the time may have them tried:
the network is compiled once with everybody's first choice, once with everybody's second, and so on,
each time all steps are timed in the whole network, and each task keeps the schedule under which its
own steps took the least. A schedule that is predicted to take several times as long as the best
is not tried. What was found is tried as a whole against what was predicted, in turns, and kept if
it is faster; it lies beside the code cache, for this graph, this processor and this team.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from convdsl.calling import suggests
from convdsl.compilation import Plan, key_of
from convdsl.diagnostics import InputError, expect
from convdsl.measure.steps import random_inputs, step_seconds
from convdsl.runtime.cache import ObjectCache, default_directory
from convdsl.runtime.cpu.processor import identity

if TYPE_CHECKING:
    from convdsl.driver import Tuner
    from convdsl.kernel.program import Program
    from convdsl.lowering.lower import Lowered
    from convdsl.runtime.executable import Runner

FAR = 4.0
"""A schedule that is predicted to take so many times as long as the best is not tried: slow code
takes the longest to time, and predictions are nearer to what is measured than that."""

MARGIN = 0.97
"""Of the time of the first choice, what another must stay below: times of one step differ by a few
hundredths from run to run."""

_LEAST_RUNS = 5
_TURNS = 7  # of the whole network, for each of the two
_SHARE = 0.6  # of the budget is for timing steps, the rest for compiling and for the last trial


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was found.

    schedules: by the digests of their tasks, where they are not the predicted ones.
    before, after: seconds of a call with what was predicted, and with these.
    tried: compilations of the whole network that were timed.
    complete: whether the time sufficed for all schedules.
    """

    schedules: Mapping[str, str]
    before: float
    after: float
    tried: int
    complete: bool


Watch = Callable[[str, float], None]
"""Told what is being done, and which share of it all is done."""


def tune(
    plan: Plan,
    binding: Mapping[str, int],
    arrays: Mapping[str, Any],
    threads: int,
    seconds: float,
    watch: Watch = lambda doing, share: None,
) -> Tuning:
    """The schedules for a network of these sizes and weights that this machine runs the fastest, of
    those tried within about so many seconds: at least the predicted ones are timed. What was found
    for an equal graph before is taken from the cache, unless there was more to try."""
    graph = plan.graph(binding)
    key = "\n".join(
        (
            f"tuning for {threads} threads of {identity()}",
            key_of(graph, plan.toolchain.version, plan.machine),
        )
    )
    cache = ObjectCache(default_directory().parent / "tuned")
    known = _read(cache.get(key))
    if known is not None and known.complete:
        return known
    found = _search(plan, binding, arrays, threads, seconds, watch)
    cache.put(key, json.dumps(_to_json(found)).encode())
    return found


@suggests
def tuner(seconds: float = 60.0, watch: Watch = lambda doing, share: None) -> Tuner:
    """For convdsl.compile(..., tuner=...): tries schedules out for about so many seconds whenever
    code is made for new sizes, unless it is known what comes of it.

    convdsl.compile("resnet50", weights, inputs=(3, 224, 224), tuner=convdsl.tuner(120))
    """
    expect("seconds", seconds, int, float)
    if not 0 < seconds < math.inf:
        raise InputError(f"seconds to tune for must be positive, not {seconds}")

    def find(
        plan: Plan, binding: Mapping[str, int], arrays: Mapping[str, Any], threads: int
    ) -> Mapping[str, str]:
        return tune(plan, binding, arrays, threads, seconds, watch).schedules

    return find


def _search(
    plan: Plan,
    binding: Mapping[str, int],
    arrays: Mapping[str, Any],
    threads: int,
    seconds: float,
    watch: Watch,
) -> Tuning:
    started = time.monotonic()
    end = started + seconds
    first = plan.lower(binding)
    candidates = _candidates(first)
    rounds = max((len(names) for names in candidates.values()), default=0)
    times: dict[str, dict[str, float]] = {}
    tried = 0
    for number in range(rounds):
        if number and time.monotonic() > end:
            break
        watch(f"schedules {number + 1} of {rounds}", number / (rounds + 1))
        wanted = {task: names[min(number, len(names) - 1)] for task, names in candidates.items()}
        lowered = replace(plan, tuning=wanted).lower(binding)
        share = _SHARE * seconds / rounds
        spent = step_seconds(
            lowered, plan.toolchain.target, arrays, threads, share, least=_LEAST_RUNS
        )
        for task, took in _by_task(lowered, spent).items():
            if task in wanted:
                known = times.setdefault(task, {})
                known[wanted[task]] = min(took, known.get(wanted[task], took))
        tried += 1
    best = {
        task: name
        for task, names in candidates.items()
        if task in times and (name := _fastest(names[0], times[task])) != names[0]
    }
    watch("the whole network", rounds / (rounds + 1))
    before, after = _in_turns(plan, binding, arrays, threads, best) if best else (0.0, 0.0)
    kept = best if after < before else {}
    return Tuning(kept, before, after if kept else before, tried, tried == rounds)


def _candidates(lowered: Lowered) -> dict[str, tuple[str, ...]]:
    """The schedules to try, by the digests of tasks with more than one: the predicted one first."""
    found: dict[str, tuple[str, ...]] = {}
    for choice in lowered.choices:
        least = min(cost for _, cost in choice.bids)
        near = tuple(name for name, cost in choice.bids if cost <= FAR * least)
        if len(near) > 1:
            found[choice.task.digest] = near
    return found


def _by_task(lowered: Lowered, spent: Sequence[float]) -> dict[str, float]:
    """Seconds by the digests of tasks, all their steps together. What packs the operands of a step
    in every call counts with it."""
    found: dict[str, float] = {}
    packing = 0.0
    for choice, seconds in zip(lowered.choices, spent, strict=True):
        if choice.task.op == "pack":
            packing += seconds
            continue
        digest = choice.task.digest
        found[digest] = found.get(digest, 0.0) + seconds + packing
        packing = 0.0
    return found


def _fastest(predicted: str, times: Mapping[str, float]) -> str:
    """The schedule with the least time; the predicted one unless another is clearly ahead."""
    name = min(times, key=times.__getitem__)
    return name if times[name] < MARGIN * times[predicted] else predicted


def _in_turns(
    plan: Plan,
    binding: Mapping[str, int],
    arrays: Mapping[str, Any],
    threads: int,
    schedules: Mapping[str, str],
) -> tuple[float, float]:
    """The least seconds of a call, with the predicted schedules and with these."""
    program = plan.lower(binding).program
    both = [p.load(binding, arrays, None) for p in (plan, replace(plan, tuning=schedules))]
    times = [[_call_seconds(code, program, threads) for code in both] for _ in range(_TURNS + 1)]
    before, after = np.array(times[1:]).min(axis=0)
    return float(before), float(after)


def _call_seconds(code: Runner, program: Program, threads: int) -> float:
    inputs = random_inputs(program)
    states = [np.zeros(port.type.sizes, port.type.dtype.numpy) for port in program.states]
    started = time.perf_counter()
    code.run(inputs, threads, states)
    return time.perf_counter() - started


def _to_json(found: Tuning) -> dict[str, object]:
    return {
        "schedules": dict(found.schedules),
        "before": found.before,
        "after": found.after,
        "tried": found.tried,
        "complete": found.complete,
    }


def _read(entry: bytes | None) -> Tuning | None:
    """What an entry says, if it says it whole."""
    try:
        told = cast("dict[str, Any] | None", json.loads(entry or b"null"))
        return None if told is None else Tuning(**told)
    except (ValueError, TypeError):
        return None
