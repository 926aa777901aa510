"""Pages of docs/ are run: what their commands and their Python print is what they show."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import blocks, check_page, wrong_commands

DOCS = Path(__file__).parents[2] / "docs"
RUN = {"console", "python"}
PAGES = [
    page
    for page in sorted(DOCS.glob("*.md"))
    if any(block.kind in RUN for block in blocks(page.read_text(encoding="utf-8")))
]
LONG = [
    page
    for page in PAGES
    if any("slow" in block.flags for block in blocks(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    check_page(page, request, slow=False)


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


EVERY = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("gallery/*.md"))]


@pytest.mark.parametrize("page", EVERY, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_commands_that_are_not_run_could_be(page: Path) -> None:
    assert not wrong_commands(page.read_text(encoding="utf-8"))


def test_wrong_commands_are_found() -> None:
    page = "```\nconvdsl report net.cnn --dept 1  # no such option\nconvdsl chekc x.cnn\n```\n"
    assert len(wrong_commands(page)) == 2
    right = "```sh\nconvdsl report \\\n   net.cnn --depth 1 > out.txt\n```\n"
    assert not wrong_commands(right)
    assert not wrong_commands("```\nerror: convdsl is no module\n```\n")
