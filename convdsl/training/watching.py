"""A training run as it is watched: figures beside a bar, a line for each epoch, and the bar that
notebooks show."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from html import escape
from importlib import import_module
from typing import Any

from convdsl.training.checkpoint import Progress
from convdsl.training.loop import Watch

_SMOOTHING = 0.98  # of the loss shown beside the bar: what the last fifty batches or so were
_FIRST = ("train_loss", "val_loss", "val_accuracy")
_PAUSE = 0.1  # seconds between two drawings of a notebook's bar: each is a message to a browser


class Figures(Watch):
    """What a bar says: the epoch, the loss of late, the rate, samples a second."""

    def __init__(self) -> None:
        self.epochs = self.batches = self.done = 0
        self.heading, self.figures = "", "compiling"
        self._smooth: float | None = None
        self._samples = 0

    @property
    def total(self) -> int:
        return self.epochs * self.batches

    def begin(self, epochs: int, batches: int, progress: Progress) -> None:
        self.epochs, self.batches = epochs, batches
        self._count(progress)
        self._started = time.monotonic()

    def step(self, progress: Progress, loss: float, rate: float) -> None:
        before = loss if self._smooth is None else self._smooth
        self._smooth = _SMOOTHING * before + (1 - _SMOOTHING) * loss
        self._samples += progress.samples // max(1, progress.batch)
        speed = self._samples / max(1e-9, time.monotonic() - self._started)
        self.figures = f"loss {self._smooth:.4f}  rate {rate:.2g}  {speed:,.0f}/s"
        self._count(progress)

    def _count(self, progress: Progress) -> None:
        self.done = progress.epoch * self.batches + progress.batch
        self.heading = f"epoch {min(progress.epoch + 1, self.epochs)}/{self.epochs}"


class NotebookBar(Figures):
    """A bar in the output of a cell, under a line for each epoch, drawn anew in its place.

    It is what is displayed: front ends of notebooks ask it for HTML, others for text. That takes
    no widgets, and what is kept with the notebook is the last state.
    """

    def __init__(self) -> None:
        super().__init__()
        self._place: Any = None  # where it is displayed
        self._drawn = 0.0
        self._lines: list[str] = []
        self._is_over = False

    def begin(self, epochs: int, batches: int, progress: Progress) -> None:
        super().begin(epochs, batches, progress)
        self._place = import_module("IPython.display").display(self, display_id=True)

    def step(self, progress: Progress, loss: float, rate: float) -> None:
        super().step(progress, loss, rate)
        if time.monotonic() - self._drawn > _PAUSE:
            self._draw()

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._lines.append(line(record, self.epochs))
        self._draw()

    def end(self) -> None:
        self._is_over = True
        self._draw()

    def _draw(self) -> None:
        if self._place is not None:
            self._place.update(self)
            self._drawn = time.monotonic()

    def _bar(self) -> str:
        """What goes on; nothing once the run is over, unless it was stopped."""
        if self._is_over:
            return "" if self.done >= self.total else f"stopped in {self.heading}"
        return f"{self.heading}  {self.figures}"

    def __repr__(self) -> str:
        return "\n".join([*self._lines, *filter(None, [self._bar()])])

    def _repr_html_(self) -> str:
        lines = f"<pre>{escape(chr(10).join(self._lines))}</pre>" if self._lines else ""
        said = self._bar()
        bar = f'<progress value="{self.done}" max="{self.total}"></progress> ' if said else ""
        return f"{lines}{bar}{escape(said)}"


def usual() -> Watch:
    """A bar in notebooks; elsewhere nothing is said unless it is asked for."""
    shell = sys.modules.get("IPython")
    running: Any = shell.get_ipython() if shell is not None else None
    return NotebookBar() if hasattr(running, "kernel") else Watch()


def line(record: Mapping[str, Any], epochs: int) -> str:
    """An epoch's figures in one line."""
    width = len(str(epochs))
    known = [name for name in _FIRST if record.get(name) is not None]
    others = [n for n in record if n.startswith("val_") and n not in _FIRST]
    figures = [f"{n} {record[n]:.4f}" for n in (*known, *others) if isinstance(record[n], float)]
    seconds = f"{record['seconds']:.1f} s"
    return "  ".join((f"epoch {record['epoch']:>{width}}/{epochs}", *figures, seconds))
