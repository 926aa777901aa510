"""How soon a change is answered, on the zoo's longest text and on its largest."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from lsprotocol import types

from convdsl import zoo
from lsp.client import Editor, position

TOO_SLOW = 2.0
"""Seconds, at the best of some changes: ten times what it takes, for machines that are busy."""


@pytest.mark.dear
@pytest.mark.parametrize("put", ["\n    assert 1 == 1", "\n    # said"])
@pytest.mark.parametrize("name", ["yolov8.cnn", "efficientnet.cnn"])
def test_findings_follow_a_change(
    name: str, put: str, record_property: Callable[[str, object], None]
) -> None:
    """A line is put into a block that all models of the file use, and taken out again."""
    folder = zoo.folder()
    assert folder is not None
    text = (folder / name).read_text(encoding="utf-8")
    editor = Editor()
    editor.start()
    uri = editor.open(folder / name, text)
    assert editor.settle(uri) == []
    at = position(text, "{\n", 1)
    after = types.Position(at.line + 1, len(put) - 1)
    first: list[float] = []
    last: list[float] = []
    for step in range(4):
        begun = time.perf_counter()
        change = ("", types.Range(at, after)) if step % 2 else (put, types.Range(at, at))
        version = editor.change(uri, *change)
        assert editor.settle(uri) == []
        told = [moment for _, of, moment in editor.times if of == version]
        first.append(told[0] - begun)
        last.append(told[-1] - begun)
    assert editor.stop() == 0
    shown = " / ".join(
        f"{sorted(times)[len(times) // 2] * 1e3:.0f}, {max(times) * 1e3:.0f} ms"
        for times in (first, last)
    )
    record_property("measured", f"{name}: first findings, all (median, greatest): {shown}")
    assert min(first) < TOO_SLOW
