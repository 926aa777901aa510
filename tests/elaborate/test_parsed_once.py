"""Files of many models are parsed once, and are read anew where nobody asked for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from convdsl.cli import main
from convdsl.elaborate import files, load_file
from convdsl.elaborate.files import parsed_once
from convdsl.syntax import parser

BLOCK = "block unit { conv(4, 3x3) -> relu }\n"
MODEL = "model {} {{\n    input x: f32[N, 3, 8, 8]\n    x -> unit -> relu\n}}\n"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are parsed from here on."""
    found: list[str] = []

    def noted(source: parser.SourceFile) -> object:
        found.append(Path(source.path).name)
        return parser.parse(source)

    monkeypatch.setattr(files, "parse", noted)
    return found


def write(folder: Path, *names: str) -> Path:
    (folder / "blocks.cnn").write_text(BLOCK)
    place = folder / "net.cnn"
    models = "".join(MODEL.format(name) for name in names)
    place.write_text(f'use "blocks.cnn": unit\n{models}')
    return place


def test_check_parses_a_text_once(tmp_path: Path, parsed: list[str]) -> None:
    assert main(["check", str(write(tmp_path, "a", "b", "c"))]) == 0
    assert sorted(parsed) == ["blocks.cnn", "net.cnn"]


def test_what_is_wrong_is_found_in_every_model(
    tmp_path: Path, parsed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    place = write(tmp_path, "a", "b")
    text = place.read_text()
    place.write_text(text.replace("-> relu", "-> rellu"))
    assert main(["check", str(place)]) == 1
    assert capsys.readouterr().out.count("rellu") >= 2
    assert parsed.count("net.cnn") == 1


def test_texts_are_read_anew(tmp_path: Path, parsed: list[str]) -> None:
    place = write(tmp_path, "a")
    with parsed_once():
        load_file(place)
        write(tmp_path, "b")
        assert load_file(place).name == "b"
        assert parsed == ["net.cnn", "blocks.cnn", "net.cnn"]
    assert load_file(place).name == "b"
    assert parsed[3:] == ["net.cnn", "blocks.cnn"]
