"""Charts: bars, steps over time, curves, points under a roof; axes with round numbers.

Colours are classes of `svg`; what a chart says is in its texts and tooltips, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from convdsl.drawing.svg import (
    LINES,
    Canvas,
    element,
    number,
    short_number,
    shortened,
    text,
    text_of,
    text_width,
)

SIZE = 10.5
ROW = 18.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 16.0, 26.0, 40.0
"""Room around the field of a chart, for its axes."""

MOST_TOOLTIPS = 400
"""Steps that say what they are under the pointer; of more, only the marks do."""


@dataclass(frozen=True, slots=True)
class Column:
    """Bars beside each other's: a heading, a number for each row, and how it is written."""

    heading: str
    values: Sequence[int]
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Curve:
    """Points in order of x, and what they are called."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """From where to where, and what it measures. A logarithmic one starts above 0."""

    label: str
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies: 0 to 1."""
        if self.log:
            value = min(max(value, self.low), self.high)
            return log10(value / self.low) / log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers within: powers of ten, or of steps of 1, 2 or 5."""
        if self.log:
            first, last = ceil(log10(self.low) - 1e-9), floor(log10(self.high) + 1e-9)
            by = max(1, ceil((last - first + 1) / most))
            return [10.0**power for power in range(first, last + 1, by)]
        raw = (self.high - self.low) / most
        power = 10.0 ** floor(log10(raw))
        step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
        first = ceil(self.low / step - 1e-9)
        return [step * n for n in range(first, floor(self.high / step + 1e-9) + 1)]


def spanning(label: str, values: Sequence[float], *, log: bool = False, zero: bool = True) -> Axis:
    """An axis that holds all values that are finite (of a logarithmic one: above 0)."""
    known = [v for v in values if isfinite(v) and (v > 0 or not log)]
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    if log:
        low, high = 10.0 ** floor(log10(low)), 10.0 ** ceil(log10(high))
        return Axis(label, low, high if high > low else 10 * low, log=True)
    low = min(low, 0.0) if zero else low
    return Axis(label, low, high if high > low else low + 1.0)


def bars(labels: Sequence[str], columns: Sequence[Column], *, width: float = 940.0) -> Canvas:
    """A row for each label, a bar for each column, in shares of the column's greatest."""
    names = [shortened(label, 36) for label in labels]
    left = max((text_width(name, SIZE) for name in names), default=0.0) + 12
    wide = (width - left) / max(len(columns), 1)
    parts = [text(name, 0, ROW * (row + 2) - 5, size=SIZE) for row, name in enumerate(names)]
    for place, column in enumerate(columns):
        x = left + place * wide
        parts.append(text(column.heading, x, 12, size=SIZE, weight="bold"))
        most = max(column.values, default=0)
        said = max((text_width(t, SIZE) for t in column.texts), default=0.0)
        room = max(wide - said - 18, 20.0)
        for row, (value, shown) in enumerate(zip(column.values, column.texts, strict=True)):
            y = ROW * (row + 1)
            length = room * value / most if most else 0.0
            tip = element("title", text_of(f"{labels[row]}: {shown}"))
            parts.append(
                element("rect", tip, x=x, y=y + 3, width=length, height=ROW - 7, class_="bar")
            )
            parts.append(text(shown, x + length + 5, y + 12.5, size=SIZE, class_="faint"))
    return Canvas("".join(parts), width, ROW * (len(labels) + 1) + 6)


