"""Colours, symbols and folds: of every text, whole or broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convdsl import zoo
from convdsl.editing.outline import folds, outline
from convdsl.editing.project import Project
from convdsl.editing.symbols import Kind
from convdsl.editing.view import Knowledge, View
from convdsl.editing.words import MODIFIERS, TYPES, colours, words
from convdsl.syntax.parser import tokens
from editing.texts import analysed, view

NET = """# One.
# Two.
block unit(width) {
    conv(width, 3x3)
}
model net(classes = 10) {
    input image: f32[N, 3, 32, 32]
    for i in range(2) {
        image -> unit(4) as "u{i}"
    }
    y = image -> linear(
        classes,
        bias = false
    )
    y -> output logits
}
train net { epochs = 3 }
"""


@pytest.mark.parametrize("place", zoo.files()[::4], ids=lambda place: place.stem)
def test_words_are_those_of_the_parser(place: Path) -> None:
    text = place.read_text(encoding="utf-8")
    known = {(start, end) for kind, start, end in tokens(text) if kind != "_NL"}
    found = {(w.start, w.end) for w in words(text) if w.kind != "comment"}
    assert found == known


@pytest.mark.dear
@pytest.mark.parametrize("place", zoo.files()[::7], ids=lambda place: place.stem)
def test_colours_are_in_order_and_of_known_kinds(place: Path) -> None:
    shown = view(place)
    end = 0
    for word in colours(shown):
        assert word.start >= end
        assert word.end > word.start
        assert word.type in TYPES
        assert set(word.modifiers) <= set(MODIFIERS)
        assert "\n" not in shown.text[word.start : word.end]
        end = word.end


def test_colours_say_what_names_are(tmp_path: Path) -> None:
    shown = view(tmp_path / "net.cnn", NET)
    found = {(NET[w.start : w.end], w.type, *w.modifiers) for w in colours(shown)}
    assert ("unit", "function", "declaration") in found
    assert ("unit", "function") in found
    assert ("net", "class", "declaration") in found
    assert ("width", "parameter") in found
    assert ("linear", "method", "defaultLibrary") in found
    assert ("bias", "property") in found
    assert ("N", "type", "declaration") in found
    assert ("i", "variable") in found  # inside a text
    assert ("# One.", "comment") in found
    assert ("3x3", "number") in found
    part = list(colours(shown, NET.index("model"), NET.index("for i")))
    assert {NET[w.start : w.end] for w in part} >= {"model", "net", "image", "f32"}
    assert all(w.start >= NET.index("model") - 1 for w in part)


def test_the_outline_has_what_is_defined(tmp_path: Path) -> None:
    shown = view(tmp_path / "net.cnn", NET)
    unit, net, train = outline(shown)
    assert (unit.name, unit.kind, unit.detail) == ("unit", Kind.BLOCK, "(width)")
    assert NET[slice(*unit.whole)].startswith("block unit")
    assert NET[slice(*net.selected)] == "net"
    inside = [(entry.name, entry.kind) for entry in net.inside]
    assert ("image", Kind.INPUT) in inside
    assert ("logits", Kind.PART) in inside
    assert [entry.name for entry in train.inside] == ["epochs"]
    for entry in (unit, net, *unit.inside, *net.inside):
        assert entry.whole[0] <= entry.selected[0] <= entry.selected[1] <= entry.whole[1]


def test_folds_are_brackets_and_comments() -> None:
    found = [(f.first, f.last, f.is_comment) for f in folds(NET)]
    assert (0, 1, True) in found
    assert (2, 3, False) in found
    assert (5, 14, False) in found
    assert (7, 8, False) in found
    assert (10, 12, False) in found


def test_what_is_broken_keeps_its_outline(tmp_path: Path) -> None:
    good = analysed(tmp_path / "net.cnn", NET)
    broken = NET.replace("classes,\n", "classes,,\n")
    shown = View(broken, Knowledge(Project(zoo.folder()), good))
    assert [entry.name for entry in outline(shown)] == ["unit", "net", "train net"]
    assert any(w.type == "function" for w in colours(shown))
    assert folds(broken) == folds(NET)


@given(st.text(alphabet='ab {}()[]#"\\\n->=0x9.é𝄞', max_size=80))
def test_any_text_has_words(text: str) -> None:
    end = 0
    for word in words(text):
        assert text[word.start : word.end] == word.text
        assert word.start >= end
        end = word.end
    folds(text)
