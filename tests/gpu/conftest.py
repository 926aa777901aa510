"""The suite for a machine that has a card: `make test-gpu`. Where there is none it fails, with one
sentence, and skips nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from convdsl.diagnostics import InputError
from convdsl.runtime.cuda.card import find_card


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
