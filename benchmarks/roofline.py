"""A network layer by layer under the roof of this machine: predicted and measured.

    python -m benchmarks.roofline [MODEL] [--threads T] [--rounds R] [--chart FILE]

Runs `convdsl compile MODEL --explain --measure` R times, takes of each step the best time and of
the machine the best figures, and prints a Markdown table. The chart (SVG) has a point for each
step: operations per byte that it moves from beyond the second-level cache, against the rate
that it reached; the roof is what the machine can do.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from html import escape
from math import log10
from pathlib import Path
from typing import Any

COLUMNS = {
    "step": "{}",
    "MMACs": "{:.1f}",
    "MB weights": "{:.2f}",
    "MB values": "{:.2f}",
    "bound": "{}",
    "predicted us": "{:,.0f}",
    "us": "{:,.0f}",
    "us / predicted": "{:.2f}",
    "GFLOP/s": "{:.0f}",
    "% of peak": "{:.0f}",
}
_ROOF = re.compile(r"with ([\d.]+) GFLOP/s, ([\d.]+) GB/s from memory")
_WIDTH, _HEIGHT, _LEFT, _TOP = 560, 340, 60, 20
_LOW, _HIGH = (-1.0, 0.0), (4.0, 3.0)  # corners of the chart: logarithms of FLOP/B and GFLOP/s

Row = dict[str, Any]


def explain(model: str, threads: int) -> tuple[list[Row], tuple[float, float]]:
    """(rows, (GFLOP/s, GB/s)) of one run."""
    command = [sys.executable, "-m", "convdsl", "compile", model, "--explain", "--measure"]
    command += ["--threads", str(threads), "--format", "json"]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    found = _ROOF.search(said.stderr)
    if found is None:
        raise SystemExit(f"no figures of the machine in: {said.stderr}")
    return json.loads(said.stdout), (float(found[1]), float(found[2]))


def best(model: str, threads: int, rounds: int) -> tuple[list[Row], tuple[float, float]]:
    """The best of every step and of the machine; shares and ratios follow from those."""
    runs, roofs = zip(*(explain(model, threads) for _ in range(rounds)), strict=True)
    peak, bandwidth = (max(figures) for figures in zip(*roofs, strict=True))
    rows: list[Row] = []
    for steps in zip(*runs, strict=True):
        row = dict(min(steps, key=lambda step: step["us"]))
        row["predicted us"] = min(step["predicted us"] for step in steps)
        row["us / predicted"] = row["us"] / row["predicted us"] if row["predicted us"] else 0.0
        row["% of peak"] = 100 * row["GFLOP/s"] / peak
        rows.append(row)
    return rows, (peak, bandwidth)


def table(rows: list[Row]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" + "|--:" * (len(COLUMNS) - 1) + "|"]
    for row in rows:
        cells = (form.format(row[name]) for name, form in COLUMNS.items())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(rows: list[Row], roof: tuple[float, float], title: str) -> str:
    """The roofline, both axes logarithmic; readable in light and dark, no scripts."""
    peak, bandwidth = roof
    ridge = peak / bandwidth
    edge = [(10 ** _LOW[0], 10 ** _LOW[0] * bandwidth), (ridge, peak), (10 ** _HIGH[0], peak)]
    line = " ".join(",".join(f"{v:.1f}" for v in _place(*corner)) for corner in edge)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + _LEFT + 20}" '
            f'height="{_HEIGHT + _TOP + 50}" font-family="sans-serif" font-size="12" fill="#888">'
        ),
        f"<title>{escape(title)}</title>",
        f'<polyline points="{line}" fill="none" stroke="#888" stroke-width="2"/>',
    ]
    for power in range(int(_LOW[0]), int(_HIGH[0]) + 1):
        x, y = _place(10.0**power, 10 ** _LOW[1])
        parts.append(
            f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{10.0**power:g}</text>'
        )
    for power in range(int(_LOW[1]), int(_HIGH[1]) + 1):
        x, y = _place(10 ** _LOW[0], 10.0**power)
        parts.append(f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{10**power}</text>')
    for row in rows:
        moved = 1e6 * (row["MB weights"] + row["MB values"])
        if row["GFLOP/s"] and moved:
            x, y = _place(2e6 * row["MMACs"] / moved, row["GFLOP/s"])
            label = f"{row['step']}: {row['GFLOP/s']:.0f} GFLOP/s"
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#2a9d5c" fill-opacity="0.6">'
                f"<title>{escape(label)}</title></circle>"
            )
    middle, bottom = _LEFT + _WIDTH / 2, _TOP + _HEIGHT + 40
    parts += [
        f'<text x="{middle}" y="{bottom}" text-anchor="middle">FLOP per byte moved</text>',
        f'<text x="{_LEFT}" y="12">GFLOP/s; roof {peak:.0f} GFLOP/s, {bandwidth:.1f} GB/s</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _place(intensity: float, rate: float) -> tuple[float, float]:
    across = (log10(intensity) - _LOW[0]) / (_HIGH[0] - _LOW[0])
    up = (log10(rate) - _LOW[1]) / (_HIGH[1] - _LOW[1])
    return _LEFT + _WIDTH * across, _TOP + _HEIGHT * (1 - up)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description=__doc__)
    parser.add_argument("model", nargs="?", default="resnet50", metavar="MODEL")
    parser.add_argument("--threads", type=int, default=1, metavar="T")
    parser.add_argument("--rounds", type=int, default=3, metavar="R")
    parser.add_argument("--chart", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows, roof = best(options.model, options.threads, options.rounds)
    predicted, spent = (sum(row[name] for row in rows) / 1e3 for name in ("predicted us", "us"))
    print(table(rows))
    print(
        f"\n{options.model}, threads {options.threads}: {roof[0]:.1f} GFLOP/s, {roof[1]:.1f} GB/s; "
        f"predicted {predicted:.1f} ms, measured {spent:.1f} ms"
    )
    if options.chart:
        options.chart.write_text(draw(rows, roof, f"{options.model} under this machine's roof"))


if __name__ == "__main__":
    main()
