"""What a commit draws: something of everything, and in time all of it."""

from __future__ import annotations

from typing import Any, cast

import pytest
import sample


class _Item:
    """A test as far as drawing looks at it."""

    def __init__(self, nodeid: str, mark: str) -> None:
        self.nodeid = nodeid
        self._mark = mark

    def get_closest_marker(self, name: str) -> object:
        return self if name == self._mark else None


def items() -> list[Any]:
    dear = [
        _Item(f"tests/{folder}/test_a.py::test_{number}[{case}]", "dear")
        for folder, count in (("ops", 9), ("cli", 1))
        for number in range(count)
        for case in range(3)
    ]
    return [*dear, _Item("tests/ops/test_a.py::test_cheap", "")]


def kept(monkeypatch: pytest.MonkeyPatch, commit: str) -> set[str]:
    monkeypatch.setattr(sample, "_commit", lambda: commit)
    given = items()
    left = sample.sampled(given, "dear")
    return {cast("_Item", item).nodeid for item in given if item not in left}


def test_dear_functions_are_drawn_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    found = kept(monkeypatch, "a")
    functions = {name.partition("[")[0] for name in found}
    assert "tests/ops/test_a.py::test_cheap" in found
    assert "tests/cli/test_a.py::test_0" in functions, "of each folder at least one"
    assert len([name for name in functions if "/ops/" in name and "cheap" not in name]) == 2
    assert len(found) == 2 * 3 + 3 + 1, "with all their cases"
    assert kept(monkeypatch, "a") == found


def test_over_some_commits_all_of_them_run(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = {item.nodeid for item in items()}
    assert set().union(*(kept(monkeypatch, str(commit)) for commit in range(80))) == everything
