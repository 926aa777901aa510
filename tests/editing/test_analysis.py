"""What an editor is told is what `convdsl check` says, of every text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from elaborate.mistakes import MISTAKES

from convdsl import zoo
from convdsl.cli import main
from convdsl.diagnostics import Diagnostic
from convdsl.editing.analysis import analyse
from convdsl.editing.project import Project
from convdsl.elaborate.examination import Cancelled
from editing.texts import analysed

SAMPLE = [mistake for mistake in MISTAKES if mistake.setting is None]


def told(findings: tuple[Diagnostic, ...]) -> list[object]:
    return [json.loads(json.dumps(finding.to_json())) for finding in findings]


def checked(place: Path, capsys: pytest.CaptureFixture[str]) -> list[object]:
    capsys.readouterr()
    main(["check", "--format", "json", str(place)])
    return json.loads(capsys.readouterr().out)


@pytest.mark.dear
def test_mistakes_are_found_as_check_finds_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path.resolve() / "mistake.cnn"
    for mistake in SAMPLE:
        place.write_text(mistake.source, encoding="utf-8")
        assert told(analysed(place).findings) == checked(place, capsys), mistake.name


@pytest.mark.dear(share=4)
def test_files_of_several_models_are_found_as_check_finds_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path.resolve() / "several.cnn"
    text = (zoo.folder() / "resnet.cnn").read_text(encoding="utf-8")
    for old, new in (("relu\n", "rellu\n"), ("4 * width, 1x1)", "4 * width, 1x1, 1, 7)")):
        place.write_text(text.replace(old, new, 1), encoding="utf-8")
        findings = analysed(place).findings
        assert findings
        assert told(findings) == checked(place, capsys)


def test_budgets_are_kept_as_check_keeps_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path.resolve() / "net.cnn"
    text = (zoo.folder() / "lenet5.cnn").read_text(encoding="utf-8")
    place.write_text(text, encoding="utf-8")
    project = tmp_path / "convdsl.toml"
    project.write_text('[budget."*"]\nparams = "1K"\nmacs = 10\nset = { classes = 7 }\n')
    found = analysed(place)
    here = [d.to_json() | {"labels": []} for d in found.findings]
    theirs = [d | {"labels": []} for d in checked(place, capsys)]  # type: ignore[operator]
    for one in (*here, *theirs):
        one["file"] = Path(one["file"]).name
    assert here == theirs
    assert [d.code for d in found.costs] == ["E1001", "E1002"]


def test_examples_of_the_zoo_have_no_findings() -> None:
    for place in (zoo.folder() / "vgg.cnn", zoo.folder() / "gallery" / "swin.cnn"):
        found = analysed(place)
        assert found.findings == ()
        assert all(e.made is not None for e in found.examinations)


def test_open_texts_win_over_files_in_imports(tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    blocks, place = folder / "blocks.cnn", folder / "net.cnn"
    blocks.write_text("block unit { conv(4, 3x3) }\n")
    text = 'use "blocks.cnn": unit\nmodel m {\n    input x: f32[N, 3, 8, 8]\n    x -> unit\n}\n'
    project = Project(zoo.folder())
    found = analysed(place, text, project)
    assert found.findings == ()
    assert blocks in found.asked
    project.set_text(blocks, "block unit { conv(4, 9x9, pad = 0) }\n")
    assert [d.code for d in analysed(place, None, project).findings] == ["E0501"]
    project.set_text(blocks, "block other { relu }\n")
    assert [d.code for d in analysed(place, None, project).findings] == ["E0705"]
    project.set_text(blocks, None)
    assert analysed(place, None, project).findings == ()


def test_what_was_found_before_stays_until_it_is_looked_at_again(tmp_path: Path) -> None:
    """Findings of models that are still to come stand where they are now."""
    place = tmp_path.resolve() / "net.cnn"
    model = "model {} {{\n    input x: f32[N, 3, 8, 8]\n    x -> {}\n}}\n"
    text = model.format("a", "relu") + model.format("b", "conv(8, 9x9, pad = 0)")
    project = Project(zoo.folder())
    project.set_text(place, text)
    *_, before = analyse(project, place)
    assert [d.code for d in before.findings] == ["E0501"]
    project.set_text(place, "# one\n# two\n" + text)
    parts = list(analyse(project, place, before))
    for part in parts:
        (finding,) = part.findings
        assert finding.span is not None
        assert (finding.span.source, finding.span.line) == (part.reading.source, 9)
    assert [p.complete for p in parts][-1]


def test_what_nobody_wants_ends_early() -> None:
    place = zoo.folder() / "efficientnet.cnn"
    project = Project(zoo.folder())
    with pytest.raises(Cancelled):
        list(analyse(project, place, None, lambda: False))


def test_a_model_that_cannot_be_made_is_known_as_far_as_it_goes(tmp_path: Path) -> None:
    place = tmp_path.resolve() / "net.cnn"
    text = "model m(width) {\n    input x: f32[N, 3, H, W]\n    y = x -> conv(8, 3x3)\n"
    found = analysed(place, f"{text}    y -> conv(width, 1x1) -> output z\n}}\n")
    assert [d.code for d in found.findings] == ["E0302"]
    (examination,) = found.examinations
    assert [node.name for node in examination.graph.op_nodes()] == ["conv"]


def test_items_that_parse_are_known_though_another_does_not(tmp_path: Path) -> None:
    place = tmp_path.resolve() / "net.cnn"
    text = (
        "model good {\n    input x: f32[N, 3, 8, 8]\n    x -> relu\n}\nmodel bad {\n    x -> (\n}\n"
    )
    found = analysed(place, text)
    assert [d.code for d in found.findings] == ["E0102"]
    assert [e.model for e in found.examinations] == ["good"]
