"""docs/site: what Sphinx is given. tests/around builds it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from convdsl.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "source"
    command = [sys.executable, str(ROOT / "docs" / "site" / "stage.py"), str(folder)]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(ROOT)})
    return folder


@pytest.mark.dear
def test_links_stay_within_the_site(staged: Path) -> None:
    for page in staged.rglob("*.md"):
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert (page.parent / target).resolve().is_relative_to(staged), (page, target)
                assert (page.parent / target).is_file(), (page, target)


def test_every_page_is_in_the_list(staged: Path) -> None:
    front = (staged / "index.md").read_text(encoding="utf-8")
    lists = "".join(re.findall(r"```{toctree}.*?```", front, re.DOTALL)).split()
    assert {page.name for page in staged.glob("*.md")} - set(lists) == {"index.md"}
    for heading in re.findall(r"^## (.*)", (ROOT / "docs" / "README.md").read_text(), re.MULTILINE):
        assert f":caption: {heading}\n" in front


def test_every_command_has_its_options(staged: Path) -> None:
    text = (staged / "commands.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"\n## `convdsl {name}`\n" in text
        assert f"    convdsl {name} " in text
    assert text.count("| `-h, --help` |") == 1 + len(COMMANDS)
