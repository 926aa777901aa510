"""docs/gallery: every page is run, and the index is made from the files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import blocks, check_page, quoted_nowhere

from convdsl import zoo
from convdsl.cli import main
from convdsl.syntax.format import format_source

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
INDEX = GALLERY / "README.md"
PAGES = [path for path in sorted(GALLERY.glob("*.md")) if path != INDEX]
BEGIN = "<!-- index: written by tests/docs, run `make golden` -->\n"
END = "<!-- end of index -->"


def index(capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    """A row a model, as `convdsl zoo` lists them; ideas before published networks."""
    assert main(["zoo", "--format", "json"]) == 0
    rows: dict[str, dict[str, Any]] = {
        row["name"]: row for row in json.loads(capsys.readouterr().out)
    }
    ideas = [path for path in zoo.files() if path.parent.name == "gallery"]
    for heading, files in (
        ("Ideas", ideas),
        ("Published networks", [path for path in zoo.files() if path not in ideas]),
    ):
        yield from ("", f"## {heading}", "")
        yield "| file | model | | paper | parameters | multiply-accumulates | receptive field |"
        yield "|---|---|---|---|--:|--:|--:|"
        for path in files:
            models = [entry.model for entry in zoo.names().values() if entry.path == path]
            for number, name in enumerate(models):
                file = "" if number else links(path)
                yield f"| {file} | `{name}` | {figures(rows[name])} |"


def links(path: Path) -> str:
    """To the file, and to its page where it has one."""
    page = GALLERY / f"{path.stem}.md"
    file = f"[{path.name}]({os.path.relpath(path, GALLERY)})"
    return f"[{path.stem}]({page.name}): {file}" if page in PAGES else file


def figures(row: dict[str, Any]) -> str:
    fields = [field_text(f) for f in row["receptive_field"].values() if f and f["size"]]
    counts = (f"{row[key]:,}" for key in ("params", "macs"))
    seen = ", ".join(field for field in fields if field)  # none of what has no space
    return " | ".join([row["title"], row["paper"] or "", *counts, seen])


def field_text(field: dict[str, Any]) -> str:
    sizes = [str(size) if size is not None else "?" for size in field["size"]]
    return sizes[0] if len(set(sizes)) == 1 else " x ".join(sizes)


def test_index(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    text = INDEX.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    section, after = rest.split(END)
    wanted = "\n".join(index(capsys)) + "\n\n"
    if request.config.getoption("--update-golden"):
        INDEX.write_text(f"{before}{BEGIN}{wanted}{END}{after}", encoding="utf-8")
    else:
        assert section == wanted, "run `make golden` and read the diff"


def test_every_idea_has_a_page() -> None:
    ideas = {path.stem for path in zoo.files() if path.parent.name == "gallery"}
    assert ideas <= {page.stem for page in PAGES}


@pytest.mark.dear
@pytest.mark.parametrize("path", zoo.files(), ids=lambda path: path.stem)
def test_files_are_formatted(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert format_source(text) == text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_quotes_are_of_the_files(page: Path) -> None:
    assert not quoted_nowhere(page.read_text(encoding="utf-8"))


@pytest.mark.dear
@pytest.mark.drawn(share=8)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    check_page(page, request, slow=False)


LONG = [page for page in PAGES if any("slow" in b.flags for b in blocks(page.read_text()))]


@pytest.mark.slow
@pytest.mark.parametrize("page", LONG, ids=lambda page: page.stem)
def test_page_with_what_takes_long(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    check_page(page, request, slow=True)
