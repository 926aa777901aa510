"""Schedules of the learning rate: the rate of a step, in double precision, on the host.

    s = number of the step, n = steps in an epoch, e = floor(s / n), S = all steps, W = warmup * n
    t = (s - W) / (S - W), at least 0

    step, multistep, exponential     change between epochs, counted from the start of training
    cosine, linear, polynomial       change at every step, from the end of the warm-up to the end
    plateau                          changes after epochs, by the validation loss

Warm-up multiplies any of them by (s + 1) / W in its first W steps; one_cycle rises by itself.
A step is a batch, also where several batches make one update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from convdsl.ir.techniques import SCHEDULES
from convdsl.ir.training import Choice, Training

Arguments: TypeAlias = "Mapping[str, Any]"


@dataclass(frozen=True, slots=True)
class Moment:
    """A step of a run: its number, from 0, and how many there are in all and in an epoch."""

    step: int
    steps: int
    per_epoch: int

    @property
    def epoch(self) -> int:
        """The number of the epoch, from 0."""
        return self.step // self.per_epoch

    def warm(self, warmup: float) -> float:
        """What a warm-up of so many epochs leaves of a rate."""
        length = warmup * self.per_epoch
        return min(1.0, (self.step + 1) / length) if length > 0 else 1.0

    def passed(self, warmup: float) -> float:
        """Share of the steps after a warm-up that lies behind, 0 to 1."""
        first = warmup * self.per_epoch
        rest = self.steps - first
        return min(1.0, max(0.0, (self.step - first) / rest)) if rest > 0 else 0.0


Shape: TypeAlias = Callable[[float, Moment, Arguments], float]
"""The rate from the base rate, at a moment, without warm-up."""


def constant(base: float, at: Moment, a: Arguments) -> float:
    """base"""
    return base


def step(base: float, at: Moment, a: Arguments) -> float:
    """base * factor^floor(e / every)"""
    return base * a["factor"] ** (at.epoch // a["every"])


def multistep(base: float, at: Moment, a: Arguments) -> float:
    """base * factor^(how many of `at` are e or less)"""
    return base * a["factor"] ** sum(epoch <= at.epoch for epoch in a["at"])


def exponential(base: float, at: Moment, a: Arguments) -> float:
    """base * factor^e"""
    return base * a["factor"] ** at.epoch


def cosine(base: float, at: Moment, a: Arguments) -> float:
    """minimum + (base - minimum) * (1 + cos(pi t)) / 2

    Loshchilov, Hutter 2017, arXiv:1608.03983.
    """
    half = (1 + math.cos(math.pi * at.passed(a["warmup"]))) / 2
    return a["minimum"] + (base - a["minimum"]) * half


def linear(base: float, at: Moment, a: Arguments) -> float:
    """minimum + (base - minimum) * (1 - t)"""
    return a["minimum"] + (base - a["minimum"]) * (1 - at.passed(a["warmup"]))


def polynomial(base: float, at: Moment, a: Arguments) -> float:
    """minimum + (base - minimum) * (1 - t)^power"""
    return a["minimum"] + (base - a["minimum"]) * (1 - at.passed(a["warmup"])) ** a["power"]


def one_cycle(base: float, at: Moment, a: Arguments) -> float:
    """Half a cosine from peak / divide up to the peak in the warm-up, by default 0.3 of all steps,
    and half a cosine down to peak / divide / final_divide at the last step, as PyTorch.

    Smith, Topin 2018, arXiv:1708.07120.
    """
    peak = base if a["peak"] is None else a["peak"]
    first = peak / a["divide"]
    rise = 0.3 * at.steps if a["warmup"] is None else a["warmup"] * at.per_epoch
    top, last = rise - 1, at.steps - 1
    if at.step <= top:
        return _half_cosine(first, peak, at.step / top if top > 0 else 1.0)
    down = (at.step - top) / (last - top) if last > top else 1.0
    return _half_cosine(peak, first / a["final_divide"], min(1.0, down))


def _half_cosine(start: float, stop: float, t: float) -> float:
    return stop + (start - stop) / 2 * (1 + math.cos(math.pi * t))


RATES: Mapping[str, Shape] = {
    "constant": constant,
    "step": step,
    "multistep": multistep,
    "exponential": exponential,
    "cosine": cosine,
    "linear": linear,
    "polynomial": polynomial,
    "one_cycle": one_cycle,
    "plateau": constant,
}
"""Schedules by the names that the language gives them; of `plateau` what it falls from."""


def rate(schedule: Choice, base: float, step: int, steps: int, per_epoch: int) -> float:
    """The rate of a step, from 0, of `steps` in all. `plateau` is as it begins."""
    arguments = SCHEDULES[schedule.name].complete(schedule.arguments)
    at = Moment(step, steps, per_epoch)
    found = RATES[schedule.name](base, at, arguments)
    return found if schedule.name == "one_cycle" else found * at.warm(arguments["warmup"])


class Rates:
    """The rates of a run, by the settings: what is `seen` of its epochs is kept by the caller.

        rates = Rates(training, batches in an epoch)
        rates(step, seen)                  the rate of a step, from 0
        seen = rates.after(seen, record)   after an epoch; {} before the first

    Only `plateau` sees anything: `best`, the least loss; `bad`, the epochs without
    improvement; `rest`, those of the cooldown that are left; `scale`, of the rate.
    """

    def __init__(self, training: Training, per_epoch: int) -> None:
        assert training.optimizer is not None
        self._schedule = training.schedule or Choice("constant")
        self._arguments = SCHEDULES[self._schedule.name].complete(self._schedule.arguments)
        self._base = float(training.optimizer.arguments["lr"])
        self._per_epoch = max(1, per_epoch)
        self._steps = int(training.setting("epochs")) * self._per_epoch

    def __call__(self, step: int, seen: Mapping[str, float]) -> float:
        """The rate of a step, from 0."""
        found = rate(self._schedule, self._base, step, self._steps, self._per_epoch)
        if self._schedule.name != "plateau":
            return found
        lowest = min(self._base, self._arguments["minimum"])
        at = Moment(step, self._steps, self._per_epoch)
        warm = at.warm(self._arguments["warmup"])
        return max(self._base * seen.get("scale", 1.0), lowest) * warm

    def after(self, seen: Mapping[str, float], record: Mapping[str, Any]) -> Mapping[str, float]:
        """What is seen after an epoch with this `val_loss`, or `train_loss` where none validates.

        As PyTorch's ReduceLROnPlateau: a loss below best * (1 - threshold) is an improvement; after
        more than `patience` epochs without one the rate is multiplied by `factor`.
        """
        if self._schedule.name != "plateau":
            return {}
        a = self._arguments
        loss = record.get("val_loss")
        loss = float(record["train_loss"] if loss is None else loss)
        best, bad = seen.get("best", math.inf), seen.get("bad", 0) + 1
        rest, scale = seen.get("rest", 0), seen.get("scale", 1.0)
        if loss < best * (1 - a["threshold"]):
            best, bad = loss, 0
        if rest > 0:
            rest, bad = rest - 1, 0
        if bad > a["patience"]:
            scale, rest, bad = scale * a["factor"], a["cooldown"], 0
        return {"best": best, "bad": bad, "rest": rest, "scale": scale}
