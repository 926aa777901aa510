"""docs/contributing: its steps are taken in a copy of the package, and what they add works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import blocks, take_steps

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "contributing").glob("*.md"))
COPIED = ("convdsl", "grammar", "examples", "tests")

RUN = """
import sys
from pathlib import Path
from pages import run
import convdsl
assert Path(convdsl.__file__).is_relative_to(sys.argv[2])
found = run(Path(sys.argv[1]).read_text(encoding="utf-8"))[1]
sys.exit("\\n".join(found) or 0)
"""


class Copy:
    """A copy of the package and its tests, in which the steps of a page have been taken."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page, self.root = page, folder / "copy"
        ignored = shutil.ignore_patterns("__pycache__", "golden")
        for name in COPIED:
            shutil.copytree(ROOT / name, self.root / name, ignore=ignored)
        take_steps(page.read_text(encoding="utf-8"), self.root)
        self.work = folder / "work"
        self.work.mkdir()

    def run(self, *arguments: str) -> None:
        paths = os.pathsep.join(str(path) for path in (self.root, self.root / "tests"))
        cache = str(self.work / "cache")
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.work,
            env={**os.environ, "PYTHONPATH": paths, "XDG_CACHE_HOME": cache},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_steps_lead_there(page: Path, tmp_path: Path) -> None:
    copy = Copy(page, tmp_path)
    copy.run("-c", RUN, str(page), str(copy.root))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_adds_was_not_there(page: Path) -> None:
    added = [b.file for b in blocks(page.read_text(encoding="utf-8")) if b.kind == "python"]
    files = [file for file in added if file is not None]
    assert files
    assert not any((ROOT / file).exists() for file in files)


@pytest.mark.slow
def test_the_operator_passes_the_tests_of_all_operators(tmp_path: Path) -> None:
    copy = Copy(ROOT / "docs" / "contributing" / "operator.md", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", copy.root)
    tests = [str(copy.root / "tests" / f"test_every_{what}.py") for what in ("op", "gradient")]
    copy.run("-m", "pytest", "-q", "--rootdir", str(copy.root), *tests, "-k", "isru")


def test_steps_that_fit_nowhere_or_twice_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\nx = 1\n")
    for step in (" x = 1\n+y = 2\n", " z = 1\n+y = 2\n"):
        with pytest.raises(AssertionError, match=r"fits [02] places"):
            take_steps(f"```diff a.py\n{step}```\n", tmp_path)
    take_steps("```diff a.py\n x = 1\n-x = 1\n+y = 2\n```\n", tmp_path)
    assert (tmp_path / "a.py").read_text() == "x = 1\ny = 2\n"
