"""`--tune`: schedules tried out on this machine while a bar tells how far it is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convdsl.cli import console
from convdsl.cli.options import positive

if TYPE_CHECKING:
    from convdsl.compilation import Plan, Tuner
    from convdsl.measure.tuning import Tuning

DEFAULT_SECONDS = 60


def add_tuning(parser: argparse._ActionsContainer) -> None:  # pyright: ignore[reportPrivateUsage]
    """`--tune`."""
    parser.add_argument(
        "--tune",
        nargs="?",
        type=positive,
        const=DEFAULT_SECONDS,
        metavar="SECONDS",
        help="try the schedules that apply on this machine, for about so long (default "
        f"{DEFAULT_SECONDS}), and keep the fastest; what was found is remembered",
    )


def tuner(options: argparse.Namespace) -> Tuner | None:
    """What `driver.compile` asks, where the option is given."""
    seconds: int | None = getattr(options, "tune", None)
    if seconds is None:
        return None

    def find(
        plan: Plan, binding: Mapping[str, int], arrays: Mapping[str, Any], threads: int
    ) -> Mapping[str, str]:
        from convdsl.measure.tuning import tune

        with _Bar() as bar:
            found = tune(plan, binding, arrays, threads, seconds, bar.show)
        console.note(told(found))
        return found.schedules

    return find


def told(found: Tuning) -> str:
    """What came of it, in a sentence or two."""
    rest = "" if found.complete else "; the time did not suffice for all of them"
    if not found.schedules:
        return f"tuning: no schedule was faster than the predicted ones{rest}"
    count, gain = len(found.schedules), 1 - found.after / found.before
    return (
        f"tuning: {count} kernel{'s' * (count > 1)} by other schedules, "
        f"{found.before * 1e3:.2f} -> {found.after * 1e3:.2f} ms a call ({gain:.0%} less){rest}"
    )


class _Bar:
    """A bar on a terminal, nothing off it."""

    def __enter__(self) -> _Bar:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        shown = Console(file=sys.stderr, no_color=not console.use_colour(sys.stderr))
        columns = (TextColumn("tuning: {task.description}"), BarColumn(), TimeElapsedColumn())
        hidden = not sys.stderr.isatty()
        self._bar = Progress(*columns, console=shown, transient=True, disable=hidden)
        self._task = self._bar.add_task("starting", total=1.0)
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, doing: str, share: float) -> None:
        self._bar.update(self._task, description=doing, completed=share)
