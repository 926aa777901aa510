"""Short ways to look at texts in tests: `|` marks the place that is asked about."""

from __future__ import annotations

from pathlib import Path

from convdsl import zoo
from convdsl.editing.analysis import Analysis, analyse
from convdsl.editing.project import Project
from convdsl.editing.view import Knowledge, View


def marked(text: str) -> tuple[str, int]:
    """The text without its mark, and where that was."""
    assert text.count("|") == 1, text
    return text.replace("|", ""), text.index("|")


def analysed(place: Path, text: str | None = None, project: Project | None = None) -> Analysis:
    project = Project(zoo.folder()) if project is None else project
    if text is not None:
        project.set_text(place, text)
    *_, last = analyse(project, place)
    return last


def view(place: Path, text: str | None = None, project: Project | None = None) -> View:
    project = Project(zoo.folder()) if project is None else project
    found = analysed(place, text, project)
    return View(found.reading.text, Knowledge(project, found))
