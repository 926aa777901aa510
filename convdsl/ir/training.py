"""What a `.cnn` file declares about training a network: checked settings, as data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from convdsl.diagnostics import Span
from convdsl.ir.techniques import SETTINGS


@dataclass(frozen=True, slots=True)
class Choice:
    """One technique of several, e.g. the optimizer `sgd` with {"lr": 0.1}: what the text says, and
    where."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    span: Span | None = field(default=None, compare=False, repr=False)


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
    groups: tuple[Choice, ...] = ()  # parameters that are trained otherwise
    freeze: tuple[str, ...] = ()  # parameters, or layers, that stay as they are
    epochs: int | None = None
    batch: int | None = None
    seed: int | None = None
    clip: float | None = None  # the greatest norm of all gradients together
    clip_value: float | None = None  # the greatest magnitude of an element of a gradient
    l1: float | None = None
    l2: float | None = None
    decay_all: bool | None = None  # decay, l1 and l2 are for biases and norms too
    accumulate: int | None = None  # batches whose gradients are averaged for one update
    ema: float | None = None  # decay of the averaged weights
    sync_batch_norm: bool | None = None  # statistics of all ranks together, not of each its own
    patience: int | None = None  # epochs without improvement after which training ends
    val_fraction: float | None = None
    fit: str | None = None  # images smaller than the input: "resize" or "pad"

    def setting(self, name: str) -> Any:
        """What holds: what the block says, or else the default of `techniques.SETTINGS`."""
        said = getattr(self, name)
        return SETTINGS[name].default if said is None else said


def names(pattern: str, key: str) -> bool:
    """Whether a pattern, wildcards in it, names a parameter: by its key, or by a layer around."""
    return fnmatchcase(key, pattern) or fnmatchcase(key, f"{pattern}.*")
