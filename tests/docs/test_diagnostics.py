"""Every code has an explanation whose wrong example gives it and whose right one gives nothing;
docs/diagnostics.md shows them all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import convdsl
from convdsl import zoo
from convdsl.cli import main
from convdsl.diagnostics import CompileError, Diagnostic, SourceFile
from convdsl.elaborate import check_definitions, limits, load_file
from convdsl.explanations import LEVELS, PAGE, SETTINGS, Explanation, every
from convdsl.syntax import limits as syntax_limits
from convdsl.training.judging import disagreements

ROOT = Path(__file__).parents[2]
BEFORE = """# Diagnostics

What every code means, with a text that is wrong and one that is right; tests run both.
`convdsl explain E0501` says the same of one, `convdsl explain` lists them. Where examples import,
`blocks.cnn` beside them defines the block `bottleneck(width)`.
"""
HEADINGS = {"error": "Errors", "warning": "Warnings"}

OF_THE_LANGUAGE = [entry for entry in every().values() if entry.setting != "project"]
OF_PROJECTS = [entry for entry in every().values() if entry.setting == "project"]
NET = """model net {
    input image: f32[N, 3, 32, 32]
    image -> conv(16, 3x3) -> relu -> avgpool(global) -> flatten -> linear(10) -> output y
}
"""


def whole(example: str, entry: Explanation) -> str:
    """The example as a file."""
    match entry.setting:
        case "body":
            return f"model example {{\ninput x: f32[N, 64, 56, 56]\n{example}}}\n"
        case "file":
            if "..." in example:  # too long for a page
                example = f"# {'a comment ' * 200_000}\n"
            layer = "bottleneck(64)" if example == entry.right and "use" in example else "relu"
            return f"{example}\nmodel example {{\ninput x: f32[N, 64, 56, 56]\nx -> {layer}\n}}\n"
        case _:
            return example


def findings(example: str, entry: Explanation, folder: Path) -> tuple[Diagnostic, ...]:
    """What is said of an example, of a file that defines blocks alone, too."""
    (folder / "blocks.cnn").write_text("block bottleneck(width) { conv(width, 1x1) }\n")
    (folder / "cycle.cnn").write_text('use "cycle.cnn": bottleneck\n')
    (folder / "names.txt").write_text("cat\ndog\nfish\n")
    (folder / "folder").mkdir()
    for i in range(20):
        inner = f'use "deep{i + 1}.cnn": deep\n' if i < 19 else "block deep { relu }\n"
        (folder / f"deep{i}.cnn").write_text(inner)
    text = whole(example, entry)
    if entry.level == "warning" and "model" not in text:
        return check_definitions(SourceFile("example.cnn", text))
    (folder / "example.cnn").write_text(text)
    parameters = {"width": 2} if entry.setting == "width" else {}
    model = "example" if entry.setting == "file" else None
    try:
        loaded = load_file(
            folder / "example.cnn", model=model, parameters=parameters, zoo=zoo.folder()
        )
    except CompileError as error:
        return error.diagnostics
    assert loaded.outputs
    judged = disagreements(loaded) if loaded.training is not None else ()
    return loaded.warnings + judged


@pytest.mark.parametrize("entry", OF_THE_LANGUAGE, ids=lambda entry: entry.code)
def test_the_wrong_example_has_the_code_alone(entry: Explanation, tmp_path: Path) -> None:
    found = findings(entry.wrong, entry, tmp_path)
    assert [(d.code, d.severity) for d in found] == [(entry.code, entry.level)]


@pytest.mark.parametrize("entry", OF_THE_LANGUAGE, ids=lambda entry: entry.code)
def test_the_right_example_has_none(entry: Explanation, tmp_path: Path) -> None:
    found = findings(entry.right, entry, tmp_path)
    assert not found, "\n\n".join(diagnostic.render() for diagnostic in found)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and its artifact."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "net.cnn").write_text(NET)
    convdsl.compile(folder / "net.cnn", "random:0").save(folder / "net.cdsl")
    return folder


@pytest.mark.dear
@pytest.mark.parametrize("entry", OF_PROJECTS, ids=lambda entry: entry.code)
def test_a_project_that_is_wrong_and_right(
    entry: Explanation, net: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(net)
    for example, codes in ((entry.wrong, [entry.code]), (entry.right, [])):
        Path("convdsl.toml").write_text(example)
        main(["check", "net.cnn", "net.cdsl", "convdsl.toml", "--format", "json", "--quiet"])
        found = json.loads(capsys.readouterr().out)
        assert [d["code"] for d in found] == codes
        assert all(d["file"] == "convdsl.toml" for d in found)


def test_every_code_is_explained_and_every_explanation_is_of_a_code() -> None:
    used: set[str] = set()
    for path in (ROOT / "convdsl").rglob("*.py"):
        used |= set(re.findall(r'"([EW]\d{4})"', path.read_text(encoding="utf-8")))
    assert set(every()) == used


def test_explanations_are_whole() -> None:
    for entry in every().values():
        assert entry.text.endswith((".", "`.")), entry.code
        assert entry.setting in SETTINGS, entry.code
        assert entry.wrong != entry.right, entry.code
        assert max(map(len, (entry.wrong + entry.right).splitlines())) <= 76, entry.code


def test_figures_are_those_of_the_limits() -> None:
    said = {code: re.findall(r"\d[\d,]*", entry.text) for code, entry in every().items()}
    assert said["E0801"] == [f"{syntax_limits.SOURCE_BYTES:,}", f"{syntax_limits.WORDS:,}"]
    assert said["E0802"] == [str(syntax_limits.NESTING)]
    assert said["E0803"] == [f"{limits.NODES:,}"]
    assert said["E0804"] == [str(limits.IMPORT_DEPTH), str(limits.IMPORTED_FILES)]
    assert said["E0805"] == [f"{limits.ITERATIONS:,}", f"{limits.STEPS:,}"]
    assert f"{limits.CONSTANTS:,}" in said["E0806"]


def page() -> str:
    parts = [BEFORE]
    for level in LEVELS.values():
        sections = [entry.markdown() for entry in every().values() if entry.level == level]
        parts += [f"## {HEADINGS[level]}\n", *sections]
    return "\n".join(parts)


def test_the_page_shows_them_all(request: pytest.FixtureRequest) -> None:
    path = ROOT / PAGE
    if request.config.getoption("--update-golden"):
        path.write_text(page(), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == page(), "run `make golden`"