def steps(
    values: Sequence[float],
    names: Sequence[str],
    y: Axis,
    *,
    across: str,
    marked: int | None = None,
    shown: Sequence[str] = (),
    width: float = 940.0,
    height: float = 230.0,
) -> Canvas:
    """A filled staircase: one step for each value, in order; one of them marked."""
    field = _Field(Axis(across, 0, max(len(values), 1)), y, width, height)
    parts = [field.frame()]
    places = [field.at(step, value) for step, value in enumerate(values)]
    path = [f"M{number(LEFT)} {number(field.foot)}"]
    for step, (x, top) in enumerate(places):
        path.append(f"L{number(x)} {number(top)}H{number(field.at(step + 1, 0)[0])}")
    path.append(f"V{number(field.foot)}Z")
    parts.append(element("path", d="".join(path), class_="spot0", fill_opacity=0.55))
    if len(values) <= MOST_TOOLTIPS:
        for step, name in enumerate(names):
            x, wide = places[step][0], field.wide / len(values)
            tip = element("title", text_of(f"{name}: {shown[step]}" if shown else name))
            parts.append(
                element(
                    "rect",
                    tip,
                    x=x,
                    y=TOP,
                    width=wide,
                    height=field.tall,
                    fill_opacity=0,
                    class_="bar",
                )
            )
    if marked is not None:
        x, top = field.at(marked + 0.5, values[marked])
        parts.append(_marking(f"M{number(x)} {number(field.foot)}V{number(top)}"))
        said = f"{shortened(names[marked], 40)}: {shown[marked]}" if shown else names[marked]
        parts.append(field.note(said, x, top - 4))
    return Canvas("".join(parts), width, height)


def _marking(path: str) -> str:
    return element("path", d=path, class_="mark", stroke_width=1.5, fill="none")


