"""Where operators are named: four files are enough for one."""

from __future__ import annotations

import pytest
import where

from convdsl.ops import BY_NAME


@pytest.mark.dear
def test_four_files_are_enough(capsys: pytest.CaptureFixture[str]) -> None:
    files = {place.file for place in where.places(BY_NAME["channel_shuffle"])}
    needed = {"tests/op_cases/movement.py", "tests/ops/test_objections.py"}
    assert needed < files
    others = files - needed - {"tests/test_where.py"}
    assert all(file.startswith(("tests/passes/", "tests/schedules/")) for file in others), others
    assert where.main(["groupnorm"]) == 0
    assert "its row in convdsl/interop/correspondence/normalisation.py" in capsys.readouterr().out


@pytest.mark.dear
def test_places_are_found_in_code_and_text() -> None:
    found = {(place.file, place.text) for place in where.places(BY_NAME["resize"])}
    assert any(file == "convdsl/elaborate/images.py" for file, _ in found)
    assert all("resize" in text for _, text in found)


def test_names_in_markdown_count_outside_of_what_is_generated() -> None:
    generated = "<!-- operators: x -->\n`relu`\n<!-- end of operators -->\n"
    text = f"`relu`\n{generated}`relu(x)` relu\nrelu\n"
    assert list(where._in_markdown(text, {"relu"})) == [1, 5]


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert where.main(["nonesuch"]) == 2
    assert "nonesuch" in capsys.readouterr().err
