"""How good a network is on a data set: its loss, and metrics, over all samples.

    loss       the mean over the batches, each as heavy as it has samples; no penalties on weights
    metrics    over the whole set, wherever batches begin and end

The last batch is filled up with zeros and what comes of them is left out: one program serves all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.ir.training import Training
from convdsl.ranks import ALONE, Ranks
from convdsl.runtime.executable import Executable
from convdsl.training.data import Loader
from convdsl.training.metrics import METRICS
from convdsl.training.session import Session

Array = npt.NDArray[Any]
Record = dict[str, Any]

LOSS = "loss"
LESS_IS_BETTER = frozenset({"mean_absolute_error", "mean_squared_error"})


@dataclass(frozen=True)
class Evaluation:
    """Measures a network on the batches of a loader, against the first term of the loss."""

    loader: Loader
    training: Training
    compared: tuple[str, str]  # the output and the target that metrics look at
    prefix: str = "val_"

    def __call__(self, session: Session) -> Record:
        """Figures by name, the prefix before each; of several ranks each measures its batches, and
        all get the figures of all."""
        found = evaluate(
            session.network(),
            session.loss,
            self.loader,
            self.training,
            self.compared,
            session.ranks,
        )
        return {f"{self.prefix}{name}": value for name, value in found.items()}

    def score(self, record: Mapping[str, Any]) -> float:
        """What decides which epoch was best, the greater the better: the first metric that is one
        number, else the loss."""
        for choice in self.training.metrics:
            value = record.get(f"{self.prefix}{choice.name}")
            if isinstance(value, float):
                return -value if choice.name in LESS_IS_BETTER else value
        return -float(record[f"{self.prefix}{LOSS}"])


def evaluate(
    network: Executable,
    loss: Callable[[Mapping[str, Array], Mapping[str, Array]], float],
    loader: Loader,
    training: Training,
    compared: tuple[str, str],
    ranks: Ranks = ALONE,
) -> Record:
    """`loss`, and the values of all metrics by their names."""
    mine = [METRICS[choice.name].make(choice.arguments) for choice in training.metrics]
    output, target = compared
    losses: list[tuple[float, int]] = []
    for batch in loader.epoch(0, ranks.rank, ranks.size):
        outputs = outputs_of(network, batch, loader.batch)
        size = len(batch[loader.prepare.name])
        losses.append((size * loss(outputs, batch), size))
        for metric in mine:
            metric.add(outputs[output], batch[target])
    total, count = 0.0, 0
    found = ranks.gather((losses, mine))
    for each in chain.from_iterable(zip_longest(*(losses for losses, _ in found))):
        if each is not None:  # in the order of the batches, as one rank adds them up
            total, count = total + each[0], count + each[1]
    (_, metrics), *others = found
    for _, theirs in others:
        for metric, other in zip(metrics, theirs, strict=True):
            metric.join(other)
    record: Record = {LOSS: total / max(1, count)}
    for metric in metrics:
        record |= metric.value()
    return record


def outputs_of(network: Executable, batch: Mapping[str, Array], size: int) -> dict[str, Array]:
    """Outputs by name for a batch, run as one of `size` samples where it has fewer."""
    inputs = {name: batch[name] for name in network.inputs}
    have = len(next(iter(inputs.values())))
    if have < size:
        inputs = {name: _filled(array, size) for name, array in inputs.items()}
    outputs = network.by_name(**inputs)
    return {name: _cut(array, have, size) for name, array in outputs.items()}


def _filled(array: Array, size: int) -> Array:
    rest = np.zeros((size - len(array), *array.shape[1:]), array.dtype)
    return np.concatenate([array, rest])


def _cut(array: Array, have: int, size: int) -> Array:
    return array[:have] if array.ndim and len(array) == size else array


def names_of(values: Sequence[str]) -> str:
    """A list for a message."""
    return ", ".join(values) or "none"
