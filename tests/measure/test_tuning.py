"""Schedules tried out: the fastest is kept, remembered, and changes nothing but the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl import InputError
from convdsl.compilation import Plan
from convdsl.measure import tuning
from convdsl.schedules.task import Task
from convdsl.toolchain import find_toolchain

TEXT = """model m {
    input x: f32[1, 16, 12, 12]
    x -> conv(32, 3) -> relu -> conv(32, 3, groups=32) -> relu -> conv(8, 1) -> output y
}
"""


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tuning, "FAR", 1e6)  # so that there is something to choose from


def plan() -> Plan:
    return Plan(convdsl.parse(TEXT), find_toolchain())


def chosen(made: Plan) -> dict[str, str]:
    """Schedules by task, but for packing, which there is as others want it."""
    choices = (choice for choice in made.lower({}).choices if choice.task.op != "pack")
    return {choice.task.digest: choice.schedule for choice in choices}


def timed(monkeypatch: pytest.MonkeyPatch, cost: Mapping[str, float]) -> list[Plan]:
    """Tasks take what their schedules are said to take, in one step or in several; packing takes
    nothing; calls what their steps do together."""
    seen: list[Any] = []

    def spent(lowered: Any) -> list[float]:
        steps = Counter(choice.task.digest for choice in lowered.choices)
        return [
            0.0
            if choice.task.op == "pack"
            else cost.get(choice.schedule, 1.0) / steps[choice.task.digest]
            for choice in lowered.choices
        ]

    def seconds(lowered: Any, *_: Any, **__: Any) -> list[float]:
        seen.append(lowered)
        return spent(lowered)

    def in_turns(made: Plan, *rest: Any) -> tuple[float, float]:
        both = (made.lower({}), replace(made, tuning=rest[-1]).lower({}))
        before, after = (sum(spent(low)) for low in both)
        return before, after

    monkeypatch.setattr(tuning, "step_seconds", seconds)
    monkeypatch.setattr(tuning, "_in_turns", in_turns)
    return seen


def tuned(**options: Any) -> tuning.Tuning:
    return tuning.tune(plan(), {}, {}, 1, options.pop("seconds", 100.0), **options)


@pytest.mark.dear(share=4)
def test_a_faster_schedule_is_kept_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    first = chosen(plan())
    others = [task for task, name in first.items() if name != "generic"]
    assert others
    timed(monkeypatch, {"generic": 0.5})
    found = tuned()
    assert found.complete
    assert found.after < found.before
    assert found.schedules == dict.fromkeys(others, "generic")
    assert chosen(replace(plan(), tuning=found.schedules)) == first | dict(found.schedules)


def test_what_is_not_clearly_faster_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, {"generic": 0.99, "direct": 0.98, "gemm": 0.985})
    found = tuned()
    assert found.schedules == {}
    assert found.after == found.before


@pytest.mark.dear(share=4)
def test_it_is_remembered_for_the_graph_and_the_team(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = timed(monkeypatch, {})
    tuned()
    count = len(seen)
    assert count > 1
    tuned()
    assert len(seen) == count
    tuning.tune(plan(), {}, {}, 2, 100.0)
    assert len(seen) == 2 * count


def test_without_time_only_the_prediction_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = timed(monkeypatch, {})
    found = tuned(seconds=1e-9)
    assert (len(seen), found.tried, found.complete) == (1, 1, False)
    tuned()
    assert len(seen) > 2  # what was not complete is tried again


@pytest.mark.dear
def test_numbers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every schedule that applies computes the same: really timed, whatever wins."""
    monkeypatch.setattr(tuning, "MARGIN", 2.0)  # whatever was the fastest, by however little
    monkeypatch.setattr(tuning, "_in_turns", lambda *_: (2.0, 1.0))
    x = np.random.default_rng(1).standard_normal((1, 16, 12, 12)).astype(np.float32)
    plain = convdsl.compile(convdsl.parse(TEXT), "random:3", threads=1)(x)
    made = convdsl.compile(convdsl.parse(TEXT), "random:3", threads=1, tuner=convdsl.tuner(1))(x)
    np.testing.assert_allclose(made, plain, rtol=0, atol=1e-5 * np.abs(plain).max())


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), "60", None])
def test_seconds(seconds: Any) -> None:
    with pytest.raises(InputError):
        convdsl.tuner(seconds)


def test_a_damaged_entry_is_forgotten() -> None:
    for entry in (b"", b"{", b"[]", b"3", b'{"schedules": {}}', b'{"a": 1}'):
        assert tuning._read(entry) is None  # pyright: ignore[reportPrivateUsage]


def test_tasks_are_named_alike_in_every_process() -> None:
    """The digest is of the task's text: nothing in it may depend on where objects lie."""
    for choice in plan().lower({}).choices:
        assert isinstance(choice.task, Task)
        assert " at 0x" not in repr(choice.task)