def curves(
    found: Sequence[Curve],
    x: Axis,
    y: Axis,
    *,
    level: tuple[str, float] | None = None,
    dots: bool = False,
    width: float = 940.0,
    height: float = 260.0,
) -> Canvas:
    """Lines through points, their names beside them; `level`: a line across, and its name."""
    labels = [*(curve.label for curve in found), level[0] if level else ""]
    room = max(text_width(label, SIZE) for label in labels) + 24
    field = _Field(x, y, width - (room if len(found) > 1 else 0.0), height)
    parts = [field.frame()]
    if level is not None and y.low <= level[1] <= y.high:
        at = field.at(x.low, level[1])[1]
        parts.append(_marking(f"M{number(LEFT)} {number(at)}h{number(field.wide)}"))
        if len(found) > 1:
            above = TOP + 8 + ROW * len(found)
            parts.append(_marking(f"M{number(field.width - 6)} {number(above - 4)}h20"))
            parts.append(text(level[0], field.width + 19, above, size=SIZE))
        else:
            parts.append(text(level[0], LEFT + 6, at - 4, size=SIZE, class_="faint"))
    for order, curve in enumerate(found):
        colour = order % len(LINES)
        dashes = ("", "7 3", "2 3", "9 3 2 3")[order // len(LINES) % 4]
        places = [field.at(*p) for p in curve.points if isfinite(p[1]) and (p[1] > 0 or not y.log)]
        line = "M" + "L".join(f"{number(a)} {number(b)}" for a, b in places)
        if len(places) > 1:
            parts.append(
                element(
                    "path",
                    element("title", text_of(curve.label)),
                    d=line,
                    class_=f"curve{colour}",
                    fill="none",
                    stroke_width=1.8,
                    stroke_dasharray=dashes or None,
                )
            )
        if dots or len(places) == 1:
            parts += [
                element("circle", cx=a, cy=b, r=2.5, class_=f"spot{colour}") for a, b in places
            ]
        if len(found) > 1:
            above = TOP + 8 + ROW * order
            key = f"M{number(field.width - 6)} {number(above - 4)}h20"
            parts.append(
                element(
                    "path",
                    d=key,
                    class_=f"curve{colour}",
                    stroke_width=2,
                    stroke_dasharray=dashes or None,
                )
            )
            parts.append(text(curve.label, field.width + 19, above, size=SIZE))
    needed = TOP + ROW * (len(found) + 1) + 6 if len(found) > 1 else 0.0
    return Canvas("".join(parts), width, max(height, needed))


def headed(canvas: Canvas, title: str, margin: float = 14.0) -> Canvas:
    """A chart on a page of its own: with a margin, and its title above."""
    top = margin + 22.0
    body = element("g", canvas.body, transform=f"translate({number(margin)} {number(top)})")
    body += text(title, margin, margin + 8, size=13, weight="bold")
    width = max(canvas.width, text_width(title, 13))
    return Canvas(body, width + 2 * margin, canvas.height + top + margin)


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a scatter: where, what it is called, of which of two kinds."""

    x: float
    y: float
    label: str
    first: bool


def under_a_roof(
    points: Sequence[Point],
    x: Axis,
    y: Axis,
    roof: tuple[float, float],
    kinds: tuple[str, str],
    *,
    width: float = 940.0,
    height: float = 320.0,
) -> Canvas:
    """Points below min(peak, slope x): `roof` is (peak, slope), both axes are logarithmic."""
    peak, slope = roof
    field = _Field(x, y, width, height)
    corner = min(max(peak / slope, x.low), x.high)
    line = [(x.low, min(peak, slope * x.low)), (corner, min(peak, slope * corner)), (x.high, peak)]
    parts = [field.frame()]
    drawn = "L".join(f"{number(a)} {number(b)}" for a, b in (field.at(*p) for p in line))
    parts.append(_marking(f"M{drawn}"))
    for point in points:
        cx, cy = field.at(point.x, point.y)
        tip = element("title", text_of(point.label))
        spot = "spot0" if point.first else "spot1"
        parts.append(element("circle", tip, cx=cx, cy=cy, r=3.5, class_=spot, fill_opacity=0.75))
    for place, (kind, spot) in enumerate(zip(kinds, ("spot0", "spot1"), strict=True)):
        above = field.foot - 12 - ROW * (1 - place)
        left = LEFT + field.wide - max(text_width(k, SIZE) for k in kinds) - 24
        parts.append(element("circle", cx=left, cy=above - 4, r=3.5, class_=spot))
        parts.append(text(kind, left + 10, above, size=SIZE))
    return Canvas("".join(parts), width, height)


class _Field:
    """Where values of two axes lie in a chart."""

    def __init__(self, x: Axis, y: Axis, width: float, height: float) -> None:
        self.x, self.y, self.width = x, y, width
        self.wide = width - LEFT - RIGHT
        self.tall = height - TOP - BOTTOM
        self.foot = TOP + self.tall

    def at(self, x: float, y: float) -> tuple[float, float]:
        return LEFT + self.wide * self.x.place(x), self.foot - self.tall * self.y.place(y)

    def frame(self) -> str:
        """Lines of the grid with their numbers, and what the axes measure."""
        parts: list[str] = []
        for tick in self.y.ticks():
            level = self.at(self.x.low, tick)[1]
            line = f"M{number(LEFT)} {number(level)}h{number(self.wide)}"
            parts.append(element("path", d=line, class_="grid", stroke_width=1))
            parts.append(_said(tick, LEFT - 6, level + 3.5, "end"))
        for tick in self.x.ticks(10):
            place = self.at(tick, self.y.low)[0]
            line = f"M{number(place)} {number(self.foot)}v4"
            parts.append(element("path", d=line, class_="line", stroke_width=1))
            parts.append(_said(tick, place, self.foot + 16, "middle"))
        line = f"M{number(LEFT)} {number(self.foot)}h{number(self.wide)}"
        parts.append(element("path", d=line, class_="line", stroke_width=1))
        middle = LEFT + self.wide / 2
        below = self.foot + 32
        parts.append(text(self.x.label, middle, below, size=SIZE, anchor="middle", class_="faint"))
        parts.append(text(self.y.label, 0, TOP - 14, size=SIZE, class_="faint"))
        return "".join(parts)

    def note(self, said: str, x: float, y: float) -> str:
        """A text near a place, within the field."""
        wide = text_width(said, SIZE)
        left = min(max(x - wide / 2, LEFT + 2), LEFT + self.wide - wide - 2)
        return text(said, left, max(y, TOP + 8), size=SIZE)


def _said(tick: float, x: float, y: float, anchor: str) -> str:
    return text(short_number(tick, 5), x, y, size=SIZE, anchor=anchor, class_="faint")
