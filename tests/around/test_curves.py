"""Pictures of a run as PNG, which matplotlib draws."""

from __future__ import annotations

from pathlib import Path

from convdsl.training.curves import draw_curves, draw_rates


def test_png(tmp_path: Path) -> None:
    run = [
        {"epoch": 1, "train_loss": 2.0, "val_loss": 2.5, "val_accuracy": 0.25},
        {"epoch": 2, "train_loss": 1.0, "val_loss": float("nan"), "val_accuracy": 0.5},
    ]
    draw_curves(run, tmp_path / "curves.png", "a < b")
    draw_curves([{"epoch": 1, "train_loss": float("nan")}], tmp_path / "nothing.png", "m")
    draw_rates([1e-4, 1e-3], [2.0, 1.0], tmp_path / "rates.png")
    for name in ("curves.png", "nothing.png", "rates.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
