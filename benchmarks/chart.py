"""The ratios as a bar chart: one SVG file, readable in light and dark, no scripts."""

from __future__ import annotations

from html import escape
from typing import Any

_BAR, _GAP, _LEFT, _WIDTH = 16, 10, 230, 460


def draw(rows: list[dict[str, Any]]) -> str:
    """Bars of convdsl's median time over each peer's; the line marks 1: equally fast."""
    bars = [row for row in rows if row["peer"] != "convdsl"]
    longest = max([1.2, *(row["ratio of medians"] for row in bars)])
    scale = _WIDTH / longest
    height = len(bars) * (_BAR + _GAP) + 50
    one = _LEFT + scale
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 70}" '
            f'height="{height}" font-family="sans-serif" font-size="12" fill="#888">'
        ),
        "<title>convdsl: median latency relative to its peers; shorter is faster</title>",
    ]
    for position, row in enumerate(bars):
        y = 10 + position * (_BAR + _GAP)
        ratio = row["ratio of medians"]
        label = f"{row['model']}, {row['threads']} threads / {row['peer']}"
        colour = "#2a9d5c" if ratio <= 1 else "#d1693b"
        parts += [
            f'<text x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>',
            (
                f'<rect x="{_LEFT}" y="{y}" width="{ratio * scale:.1f}" height="{_BAR}" '
                f'fill="{colour}"/>'
            ),
            f'<text x="{_LEFT + ratio * scale + 6:.1f}" y="{y + 12}">{ratio:.2f}</text>',
        ]
    parts += [
        (
            f'<line x1="{one:.1f}" x2="{one:.1f}" y1="4" y2="{height - 34}" stroke="#888" '
            'stroke-dasharray="4 3"/>'
        ),
        f'<text x="{one:.1f}" y="{height - 18}" text-anchor="middle">1: equally fast</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
