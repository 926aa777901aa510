"""docs/serving.md is run with a server; docs/batch_inference.md by tests/around, which has the
engines."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import run
from serving.conftest import command

from convdsl.cli import main

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.dear
def test_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a server as the page starts it, on another port."""
    monkeypatch.chdir(tmp_path)
    assert main(["compile", "lenet5", "--weights", "random:0", "-o", "lenet5.cdsl"]) == 0
    page = (DOCS / "serving.md").read_text(encoding="utf-8").replace("python elsewhere", "python")
    with command("lenet5.cdsl", folder=tmp_path) as (address, _):
        assert not run(page.replace("http://127.0.0.1:8000", address))[1]
