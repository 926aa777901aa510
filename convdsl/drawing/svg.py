"""SVG as text: elements, numbers without noise, the width of texts, colours for light and dark.

A file has its colours by class in one style sheet, without scripts, variables or fonts of its own:
browsers, editors of pictures and presentations all read it. Where a reader prefers dark pages, a
browser takes the dark colours; `light` and `dark` files have one set alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import combining, east_asian_width
from xml.sax.saxutils import escape, quoteattr

from convdsl.diagnostics import InputError, printable

THEMES = ("auto", "light", "dark")

MONOSPACE = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
ADVANCE = 0.602
"""Width of a letter of DejaVu Sans Mono, in ems; none of the others has wider ones."""

INK = {
    # class: property, light, dark
    "page": ("fill", "#ffffff", "#14171c"),
    "ink": ("fill", "#1b2027", "#e6e9ee"),
    "faint": ("fill", "#59626f", "#a0a9b6"),
    "line": ("stroke", "#8a94a3", "#76808f"),
    "head": ("fill", "#8a94a3", "#76808f"),
    "grid": ("stroke", "#dfe3e9", "#2d333d"),
    "bar": ("fill", "#2f6fb5", "#6aa9ea"),
    "mark": ("stroke", "#d3342f", "#ff6b62"),
    "edge": ("stroke", "#6b7584", "#8c96a5"),
}
"""What is drawn with, but for the fills below."""

FILLS = {
    # class: light fill and border, dark fill and border
    "plain": ("#f1f3f6", "#a6afbc", "#262b33", "#5a6472"),
    "blue": ("#dbe9f9", "#4f86c2", "#1c3350", "#5d94d3"),
    "green": ("#dcf1e0", "#4c9a62", "#1b3a26", "#5bb277"),
    "teal": ("#d5f0ef", "#3f9794", "#163a3a", "#4fb3ae"),
    "sand": ("#fbeed2", "#b88a35", "#3d3118", "#cf9f48"),
    "rose": ("#fae1e4", "#c0606f", "#44222a", "#d5798a"),
    "violet": ("#e9e4f7", "#7f6bb8", "#2d2748", "#9d8ad6"),
}
"""Surfaces that text stands on: dark on light, light on dark."""

LINES = ("#2f6fb5", "#c8552b", "#2e8b57", "#8b5fb5", "#a8841d", "#c04a86", "#4c8f96", "#6b7280")
LINES_DARK = (
    "#6aa9ea",
    "#f08a5d",
    "#5cc28a",
    "#b692e0",
    "#d8b44a",
    "#ec7fb4",
    "#7cc4cb",
    "#a3abb8",
)
"""Curves, told apart by colour; their labels say which is which, too."""


_NO_CHARACTER = re.compile("[\ufffe\uffff]")
"""What XML cannot hold, besides what `printable` takes."""


def style(theme: str = "auto", scope: str = "") -> str:
    """The style sheet of a picture. `scope`: a selector in front, where pages hold it."""
    if theme not in THEMES:
        raise InputError(f"no theme {theme}: there are {', '.join(THEMES)}")
    light, dark = rules(0, scope), rules(1, scope)
    if theme == "auto":
        return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"
    return light if theme == "light" else dark


def rules(which: int, scope: str = "") -> str:
    """The light rules, or the dark ones: 0 or 1."""
    lead = f"{scope} " if scope else ""
    # Hinted letters have whole widths, which would not be those that boxes are made for.
    rules = [f"{lead}text {{ font-family: {MONOSPACE}; text-rendering: geometricPrecision }}"]
    rules += [f"{lead}.{name} {{ {p[0]}: {p[1 + which]} }}" for name, p in INK.items()]
    for name, colours in FILLS.items():
        fill, stroke = colours[2 * which : 2 * which + 2]
        rules.append(f"{lead}.{name} {{ fill: {fill}; stroke: {stroke} }}")
    for number, colour in enumerate(LINES_DARK if which else LINES):
        rules.append(f"{lead}.curve{number} {{ stroke: {colour} }}")
        rules.append(f"{lead}.spot{number} {{ fill: {colour} }}")
    return "\n".join(rules)


@dataclass(frozen=True, slots=True)
class Canvas:
    """A drawing: what is inside of it, and its size in pixels."""

    body: str
    width: float
    height: float

    def document(self, title: str, theme: str = "auto") -> str:
        """A file of its own, with a background."""
        page = element("rect", width="100%", height="100%", class_="page")
        head = f"<title>{text_of(title)}</title><style>\n{style(theme)}\n</style>"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {self._size} role="img">'
            f"{head}{page}{self.body}</svg>\n"
        )

    def inline(self, title: str) -> str:
        """A part of a page, which has the style sheet."""
        return f'<svg {self._size} role="img"><title>{text_of(title)}</title>{self.body}</svg>'

    @property
    def _size(self) -> str:
        width, height = number(self.width), number(self.height)
        return f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'


def stacked(canvases: Sequence[Canvas]) -> Canvas:
    """One below the other."""
    body, height = "", 0.0
    for canvas in canvases:
        body += element("g", canvas.body, transform=f"translate(0 {number(height)})")
        height += canvas.height
    return Canvas(body, max(canvas.width for canvas in canvases), height)


def element(tag: str, inner: str = "", **attributes: object) -> str:
    """An element; `class_` and `font_size` are `class` and `font-size`; None is left out."""
    said = "".join(
        f" {name.rstrip('_').replace('_', '-')}={_quoted(value)}"
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{said}>{inner}</{tag}>" if inner else f"<{tag}{said}/>"


def text(
    said: str,
    x: float,
    y: float,
    *,
    size: float = 12,
    anchor: str = "start",
    class_: str = "ink",
    weight: str | None = None,
) -> str:
    """One line of text, its baseline at y."""
    return element(
        "text",
        text_of(said),
        x=x,
        y=y,
        class_=class_,
        font_size=size,
        text_anchor=None if anchor == "start" else anchor,
        font_weight=weight,
    )


def text_of(said: str) -> str:
    """Text between tags: no markup, nothing that steers."""
    return escape(_NO_CHARACTER.sub("\ufffd", printable(said)))


def text_width(said: str, size: float) -> float:
    """How wide a line of text is at most; letters of East Asia take two places."""
    cells = sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in said)
    return cells * size * ADVANCE


def shortened(said: str, letters: int) -> str:
    """A text with its middle left out, where it is longer."""
    if len(said) <= letters:
        return said
    ending = (letters - 1) * 2 // 3
    return f"{said[: letters - 1 - ending]}…{said[len(said) - ending :]}"


def short_number(value: float, digits: int = 3) -> str:
    """`25.6 M`, `0.01`, `1e-7`: as many digits as are read at a glance."""
    for scale, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= scale * (1 - 0.5 * 10.0**-digits):
            return f"{value / scale:.{digits}g}{letter}"
    if value and abs(value) < 1e-4:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:.{max(digits, 4)}g}"


def number(value: float) -> str:
    """A coordinate, to a twentieth of a pixel or better."""
    return f"{value:.1f}".removesuffix(".0")


_HARMLESS = re.compile(r"[A-Za-z0-9 .,#%()_-]*")


def _quoted(value: object) -> str:
    said = number(value) if isinstance(value, float) else str(value)
    if _HARMLESS.fullmatch(said):  # most attributes are coordinates
        return f'"{said}"'
    return quoteattr(_NO_CHARACTER.sub("", printable(said)))
