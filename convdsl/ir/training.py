"""What a `.cnn` file declares about training a network: checked settings, as data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Choice:
    """One technique of several, e.g. the optimizer `sgd` with {"lr": 0.1}: what the text says."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Loss:
    """A term of the loss: `weight` times a measure of how far an output is from a target."""

    measure: Choice
    compares: tuple[str, ...]  # an output and a target; fewer where the network has but one
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Training:
    """A `train` block. What it does not say is None or empty."""

    loss: tuple[Loss, ...] = ()  # its terms
    optimizer: Choice | None = None
    schedule: Choice | None = None
    augment: tuple[Choice, ...] = ()
    metrics: tuple[Choice, ...] = ()
    epochs: int | None = None
    batch: int | None = None
    seed: int | None = None
    clip: float | None = None  # the greatest norm of a gradient
    ema: float | None = None  # decay of the averaged weights
