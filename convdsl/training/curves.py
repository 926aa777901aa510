"""What a run looked like: losses and metrics by epoch, as a picture: an SVG, or a PNG where
matplotlib is, as the path says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from convdsl.diagnostics import InputError
from convdsl.drawing.charts import Axis, Curve, curves, headed, spanning
from convdsl.drawing.svg import stacked

Record = Mapping[str, Any]

WIDTH = 760.0


@dataclass(frozen=True)
class _Chart:
    curves: Sequence[Curve]
    across: Axis
    upwards: Axis
    dots: bool = False


def draw_curves(history: Sequence[Record], path: Path, title: str) -> None:
    """Losses above, what else was measured below. InputError for a PNG without matplotlib."""
    epochs = [float(record["epoch"]) for record in history]
    across = Axis("epoch", min(epochs, default=0.0), max(*epochs, epochs[0] + 1))
    losses = {"training": "train_loss", "validation": "val_loss"}
    charts = [_chart(history, losses, across, "loss")]
    measured = {name.removeprefix("val_"): name for name in _others(history)}
    if measured:
        charts.append(_chart(history, measured, across, "validation"))
    _write(charts, path, title)


def draw_rates(rates: Sequence[float], losses: Sequence[float], path: Path) -> None:
    """The loss at every rate tried. InputError for a PNG without matplotlib."""
    points = list(zip(rates, losses, strict=True))
    across = spanning("rate of learning", rates, log=True)
    chart = _Chart([Curve("loss", points)], across, spanning("loss", losses))
    _write([chart], path, "Loss by rate of learning")


def _chart(
    history: Sequence[Record], named: Mapping[str, str], across: Axis, upwards: str
) -> _Chart:
    """The columns of a history that `named` says by their labels, as far as there are numbers."""
    found: list[Curve] = []
    for label, name in named.items():
        points = [(float(r["epoch"]), float(r[name])) for r in history if _is_number(r.get(name))]
        if points:
            found.append(Curve(label, points))
    values = [value for curve in found for _, value in curve.points]
    shown = found or [Curve(upwards, [])]
    return _Chart(shown, across, spanning(upwards, values), dots=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


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


def _write(charts: Sequence[_Chart], path: Path, title: str) -> None:
    if path.suffix == ".png":
        _write_png(charts, path, title)
        return
    drawn = [curves(c.curves, c.across, c.upwards, dots=c.dots, width=WIDTH) for c in charts]
    path.write_text(headed(stacked(drawn), title).document(title), encoding="utf-8")


def _write_png(charts: Sequence[_Chart], path: Path, title: str) -> None:
    try:
        figures = import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path.name} needs matplotlib: pip install 'convdsl[plot]'; "
            f"{path.with_suffix('.svg').name} is there without it"
        ) from error
    figure = figures.Figure(figsize=(7, 3 * len(charts) + 0.5), layout="constrained")
    axes = figure.subplots(len(charts), 1, squeeze=False)[:, 0]
    for chart, axis in zip(charts, axes, strict=True):
        for curve in chart.curves:
            across, upwards = [x for x, _ in curve.points], [y for _, y in curve.points]
            axis.plot(across, upwards, marker="." if chart.dots else None, label=curve.label)
        axis.set_xscale("log" if chart.across.log else "linear")
        axis.set_xlabel(chart.across.label)
        axis.set_ylabel(chart.upwards.label)
        if chart.dots:
            axis.legend()
    figure.suptitle(title)
    figure.savefig(path)
