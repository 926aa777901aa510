"""The documentation as Sphinx reads it: the pages of docs/, and what is made of the code.

    python docs/site/stage.py FOLDER

Pages stay as GitHub shows them. Here links that leave docs/ lead to pages with the text of the
file, and the front page gets the list of pages, which is that of docs/README.md.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
DOCS = HERE.parent
ROOT = DOCS.parent
sys.path.insert(0, str(HERE))

import notebook  # noqa: E402
import reference  # noqa: E402

LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
OTHERS = "files"
"""Where the pages of files outside of docs/ are."""

NO_PAGES = (HERE, DOCS / "editors")
"""Folders beside the pages that hold programs: what they have to say is of their own."""

MADE = {"Look up": ("commands.md", "python.rst")}
"""Pages that are made here, under the headings of docs/README.md."""

LANGUAGES = {".cnn": "convdsl", ".py": "python", ".toml": "toml", ".ini": "ini", ".json": "json"}


def stage(folder: Path) -> None:
    """Write all sources into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    ignored = shutil.ignore_patterns(*(part.name for part in NO_PAGES), "__pycache__")
    shutil.copytree(DOCS, folder, ignore=ignored)
    shutil.copy(ROOT / "README.md", folder / "index.md")
    shutil.copy(ROOT / "CHANGELOG.md", folder / "changes.md")
    homes = {folder / "index.md": ROOT, folder / "changes.md": ROOT}
    (folder / "commands.md").write_text("\n".join(reference.commands()), encoding="utf-8")
    (folder / "python.rst").write_text("\n".join(reference.python()), encoding="utf-8")
    made = Pages(folder)
    for page in sorted(folder.rglob("*.md")):
        home = homes.get(page, (DOCS / page.relative_to(folder)).parent)
        if page.name != "commands.md":
            made.link(page, home)
    add_lists(folder, made.files)


class Pages:
    """Pages of files that links lead to, made as they are met."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[Path, Path] = {}  # what stands outside, and its page

    def link(self, page: Path, home: Path) -> None:
        """Links of a page, whose text stood in the folder `home`, made to lead within the site."""

        def led(match: re.Match[str]) -> str:
            target = match[2]
            if "://" in target or target.startswith("mailto:"):
                return match[0]
            found = self.place((home / target).resolve())
            return f"{match[1]}{os.path.relpath(found, page.parent)}{match[3]}"

        text = page.read_text(encoding="utf-8")
        page.write_text(outside_of_code(LINK, led, text), encoding="utf-8")

    def place(self, path: Path) -> Path:
        """Where the site has a file or a folder. Raises FileNotFoundError."""
        if path == ROOT / "README.md":
            return self.folder / "index.md"
        if path == ROOT / "CHANGELOG.md":
            return self.folder / "changes.md"
        if path.is_relative_to(DOCS) and not any(map(path.is_relative_to, NO_PAGES)):
            staged = self.folder / path.relative_to(DOCS)
            return staged / "README.md" if path.is_dir() else staged
        if path not in self.files:
            self.files[path] = page = self.folder / OTHERS / f"{path.relative_to(ROOT)}.md"
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text("\n".join(self.shown(path, page)), encoding="utf-8")
        return self.files[path]

    def shown(self, path: Path, page: Path) -> Iterator[str]:
        yield f"# {path.relative_to(ROOT)}"
        yield ""
        if path.is_dir():
            names = sorted(p for p in path.iterdir() if p.suffix in (*LANGUAGES, ".md"))
            for inner in names:
                yield f"- [{inner.name}]({os.path.relpath(self.place(inner), page.parent)})"
        elif path.suffix == ".ipynb":
            yield from notebook.shown(path)
        else:
            text = path.read_text(encoding="utf-8")
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            yield f"{fence}{LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n{fence}"


def outside_of_code(pattern: re.Pattern[str], change: object, text: str) -> str:
    """Replace in all of a page but its fenced blocks."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [pattern.sub(change, part) for part in parts[::2]]  # type: ignore[call-overload]
    return "".join(parts)


def add_lists(folder: Path, files: dict[Path, Path]) -> None:
    """What comes after what: pages as docs/README.md lists them, by its headings, then those that
    are made, then those that it does not list."""
    front = folder / "index.md"
    listed: set[str] = set()
    for section in (folder / "README.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        pages = [str(Path(target)) for _, target, _ in LINK.findall(text) if "://" not in target]
        pages = [page for page in dict.fromkeys(pages) if page.endswith(".md")]
        listed.update(pages)
        toctree(front, [*pages, *MADE.get(heading, ())], heading)
    made = {name for names in MADE.values() for name in names}
    rooms = ("gallery", "adr", "contributing", OTHERS)
    pages = (page.relative_to(folder) for page in folder.rglob("*.md"))
    found = {str(page) for page in pages if page.parts[0] not in rooms}
    others = sorted(found - listed - made - {front.name})
    toctree(front, [*others, f"{OTHERS}/README.md"], "More")
    for name, front in (
        ("gallery", "gallery/README.md"), ("adr", "adr/README.md"),
        ("contributing", "CONTRIBUTING.md"),
    ):  # fmt: skip
        pages = sorted(p for p in (folder / name).glob("*.md") if p.name != "README.md")
        within = (folder / front).parent
        toctree(folder / front, [os.path.relpath(page, within) for page in pages])
    shown = sorted(os.path.relpath(page, folder / OTHERS) for page in files.values())
    (folder / OTHERS / "README.md").write_text("# Files that pages name\n", encoding="utf-8")
    toctree(folder / OTHERS / "README.md", shown, hidden=False)


def toctree(page: Path, pages: list[str], caption: str = "", *, hidden: bool = True) -> None:
    """Say at the end of a page which ones follow it."""
    options = [":maxdepth: 1", *([":hidden:"] if hidden else [])]
    options += [f":caption: {caption}"] if caption else []
    lines = ["", "```{toctree}", *options, "", *pages, "```", ""]
    page.write_text(page.read_text(encoding="utf-8") + "\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    stage(Path(sys.argv[1]))
