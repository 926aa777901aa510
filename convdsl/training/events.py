"""Events for TensorBoard: the figures of every epoch, and loss and rate of every step."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from convdsl.diagnostics import InputError
from convdsl.training.checkpoint import Progress
from convdsl.training.loop import Watch


class Events(Watch):
    """Writes to a folder what it is told, and tells another. InputError without tensorboardX."""

    def __init__(self, folder: Path, other: Watch) -> None:
        try:
            writer = import_module("tensorboardX")
        except ModuleNotFoundError as error:
            raise InputError(
                "events for TensorBoard need tensorboardX: pip install 'convdsl[tensorboard]'"
            ) from error
        self._writer: Any = writer.SummaryWriter(str(folder))
        self._other = other
        self._batches = 0

    def begin(self, epochs: int, batches: int, progress: Progress) -> None:
        self._batches = batches
        self._other.begin(epochs, batches, progress)

    def step(self, progress: Progress, loss: float, rate: float) -> None:
        number = progress.epoch * self._batches + progress.batch
        self._writer.add_scalar("step/loss", loss, number)
        self._writer.add_scalar("step/rate", rate, number)
        self._other.step(progress, loss, rate)

    def epoch(self, record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            if isinstance(value, float):
                self._writer.add_scalar(f"epoch/{name}", value, record["epoch"])
        self._other.epoch(record)

    def end(self) -> None:
        self._writer.close()
        self._other.end()
