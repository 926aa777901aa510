"""What two models differ in, for a comment on a pull request: Markdown, as GitHub shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convdsl.tensor.dim import separated

LONGEST = 65_536
"""Characters of a comment, https://docs.github.com/en/rest/issues/comments: longer ones are refused
with 422, `body is too long (maximum is 65536 characters)`."""

_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Change:
    """A figure or an attribute of a layer, or in total, on both sides; None: there is none."""

    layer: str
    what: str
    old: int | str | None
    new: int | str | None
    percent: float | None

    def to_row(self) -> dict[str, Any]:
        """As tables, CSV and JSON have it."""
        return {
            "layer": self.layer,
            "what": self.what,
            "old": self.old,
            "new": self.new,
            "change %": self.percent,
        }


def comparison_markdown(
    names: tuple[str, str],
    totals: Sequence[Change],
    layers: Sequence[Change],
    longest: int = LONGEST,
) -> str:
    """All totals, and what differs by layer, folded; rows that have no room are counted."""
    old, new = map(_code, names)
    lines = [f"### {old} → {new}" if old != new else f"### {new}", ""]
    lines += ["| total | before | after | change |", "| --- | --: | --: | --: |"]
    lines += [_row(c.what.replace("_", " "), *_sides(c), _percent(c)) for c in totals]
    if not layers:
        same = all(change.old == change.new for change in totals)
        return "\n".join([*lines, "", "The layers do not differ." if same else ""]).rstrip() + "\n"
    lines += ["", f"<details><summary>{_counted(layers)}</summary>", ""]
    lines += ["| layer | what | before | after | change |", "| --- | --- | --: | --: | --: |"]
    rows = list(_layer_rows(layers))
    end = "\n\n</details>\n"
    rest = "\n\n{:,} more rows have no room in a comment; `convdsl diff` shows them."
    room = longest - len("\n".join(lines)) - len(end) - len(rest) - len(f"{len(rows):,}")
    kept = 0
    for row in rows:
        room -= len(row) + 1
        if room < 0:
            break
        kept += 1
    text = "\n".join([*lines, *rows[:kept]])
    return text + (rest.format(len(rows) - kept) if kept < len(rows) else "") + end


def _layer_rows(layers: Sequence[Change]) -> list[str]:
    """A row a change; the layer stands before its first one."""
    rows: list[str] = []
    last = None
    for change in layers:
        name = "" if change.layer == last else _code(change.layer)
        last = change.layer
        if change.what == "layer":
            what = "removed" if change.new is None else "added"
        else:
            what = change.what if change.what.isalnum() else _code(change.what)
        rows.append(_row(name, what, *_sides(change), _percent(change)))
    return rows


def _counted(layers: Sequence[Change]) -> str:
    """`3 layers changed, 1 added`."""
    added = {c.layer for c in layers if c.what == "layer" and c.old is None}
    removed = {c.layer for c in layers if c.what == "layer" and c.new is None}
    changed = {c.layer for c in layers} - added - removed
    counts = ((changed, "changed"), (added, "added"), (removed, "removed"))
    parts = [f"{len(which):,} {what}" for which, what in counts if which]
    first, _, rest = parts[0].partition(" ")
    return ", ".join([f"{first} layer{'' if first == '1' else 's'} {rest}", *parts[1:]])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _sides(change: Change) -> tuple[str, str]:
    old, new = (_figure(value) for value in (change.old, change.new))
    return old, new


def _figure(value: int | str | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return _code(value if "[" in value else separated(value))


def _percent(change: Change) -> str:
    if change.old == change.new:
        return "="
    return "" if change.percent is None else f"{change.percent:+,.1f} %"


def _code(name: str) -> str:
    """A name as code, where nothing is markup or a mention, in one line; GitHub takes a bar even
    there for the end of a cell unless it is escaped."""
    plain = " ".join(name.replace("`", "'").split())
    short = plain if len(plain) <= _LONGEST_NAME else f"{plain[: _LONGEST_NAME - 1]}…"
    bars = short.replace("|", "\\|")
    return f"`{bars}`" if bars else ""
