"""A training run as it is watched: a bar on a terminal, a plain line an epoch off it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convdsl.cli import console
from convdsl.training.loop import Watch

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from convdsl.training.checkpoint import Progress

_SMOOTHING = 0.98  # of the loss shown beside the bar: what the last fifty batches or so were
_FIRST = ("train_loss", "val_loss", "val_accuracy")


class Lines(Watch):
    """One line an epoch, on standard output."""

    def __init__(self) -> None:
        self._epochs = 0

    def begin(self, epochs: int, batches: int, progress: Progress) -> None:
        self._epochs = epochs

    def epoch(self, record: Mapping[str, Any]) -> None:
        console.result(line(record, self._epochs))


class Bars(Lines):
    """The same, and beneath it a bar with rates and the time left, on standard error."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._smooth: float | None = None
        self._batches = 0

    def begin(self, epochs: int, batches: int, progress: Progress) -> None:
        super().begin(epochs, batches, progress)
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        shown = Console(file=sys.stderr, no_color=not console.use_colour(sys.stderr))
        self._bar, self._batches = Bar(*columns, console=shown, transient=True), batches
        first = progress.epoch * batches + progress.batch
        self._task = self._bar.add_task(
            self._heading(progress), total=epochs * batches, completed=first, figures="compiling"
        )
        self._bar.start()
        self._started, self._samples = time.monotonic(), 0

    def step(self, progress: Progress, loss: float, rate: float) -> None:
        assert self._bar is not None
        assert self._task is not None
        before = loss if self._smooth is None else self._smooth
        self._smooth = _SMOOTHING * before + (1 - _SMOOTHING) * loss
        self._samples += progress.samples // max(1, progress.batch)
        speed = self._samples / max(1e-9, time.monotonic() - self._started)
        self._bar.update(
            self._task,
            completed=progress.epoch * self._batches + progress.batch,
            description=self._heading(progress),
            figures=f"loss {self._smooth:.4f}  rate {rate:.2g}  {speed:,.0f}/s",
        )

    def epoch(self, record: Mapping[str, Any]) -> None:
        assert self._bar is not None
        text = line(record, self._epochs)
        if sys.stdout.isatty():
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            console.result(text)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _heading(self, progress: Progress) -> str:
        return f"epoch {min(progress.epoch + 1, self._epochs)}/{self._epochs}"


def line(record: Mapping[str, Any], epochs: int) -> str:
    """An epoch's figures in one line."""
    width = len(str(epochs))
    known = [name for name in _FIRST if record.get(name) is not None]
    others = [n for n in record if n.startswith("val_") and n not in _FIRST]
    figures = [f"{n} {record[n]:.4f}" for n in (*known, *others) if isinstance(record[n], float)]
    seconds = f"{record['seconds']:.1f} s"
    return "  ".join((f"epoch {record['epoch']:>{width}}/{epochs}", *figures, seconds))


def watch() -> Watch:
    """What suits where standard error goes."""
    return Bars() if sys.stderr.isatty() else Lines()
