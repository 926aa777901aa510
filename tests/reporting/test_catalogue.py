"""What is listed of the zoo: exact whatever is open, quick the second time, never out of date."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import convdsl
from convdsl import zoo
from convdsl.analysis.report import analyse
from convdsl.cli import main
from convdsl.reporting import catalogue as room

OPEN = """convdsl 1
use "parts/block.cnn": widened

# Any size. Somebody 2001, arXiv:0101.00001.
model any_size(widths = [2, 4], deep = 1) {
    input x: f32[N, 3, H, W]
    x -> widened(widths[1]) -> output y
}

# Two lengths, and no batch. Somebody 2001.
model two_lengths {
    input a: f32[S, 5]
    input b: f32[5, T]
    output y = matmul(a, b)
}

# Nothing open at all. Somebody 2001.
model closed {
    input x: f32[1, 2, 6]
    x -> conv(2, 3) -> output y
}
"""
PART = """convdsl 1
block widened(width) { in -> conv(width, 3x3) }
"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of one file in its gallery, which uses another one, and a cache of its own."""
    gallery = tmp_path / "examples" / "gallery"
    (gallery / "parts").mkdir(parents=True)
    (gallery / "open.cnn").write_text(OPEN)
    (gallery / "parts" / "block.cnn").write_text(PART)
    (tmp_path / "examples" / "none.cnn").write_text("convdsl 1\nblock none { in -> relu }\n")
    monkeypatch.setattr(zoo, "FOLDERS", (tmp_path / "examples",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    zoo.names.cache_clear()
    yield gallery
    zoo.names.cache_clear()


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    zoo.names.cache_clear()
    assert main(["zoo", "--format", "json"]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def test_any_size_may_be_open(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys)
    assert [row["params"] for row in rows.values()] == [112, 0, 14]
    assert [row["macs"] for row in rows.values()] == ["108*H*W", "5*T*S", 72]
    assert rows["any_size"]["receptive_field"]["x"]["size"] == [3, 3]
    assert rows["any_size"]["parameters"] == ["widths = [2, 4]", "deep = 1"]
    for row in rows.values():
        keys = ["name", "title", "paper", "params", "macs", "receptive_field", "parameters"]
        assert list(row) == keys
    assert main(["zoo"]) == 0
    table = capsys.readouterr().out
    assert "108*H*W" in table
    assert [line.split()[0] for line in table.splitlines()[2:]] == list(rows)


def test_it_is_kept(
    shelf: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = listed(capsys)
    monkeypatch.setattr(room, "_figures", lambda name: pytest.fail(f"{name} is loaded again"))
    assert listed(capsys) == first


def test_what_was_changed_is_listed_anew(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file itself, and one that it uses."""
    listed(capsys)
    file, part = shelf / "open.cnn", shelf / "parts" / "block.cnn"
    file.write_text(OPEN.replace("conv(2, 3)", "conv(2, 5)"))
    assert listed(capsys)["closed"]["params"] == 22
    part.write_text(PART.replace("3x3", "5x5"))
    assert listed(capsys)["any_size"]["params"] == 304


def test_a_damaged_entry_is_made_again(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = listed(capsys)
    entries = sorted((tmp_path / "cache" / "convdsl" / "zoo").iterdir())
    assert len(entries) == len(first)
    entries[0].write_bytes(entries[0].read_bytes()[:-9])
    assert listed(capsys) == first


@pytest.mark.dear(share=4)
def test_nothing_is_loaded_for_it(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No parser, no operators, no arrays: these are what takes time."""
    first = listed(capsys)
    code = """if True:
        import sys
        from pathlib import Path
        from convdsl import zoo
        from convdsl.cli import main
        zoo.FOLDERS = (Path(sys.argv[1]),)
        assert main(["zoo", "--format", sys.argv[2]]) == 0
        heavy = {"numpy", "lark", "networkx", "llvmlite", "convdsl.ops", "convdsl.elaborate"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    for format in ("json", "table", "csv"):
        told = subprocess.run(
            [sys.executable, "-c", code, str(shelf.parent), format], capture_output=True, text=True
        )
        assert told.returncode == 0, told.stderr
        assert all(name in told.stdout for name in first)


@pytest.mark.dear
@pytest.mark.parametrize("name", ["lenet5", "non_local", "swin_stage", "gcn", "unet_small"])
def test_it_is_what_reports_say(name: str) -> None:
    (row,) = room.catalogue([zoo.names()[name]])
    totals = analyse(convdsl.load(name), bindings={"N": 1} if name != "gcn" else None).totals
    assert (row["params"], row["macs"]) == (totals["params"], totals["macs"])
