"""The suite for a machine that has a card: `make test-gpu`. Where there is none it fails, with one
sentence, and skips nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from convdsl.diagnostics import InputError
from convdsl.runtime.cuda.card import cupy, find_card
from convdsl.runtime.cuda.program import CHECK

TOLD = os.environ.get("CONVDSL_TOLD", "")
"""A file for what happens to each test, as it happens: a run that is cut off leaves what it has."""


def tell(name: str, outcome: str) -> None:
    with Path(TOLD).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"name": name, "outcome": outcome}) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs an NVIDIA card (make test-gpu)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.gpu)
    if not here:
        return
    try:
        find_card()
    except InputError as error:
        pytest.exit(f"the gpu suite needs a card: {error}", returncode=1)
    if os.environ.get(CHECK):  # each array alone in its memory, so that memcheck sees its ends
        cupy().cuda.set_allocator(None)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Every test waits, once: of several processes the first one tells."""
    if TOLD and os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        for item in session.items:
            tell(item.nodeid, "waiting")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In the process that hears of all."""
    here = TOLD and "PYTEST_XDIST_WORKER" not in os.environ
    if here and (report.when == "call" or report.outcome != "passed"):
        tell(report.nodeid, report.outcome)
