"""Findings on a terminal: no wider than it, words whole, carets where they point."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from elaborate.mistakes import MISTAKES
from elaborate.test_mistakes import diagnose

from convdsl.diagnostics import Diagnostic

MANY = "relu -> " * 12
LONG = f"""block b(width) {{ conv(width, 3x3) -> {MANY}chanels -> {MANY}relu }}
model m {{
    input x: f32[N, 3, 8, 8]
    x -> {MANY}b(4) -> output y
}}
"""


def pointed_at(lines: list[str]) -> str:
    """What stands above the carets."""
    at = next(i for i, line in enumerate(lines) if re.search(r"\| *[-| ]*\^", line))
    marks = re.search(r"\^+", lines[at])
    assert marks is not None
    return lines[at - 1][marks.start() : marks.end()]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_place_of_a_long_line(width: int) -> None:
    (found,) = diagnose(LONG)
    lines = found.render(width=width).split("\n")
    assert max(map(len, lines)) <= width
    assert pointed_at(lines) == "chanels"
    assert "... -> " in lines[3] or lines[3].endswith("...")
    wide = found.render().split("\n")
    assert pointed_at(wide) == "chanels"


def placed(found: Diagnostic) -> bool:
    """Whether what it points at stands on one line."""
    return found.span is not None and "\n" not in found.span.text


@pytest.mark.dear
@pytest.mark.parametrize("width", [60, 80])
def test_every_mistake_of_the_catalogue(width: int) -> None:
    for mistake in MISTAKES:
        for found in diagnose(mistake.source, mistake.setting):
            text = found.render(width=width)
            words = set(found.render().split())
            lines = text.split("\n")
            if placed(found) and "\t" not in mistake.text:
                assert found.span is not None
                shown = pointed_at(lines)
                assert shown == found.span.text or "..." in "".join(lines[:5]), text
            for line in lines:
                whole = len(line) <= width or len(max(line.split(), key=len)) > width - 12
                assert whole, f"{mistake.name}: {line}"
                if line.startswith(("error", "warning", "  ", "   =")) and "|" not in line:
                    assert set(line.split()) <= words, f"{mistake.name}: {line}"


def test_a_command_knows_its_terminal(
    convdsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.cnn").write_text(LONG)
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("NO_COLOR", "1")
    assert max(map(len, convdsl("check", tmp_path / "m.cnn").out.splitlines())) > 150
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.chdir(tmp_path)
    for said in (convdsl("check", "m.cnn").out, convdsl("report", "m.cnn").err):
        assert "chanels" in said
        assert max(map(len, said.splitlines())) <= 70
