"""What a run looked like: losses and metrics by epoch, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from convdsl.diagnostics import InputError

Record = Mapping[str, Any]


def draw_curves(history: Sequence[Record], path: Path, title: str) -> None:
    """Write a PNG: losses above, what else was measured below. InputError without matplotlib."""
    figure, axes = _axes(2 if _others(history) else 1)
    epochs = [record["epoch"] for record in history]
    for name, label in (("train_loss", "training"), ("val_loss", "validation")):
        values = [record.get(name) for record in history]
        if any(value is not None for value in values):
            axes[0].plot(epochs, values, marker=".", label=label)
    axes[0].set_ylabel("loss")
    axes[0].set_title(title)
    for name in _others(history):
        axes[1].plot(epochs, [r.get(name) for r in history], marker=".", label=name[4:])
    if len(axes) > 1:
        axes[1].set_ylabel("validation")
    axes[-1].set_xlabel("epoch")
    _finish(figure, axes, path)


def draw_rates(rates: Sequence[float], losses: Sequence[float], path: Path) -> None:
    """Write a PNG of the loss at every rate tried."""
    figure, (axis,) = _axes(1)
    axis.plot(rates, losses)
    axis.set_xscale("log")
    axis.set_xlabel("rate of learning")
    axis.set_ylabel("loss")
    _finish(figure, (axis,), path)


def _others(history: Sequence[Record]) -> list[str]:
    """Figures of validation besides the loss that are single numbers."""
    names = dict.fromkeys(name for record in history for name in record)
    return [
        name
        for name in names
        if name.startswith("val_")
        and name != "val_loss"
        and any(isinstance(record.get(name), float) for record in history)
    ]


def _axes(rows: int) -> tuple[Any, Sequence[Any]]:
    try:
        figures = import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise InputError("curves need matplotlib: pip install 'convdsl[plot]'") from error
    figure = figures.Figure(figsize=(7, 3 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)
    return figure, [row[0] for row in axes]


def _finish(figure: Any, axes: Sequence[Any], path: Path) -> None:
    for axis in axes:
        axis.grid(visible=True, alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    figure.savefig(path, dpi=120)
