"""A client that never rests: prefixes, edits and questions through the protocol."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from lsprotocol import types

from convdsl.lsp.positions import Lines, edited
from lsp.client import Editor, position
from lsp.test_server import BLOCKS, NET


@pytest.mark.dear
def test_everything_at_once(tmp_path: Path) -> None:
    """Changes of ranges one upon the other, none waited for, with questions between; in the end the
    server has the text that the client has, and says of it what it says of a fresh one."""
    folder = tmp_path.resolve()
    (folder / "blocks.cnn").write_text(BLOCKS, encoding="utf-8")
    editor = Editor()
    editor.start(folder)
    draw = random.Random(1)
    uri = editor.open(folder / "net.cnn", NET)
    lines = Lines(NET)
    for step in range(150):
        text = lines.text
        at = draw.randrange(len(text) + 1)
        start, end = lines.position(at), lines.position(at + draw.choice((0, 0, 1, 7)))
        put = draw.choice(("", "(", "}", "\r\n", "𝄞é", "conv", " -> relu", '"', "#"))
        where = types.Range(start, end)
        editor.change(uri, put, where)
        lines = edited(lines, types.TextDocumentContentChangePartial(where, put))
        if step % 5 == 0:
            place = types.Position(draw.randrange(12), draw.randrange(40))
            editor.complete(uri, place)
            editor.hover(uri, place)
            editor.hints(uri)
            editor.symbols(uri)
    last = editor.settle(uri)
    other = editor.open(folder / "other.cnn", lines.text)
    assert [(d.code, d.range) for d in editor.settle(other)] == [(d.code, d.range) for d in last]
    editor.change(uri, NET)
    assert editor.settle(uri) == []
    told = editor.hover(uri, position(NET, "linear", 2))
    assert told is not None
    assert "81,930 parameters" in told
    assert editor.said == []
    assert editor.stop() == 0


@pytest.mark.dear
def test_typed_letter_by_letter(tmp_path: Path) -> None:
    editor = Editor()
    editor.start(tmp_path)
    text = NET.replace('use "blocks.cnn": unit', 'use "zoo:resnet.cnn": basic as unit')
    text = text.replace("16, stride = 2", "3").replace("unit(32)", "unit(3)")
    uri = editor.open(tmp_path.resolve() / "net.cnn", "")
    lines = Lines("")
    for letter in text:
        end = lines.position(len(lines.text))
        editor.change(uri, letter, types.Range(end, end))
        lines = Lines(lines.text + letter)
        if letter == ">":
            assert editor.complete(uri, lines.position(len(lines.text)))
    assert editor.settle(uri) == []
    assert editor.said == []
    assert editor.stop() == 0
