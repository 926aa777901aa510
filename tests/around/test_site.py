"""The documentation's site: built without a warning, whole, and of use without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from convdsl.cli.app import COMMANDS
from convdsl.ops import OPERATORS

ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "docs" / "site"


class Read(HTMLParser):
    """Where a page leads, what places it has, and what it loads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.loads: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif "src" in given or (tag == "link" and given.get("rel") in ("stylesheet", "icon")):
            self.loads.append(given.get("src") or given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    source, built = folder / "source", folder / "html"
    subprocess.run([sys.executable, SETTINGS / "stage.py", source], check=True)
    said = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going", "-j", "2"),
            *("-b", "html", "-c", SETTINGS, source, built),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert said.stderr == ""
    return built


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Read]:
    return {page: Read(page) for page in site.rglob("*.html")}


def test_every_link_within_leads_somewhere(pages: dict[Path, Read]) -> None:
    lost: list[str] = []
    for page, read in pages.items():
        for link in read.links:
            target, _, place = link.partition("#")
            if "://" in target or target.startswith("mailto:"):
                continue
            there = (page.parent / unquote(target)).resolve() if target else page
            places = pages[there].places if there in pages else set()
            if not there.is_file() or (place and there in pages and unquote(place) not in places):
                lost.append(f"{page.name}: {link}")
    assert lost == []


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Read]) -> None:
    for page, read in pages.items():
        for target in read.loads:
            assert "//" not in target, f"{page.name} loads {target}"
            assert (page.parent / target.partition("?")[0]).is_file(), f"{page.name}: {target}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?https?:", sheet.read_text(encoding="utf-8"))


def test_every_page_of_docs_is_there(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        if not {"site", "editors"} & set(page.parts):
            assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file(), page
    front = Read(site / "index.html")
    for page in (ROOT / "docs").glob("*.md"):
        assert f"{page.stem}.html" in front.links, page.name


def test_every_operator_and_command_has_a_place(site: Path) -> None:
    assert {op.name.replace("_", "-") for op in OPERATORS} <= {
        place.replace("_", "-") for place in Read(site / "operators.html").places
    }
    text = (site / "commands.html").read_text(encoding="utf-8")
    places = Read(site / "commands.html").places
    for name in COMMANDS:
        assert f"convdsl-{name}" in places
    assert "--print-completion" in text
    for option in ("--set NAME=VALUE", "--depth D", "--out"):
        assert option in re.sub(r"<[^>]*>", "", text), option


def test_the_python_interface_has_its_docstrings(site: Path) -> None:
    import convdsl

    read = Read(site / "python.html")
    for name in convdsl.__all__:
        if name != "__version__":
            assert f"convdsl.{name}" in read.places, name
    text = re.sub(r"<[^>]*>", "", (site / "python.html").read_text(encoding="utf-8"))
    assert "A model from a path" in text


def test_search_knows_words_of_every_kind(site: Path) -> None:
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    for word in ("deform_conv", "draw_curves", "receptive", "fp16", "winograd"):
        assert word in index, word


def test_the_notebook_is_shown_with_its_outputs(site: Path) -> None:
    text = (site / "files" / "examples" / "notebook.ipynb.html").read_text(encoding="utf-8")
    assert '<div class="convdsl">' in text
    assert "error[E0501]" in text
