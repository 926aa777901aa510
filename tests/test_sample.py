"""What a commit draws: something of everything, and in time all of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import sample


class _Item:
    """A test as far as drawing looks at it."""

    def __init__(self, nodeid: str, *marks: str, share: int = 0) -> None:
        self.nodeid = nodeid
        self._marks = marks
        self.kwargs = {"share": share} if share else {}

    def get_closest_marker(self, name: str) -> object:
        return self if name in self._marks else None


def items() -> list[Any]:
    dear = [
        _Item(f"tests/{folder}/test_a.py::test_{number}[{case}]", "dear")
        for folder, count in (("ops", 13), ("cli", 1))
        for number in range(count)
        for case in range(3)
    ]
    return [*dear, _Item("tests/ops/test_a.py::test_cheap")]


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


class _Function(_Item):
    """A function with parameters, marked as a whole."""

    own_markers: tuple[object, ...] = ()


def test_cases_are_drawn_before_they_are_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is what would be left of the tests; marks of single cases draw apart."""
    monkeypatch.setattr(sample, "_commit", lambda: "a")
    function = _Function("tests/a.py::test_b", "drawn")
    function.kwargs = {"share": 7}
    calls = [SimpleNamespace(id=f"{number}", marks=()) for number in range(50)]
    metafunc = SimpleNamespace(definition=function, _calls=list(calls))
    sample.draw_cases(cast("Any", metafunc))
    found = {f"tests/a.py::test_b[{call.id}]" for call in metafunc._calls}
    tests = [_Function(f"tests/a.py::test_b[{call.id}]", "drawn") for call in calls]
    for test in tests:
        vars(test).update(kwargs=function.kwargs, callspec=None)
    left = sample.sampled(cast("Any", tests), "drawn")
    assert len(found) == 8
    assert found == {test.nodeid for test in tests if test not in left}
    mark = SimpleNamespace(name="drawn", kwargs={})
    some = [SimpleNamespace(id=f"{n}", marks=(mark,) if n else ()) for n in range(15)]
    metafunc = SimpleNamespace(definition=_Function("tests/a.py::test_c"), _calls=some)
    sample.draw_cases(cast("Any", metafunc))
    assert len(metafunc._calls) == 2
    assert metafunc._calls[0].id == "0"


def test_of_what_is_dear_cases_are_drawn_too() -> None:
    """One in four, of those that are slow and of the others; with `drawn`, as that says."""
    slow = SimpleNamespace(name="slow", kwargs={})
    cases = [SimpleNamespace(id=f"{n}", marks=(slow,) if n < 7 else ()) for n in range(16)]

    def left(*marks: str, share: int = 0) -> list[bool]:
        function = _Function("tests/a.py::test_b", *marks, share=share)
        metafunc = SimpleNamespace(definition=function, _calls=list(cases))
        sample.draw_cases(cast("Any", metafunc))
        return [bool(call.marks) for call in metafunc._calls]

    assert left("dear") == [True] * 2 + [False] * 3
    assert left("dear", "drawn", share=9) == [True, False]
    assert len(left("slow")) == 16


def test_shares_and_slow_functions_are_drawn_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in twelve, or as the mark says; what is slow takes nobody's place."""
    groups = {"a": (("dear",), 0), "b": (("dear",), 4), "c": (("dear", "slow"), 0)}
    functions = [
        _Item(f"tests/ops/test_{group}.py::test_{number}", *marks, share=share)
        for group, (marks, share) in groups.items()
        for number in range(24)
    ]
    for commit in map(str, range(20)):
        monkeypatch.setattr(sample, "_commit", lambda commit=commit: commit)
        left = {
            cast("_Item", item).nodeid for item in sample.sampled(cast("Any", functions), "dear")
        }
        found = [item.nodeid[15] for item in functions if item.nodeid not in left]
        assert found == list("aabbbbbbcc")
