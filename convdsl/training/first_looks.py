"""What is done before a long run: find a rate of learning; see whether a few samples are learnt."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.training.judging import LOSS, compares
from convdsl.training.session import Session

Array = npt.NDArray[Any]

LOWEST, HIGHEST = 1e-7, 10.0
"""The rates that a search goes through."""

_SMOOTHING = 0.9
_SETTLED = 10  # steps after which the smoothed loss is an average of several batches
_DIVERGED = 4.0  # times the least loss: nothing is to be learnt from going on


@dataclass(frozen=True, slots=True)
class RateTest:
    """Rates, and the smoothed loss at each; the rate where the loss falls fastest, and the one
    where it is least. None where it never falls."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def steepest(self) -> float | None:
        """Where the loss falls fastest in the logarithm of the rate, up to its least value: a
        rate to begin with. The first steps say nothing: their average is of one batch or two."""
        least = int(np.argmin(self.losses))
        if least < _SETTLED + 2:
            return None
        losses, rates = (np.asarray(a[_SETTLED : least + 1]) for a in (self.losses, self.rates))
        slopes = np.gradient(losses, np.log(rates))
        at = int(np.argmin(slopes))
        return float(rates[at]) if slopes[at] < 0 else None

    @property
    def least(self) -> float | None:
        """Where the loss is least: too high a rate to stay at."""
        at = int(np.argmin(self.losses))
        return self.rates[at] if at else None


def find_rate(
    session: Session,
    batches: Iterable[Mapping[str, Array]],
    steps: int = 100,
    watch: Callable[[float, float], None] | None = None,
) -> RateTest:
    """Train with rates that grow from LOWEST to HIGHEST, and watch the loss. Smith 2017,
    arXiv:1506.01186, section 3.3; smoothed by an average that forgets, corrected at its start.

    The session has learnt nonsense afterwards.
    """
    rates, losses, average = list[float](), list[float](), 0.0
    for number, batch in zip(range(steps), batches, strict=False):
        rate = LOWEST * (HIGHEST / LOWEST) ** (number / max(1, steps - 1))
        loss = float(session.step(batch, rate)[LOSS])
        if not math.isfinite(loss):
            break
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smooth = average / (1 - _SMOOTHING ** (number + 1))
        rates.append(rate)
        losses.append(smooth)
        if watch is not None:
            watch(rate, smooth)
        if smooth > _DIVERGED * min(losses):
            break
    return RateTest(tuple(rates), tuple(losses))


def least_loss(session: Session) -> float:
    """What smoothed labels leave of the loss of a network that is right: their entropy.

    p = 1 - s + s / C        q = s / C        -p log p - (C - 1) q log q
    """
    total = 0.0
    for term in session.training.loss:
        smoothing = float(term.measure.arguments.get("label_smoothing") or 0)
        output, _ = compares(session.model.graph, term)
        classes = session.model.outputs[output].shape[1:2]
        if smoothing and isinstance(classes[0], int):
            other = smoothing / classes[0]
            own = 1 - smoothing + other
            entropy = own * math.log(own) + (classes[0] - 1) * other * math.log(other)
            total -= term.weight * entropy
    return total


@dataclass(frozen=True, slots=True)
class Overfit:
    """Whether a few samples were learnt by heart: losses at the first and the last step, how many
    steps it took, and whether the loss fell to the share of it that was asked for."""

    first: float
    last: float
    steps: int
    learnt: bool


def overfit(
    session: Session,
    batch: Mapping[str, Array],
    rate: float,
    steps: int = 500,
    share: float = 0.01,
    watch: Callable[[int, float], None] | None = None,
) -> Overfit:
    """Train on one batch until its loss, above the least that it can be, is a hundredth of what it
    was at first. A network that cannot do this has a mistake in its layers, its loss or its data,
    or the rate is wrong."""
    first = last = math.nan
    least = least_loss(session)
    for number in range(steps):
        last = float(session.step(batch, rate)[LOSS])
        first = last if number == 0 else first
        if watch is not None:
            watch(number + 1, last)
        if not math.isfinite(last):
            return Overfit(first, last, number + 1, learnt=False)
        if last - least <= share * (first - least):
            return Overfit(first, last, number + 1, learnt=True)
    return Overfit(first, last, steps, learnt=False)
