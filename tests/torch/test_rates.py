"""Schedules of the rate against PyTorch's, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convdsl.ir.training import Choice, Training
from convdsl.training.rates import Rates, rate

torch = pytest.importorskip("torch")
schedulers = torch.optim.lr_scheduler

BASE, EPOCHS, PER_EPOCH = 0.3, 12, 7
STEPS = EPOCHS * PER_EPOCH


def theirs(make: Callable[[Any], Any], every: int = 1, momentum: float = 0.0) -> list[float]:
    """PyTorch's rates, the scheduler called after every so many steps."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE, momentum=momentum)
    scheduler = make(optimizer)
    found = []
    for step in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < STEPS:
            scheduler.step()
    return found


def ours(name: str, **arguments: Any) -> list[float]:
    return [rate(Choice(name, arguments), BASE, s, STEPS, PER_EPOCH) for s in range(STEPS)]


BY_EPOCH: list[tuple[str, dict[str, Any], Callable[[Any], Any]]] = [
    ("step", {"every": 3, "factor": 0.2}, lambda o: schedulers.StepLR(o, 3, 0.2)),
    ("multistep", {"at": [2, 5, 9]}, lambda o: schedulers.MultiStepLR(o, [2, 5, 9])),
    ("exponential", {"factor": 0.9}, lambda o: schedulers.ExponentialLR(o, 0.9)),
]
BY_STEP: list[tuple[str, dict[str, Any], Callable[[Any], Any]]] = [
    ("constant", {}, lambda o: schedulers.ConstantLR(o, 1.0)),
    ("cosine", {}, lambda o: schedulers.CosineAnnealingLR(o, STEPS)),
    ("cosine", {"minimum": 0.1}, lambda o: schedulers.CosineAnnealingLR(o, STEPS, 0.1)),
    ("linear", {}, lambda o: schedulers.LinearLR(o, 1.0, 0.0, STEPS)),
    ("linear", {"minimum": 0.03}, lambda o: schedulers.LinearLR(o, 1.0, 0.1, STEPS)),
    ("polynomial", {"power": 2.5}, lambda o: schedulers.PolynomialLR(o, STEPS, 2.5)),
    ("one_cycle", {}, lambda o: schedulers.OneCycleLR(o, BASE, STEPS, cycle_momentum=False)),
    (
        "one_cycle",
        {"warmup": 3, "peak": 2.0, "divide": 10.0, "final_divide": 50.0},
        lambda o: schedulers.OneCycleLR(
            o, 2.0, STEPS, pct_start=3 / EPOCHS, div_factor=10, final_div_factor=50,
            cycle_momentum=False,
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "make"), BY_EPOCH)
def test_by_epoch(name: str, arguments: dict[str, Any], make: Callable[[Any], Any]) -> None:
    wanted = theirs(make, every=PER_EPOCH)
    np.testing.assert_allclose(ours(name, **arguments), wanted, rtol=1e-12)


@pytest.mark.parametrize(("name", "arguments", "make"), BY_STEP)
def test_by_step(name: str, arguments: dict[str, Any], make: Callable[[Any], Any]) -> None:
    np.testing.assert_allclose(ours(name, **arguments), theirs(make), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("warmup", [1, 2])
def test_warm_up_then_cosine(warmup: int) -> None:
    """LinearLR from 1 / W, then the cosine over the rest."""
    length = warmup * PER_EPOCH

    def make(o: Any) -> Any:
        first = schedulers.LinearLR(o, 1 / length, total_iters=length - 1)
        rest = schedulers.CosineAnnealingLR(o, STEPS - length)
        return schedulers.SequentialLR(o, [first, rest], [length])

    np.testing.assert_allclose(ours("cosine", warmup=warmup), theirs(make), rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "arguments",
    [
        {"patience": 1},
        {"patience": 0, "factor": 0.5, "cooldown": 2},
        {"patience": 2, "threshold": 0.05, "minimum": 0.01},
    ],
)
def test_plateau(arguments: dict[str, Any], seed: int) -> None:
    random = np.random.default_rng(seed)
    losses = 1 / np.arange(1, 41) ** 0.2 + random.normal(size=40) * 0.05
    losses[7] = np.nan
    spelled = {"minimum": "min_lr"}
    given = {spelled.get(k, k): v for k, v in arguments.items()}
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE)
    scheduler = schedulers.ReduceLROnPlateau(optimizer, eps=0.0, **given)
    training = Training(
        optimizer=Choice("sgd", {"lr": BASE}), schedule=Choice("plateau", arguments), epochs=40
    )
    rates, seen = Rates(training, PER_EPOCH), {}
    drops = 0
    for epoch, loss in enumerate(losses):
        found = rates(epoch * PER_EPOCH, seen)
        assert found == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        scheduler.step(loss)
        seen = rates.after(seen, {"train_loss": 9.0, "val_loss": float(loss)})
        drops = seen["scale"] < 1
    assert drops
