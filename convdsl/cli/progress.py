"""A training run as it is watched: a bar on a terminal, a plain line an epoch off it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convdsl.cli import console
from convdsl.training.loop import Watch
from convdsl.training.watching import Figures, line

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from convdsl.training.checkpoint import Progress


class Lines(Watch):
    """One line an epoch, on standard output."""

    def __init__(self) -> None:
        self._epochs = 0

    def begin(self, epochs: int, batches: int, progress: Progress) -> None:
        self._epochs = epochs

    def epoch(self, record: Mapping[str, Any]) -> None:
        console.result(line(record, self._epochs))


class Bars(Figures):
    """The same, and beneath it a bar with rates and the time left, on standard error."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Bar | None = None
        self._task: TaskID | None = None

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
        self._bar = Bar(*columns, console=shown, transient=True)
        self._task = self._bar.add_task(
            self.heading, total=self.total, completed=self.done, figures=self.figures
        )
        self._bar.start()

    def step(self, progress: Progress, loss: float, rate: float) -> None:
        super().step(progress, loss, rate)
        assert self._bar is not None
        assert self._task is not None
        self._bar.update(
            self._task, completed=self.done, description=self.heading, figures=self.figures
        )

    def epoch(self, record: Mapping[str, Any]) -> None:
        assert self._bar is not None
        text = line(record, self.epochs)
        if sys.stdout.isatty():
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            console.result(text)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def watch() -> Watch:
    """What suits where standard error goes."""
    return Bars() if sys.stderr.isatty() else Lines()
