"""`convdsl report --set width=16,32,64`: a column of figures for each of several values."""

from __future__ import annotations

import argparse
import copy
import itertools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convdsl.cli import console, listing
from convdsl.cli.building import load_model
from convdsl.cli.options import batch_of, input_shapes
from convdsl.diagnostics import InputError

if TYPE_CHECKING:
    from convdsl.analysis.report import Report

MOST = 32
"""Combinations that one call compares."""


def is_one(options: argparse.Namespace) -> bool:
    """Whether some `--set` has several values."""
    return any(len(values(text)) > 1 for _, text in options.set)


def values(text: str) -> list[str]:
    """The values between commas, but for commas in brackets and in quotes."""
    found, depth, quoted = [""], 0, False
    for letter in text:
        quoted = quoted != (letter == '"')
        depth += 0 if quoted else (letter in "[(") - (letter in ")]")
        if letter == "," and depth <= 0 and not quoted:
            found.append("")
        else:
            found[-1] += letter
    return [part.strip() for part in found]


def show(options: argparse.Namespace) -> int:
    """A row per figure, a column per combination of values."""
    names = [name for name, _ in options.set]
    choices = [values(text) for _, text in options.set]
    combinations = list(itertools.product(*choices))
    if len(combinations) > MOST:
        raise InputError(f"{len(combinations)} combinations of values; at most {MOST} are compared")
    varied = [i for i, several in enumerate(choices) if len(several) > 1]
    reports: dict[str, Report] = {}
    for chosen in combinations:
        own = copy.copy(options)
        own.set = list(zip(names, chosen, strict=True))
        heading = ", ".join(f"{names[i]}={chosen[i]}" for i in varied)
        reports[heading] = _report(own)
    if options.format == "json":
        found = [
            {"set": dict(zip(names, chosen, strict=True)), **report.to_json()}
            for chosen, report in zip(combinations, reports.values(), strict=True)
        ]
        console.result(json.dumps(found, indent=2))
        return 0
    listing.show_beside(_rows(reports, options.depth), options.format)
    return 0


def _report(options: argparse.Namespace) -> Report:
    from convdsl import figures

    model = load_model(options)
    return figures.report(
        model, options.count, input_shapes(options), batch=batch_of(model, options)
    )


def _rows(reports: dict[str, Report], depth: int | None) -> list[dict[str, Any]]:
    """Totals, and with a depth multiply-accumulates of blocks."""
    from convdsl.reporting.rows import rows

    totals = next(iter(reports.values())).totals
    made = [
        {"figure": name, **{key: _plain(report.totals[name]) for key, report in reports.items()}}
        for name in totals
    ]
    if not depth:
        return made
    blocks = {key: {row.name: row for row in rows(r, depth)} for key, r in reports.items()}
    every: Sequence[str] = list(dict.fromkeys(name for found in blocks.values() for name in found))
    for name in every:
        cells = {k: _plain(b[name].cost.macs) if name in b else "-" for k, b in blocks.items()}
        if any(cell not in (0, "-") for cell in cells.values()):  # others have none to compare
            made.append({"figure": f"macs of {name}", **cells})
    return made


def _plain(value: Any) -> Any:
    return value if isinstance(value, int) else "?" if value is None else str(value)
