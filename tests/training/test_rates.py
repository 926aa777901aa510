"""Schedules of the rate: names, warm-up, ends, and what a plateau sees."""

from __future__ import annotations

import math
from typing import Any

import pytest

from convdsl.ir.techniques import SCHEDULES
from convdsl.ir.training import Choice, Training
from convdsl.training.rates import RATES, Rates, rate

NEEDS: dict[str, dict[str, Any]] = {
    "step": {"every": 2}, "multistep": {"at": [1, 3]}, "exponential": {"factor": 0.5},
}  # fmt: skip


def rates(name: str, epochs: int = 4, per_epoch: int = 5, **arguments: Any) -> list[float]:
    choice, steps = Choice(name, NEEDS.get(name, {}) | arguments), epochs * per_epoch
    return [rate(choice, 1.0, step, steps, per_epoch) for step in range(steps)]


def test_there_is_one_for_every_name() -> None:
    assert RATES.keys() == SCHEDULES.keys()


@pytest.mark.parametrize("warmup", [0.4, 1, 1.5, 4, 10])
@pytest.mark.parametrize("name", [name for name in RATES if name != "one_cycle"])
def test_warm_up_is_on_top_of_any(name: str, warmup: float) -> None:
    """(s + 1) / W of the rate, in W steps; what runs to the end begins then."""
    found = rates(name, warmup=warmup)
    length = warmup * 5
    for step, value in enumerate(found):
        if step >= length:
            break
        whole = 1.0 if name in ("cosine", "linear", "polynomial") else rates(name)[step]
        assert value == pytest.approx(whole * min(1.0, (step + 1) / length))


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize(("epochs", "per_epoch"), [(1, 1), (1, 2), (2, 1), (3, 7)])
def test_runs_of_any_length(name: str, epochs: int, per_epoch: int) -> None:
    found = rates(name, epochs, per_epoch)
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in found)


def test_changes_between_epochs() -> None:
    expected = [1, 1, 0.1, 0.1]
    assert rates("step", per_epoch=1) == pytest.approx(expected)
    assert rates("multistep", per_epoch=1) == pytest.approx([1, 0.1, 0.1, 0.01])
    assert rates("exponential", per_epoch=1) == [1, 0.5, 0.25, 0.125]
    assert rates("step", per_epoch=2) == pytest.approx([e for e in expected for _ in range(2)])


def test_what_runs_to_the_end() -> None:
    assert rates("linear", 1, 4, minimum=0.2) == pytest.approx([1.0, 0.8, 0.6, 0.4])
    assert rates("polynomial", 1, 4, power=2) == pytest.approx([1.0, 0.5625, 0.25, 0.0625])
    assert rates("cosine", 1, 4)[2] == pytest.approx(0.5)
    assert rates("linear", 2, 4, warmup=1) == pytest.approx(
        [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]
    )


def test_a_plateau_goes_by_validation_or_else_by_training() -> None:
    settings = Training(
        optimizer=Choice("sgd", {"lr": 0.1}), schedule=Choice("plateau", {"patience": 0}), epochs=9
    )
    found, seen = Rates(settings, 3), dict[str, float]()
    assert found(0, seen) == 0.1
    for record in ({"val_loss": 2.0, "train_loss": 1.0}, {"val_loss": 2.0, "train_loss": 0.1}):
        seen = found.after(seen, record)
    assert found(6, seen) == pytest.approx(0.01)
    seen = found.after({}, {"val_loss": None, "train_loss": 1.0})
    assert found.after(seen, {"val_loss": None, "train_loss": 1.0})["scale"] == 0.1
    assert all(isinstance(value, int | float) for value in seen.values())


def test_other_schedules_see_nothing() -> None:
    settings = Training(optimizer=Choice("sgd", {"lr": 0.1}), schedule=Choice("cosine"), epochs=2)
    assert Rates(settings, 3).after({}, {"val_loss": 1.0}) == {}
    assert Rates(settings, 3)(0, {}) == 0.1
