"""docs/serving.md and the first part of docs/batch_inference.md are run; the rest is by
tests/around, which has the engines."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import run
from serving.conftest import command

from convdsl.cli import main

DOCS = Path(__file__).parents[2] / "docs"


def test_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a server as the page starts it, on another port."""
    monkeypatch.chdir(tmp_path)
    assert main(["compile", "lenet5", "--weights", "random:0", "-o", "lenet5.cdsl"]) == 0
    page = (DOCS / "serving.md").read_text(encoding="utf-8")
    with command("lenet5.cdsl", folder=tmp_path) as (address, _):
        assert not run(page.replace("http://127.0.0.1:8000", address))[1]


def test_batch_inference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "batch_inference.md").read_text(encoding="utf-8")
    assert not run(page.partition("## Ray Data")[0])[1]
