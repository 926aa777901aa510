"""What is offered mends."""

from __future__ import annotations

from pathlib import Path

import pytest
from elaborate.mistakes import MISTAKES

from convdsl import zoo
from convdsl.editing.mending import mendings
from convdsl.editing.project import Project
from convdsl.editing.references import applied
from editing.texts import analysed

PLACE = Path("/nowhere/mistake.cnn")


def titles(text: str) -> list[str]:
    project = Project(zoo.folder())
    found = analysed(PLACE, text, project)
    return [m.title for f in found.findings for m in mendings(project, found, f)]


@pytest.mark.dear
def test_mendings_of_the_catalogue_mend() -> None:
    """Each edit that is offered is carried out: what it is for is not found any more."""
    count = 0
    project = Project(zoo.folder())
    for mistake in MISTAKES[::3]:
        found = analysed(PLACE, mistake.source, project)
        for finding in found.findings:
            for mending in mendings(project, found, finding):
                text = applied(mistake.source, [mending.edit])
                after = analysed(PLACE, text, project)
                assert (finding.code, finding.message) not in [
                    (f.code, f.message) for f in after.findings
                ], mistake.name
                project.set_text(PLACE, mistake.source)
                count += 1
    assert count >= 20


@pytest.mark.parametrize(
    ("body", "title"),
    [
        ("x -> rellu", "Write `relu`"),
        ("x -> conv(4, 3x3, strid = 2)", "Write `stride`"),
        ("x => relu", "Write `->`"),
        ("x -> conv(4, 3x3, bias = True)", "Write `true`"),
        ("let deep = 3\n    x -> relu", "Write `_deep`"),
        (
            "a = x -> maxpool(2) -> upsample(2)\n    a + x",
            "Declare `where H % 2 == 0 and W % 2 == 0`",
        ),
    ],
)
def test_one_obvious_edit(body: str, title: str) -> None:
    text = f"model m {{\n    input x: f32[N, 3, H, W]\n    {body} -> output y\n}}\n"
    assert title in titles(text)


def test_an_import_that_nothing_uses(tmp_path: Path) -> None:
    text = 'use "zoo:resnet.cnn": basic\nmodel m {\n input x: f32[N, 3, 8, 8]\n x -> relu\n}\n'
    assert titles(text) == ["Write `basic as _basic`"]


def test_nothing_is_offered_where_nothing_is_obvious() -> None:
    text = "model m {\n    input x: f32[N, 3, 8, 8]\n    x -> conv(4, 9x9, pad = 0)\n}\n"
    assert titles(text) == []
