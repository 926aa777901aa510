"""docs/pictures.md is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import run

PAGE = Path(__file__).parents[2] / "docs" / "pictures.md"


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_page(slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not run(PAGE.read_text(encoding="utf-8"), slow)[1]
