"""What a run looked like: losses and metrics by epoch, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convdsl.drawing.charts import Axis, Curve, curves, headed, spanning
from convdsl.drawing.svg import Canvas, stacked

Record = Mapping[str, Any]

WIDTH = 760.0


def draw_curves(history: Sequence[Record], path: Path, title: str) -> None:
    """Write an SVG: losses above, what else was measured below."""
    epochs = [float(record["epoch"]) for record in history]
    across = Axis("epoch", min(epochs, default=0.0), max(*epochs, epochs[0] + 1))
    losses = {"training": "train_loss", "validation": "val_loss"}
    charts = [_chart(history, losses, across, "loss")]
    measured = {name.removeprefix("val_"): name for name in _others(history)}
    if measured:
        charts.append(_chart(history, measured, across, "validation"))
    _write(stacked(charts), path, title)


def draw_rates(rates: Sequence[float], losses: Sequence[float], path: Path) -> None:
    """Write an SVG of the loss at every rate tried."""
    points = list(zip(rates, losses, strict=True))
    across = spanning("rate of learning", rates, log=True)
    upwards = spanning("loss", losses)
    drawn = curves([Curve("loss", points)], across, upwards, width=WIDTH)
    _write(drawn, path, "Loss by rate of learning")


def _chart(
    history: Sequence[Record], named: Mapping[str, str], across: Axis, upwards: str
) -> Canvas:
    """The columns of a history that `named` says by their labels, as far as there are numbers."""
    found: list[Curve] = []
    for label, name in named.items():
        points = [(float(r["epoch"]), float(r[name])) for r in history if _is_number(r.get(name))]
        if points:
            found.append(Curve(label, points))
    values = [value for curve in found for _, value in curve.points]
    axis = spanning(upwards, values)
    return curves(found or [Curve(upwards, [])], across, axis, dots=True, width=WIDTH)


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


def _write(drawn: Canvas, path: Path, title: str) -> None:
    path.write_text(headed(drawn, title).document(title), encoding="utf-8")
