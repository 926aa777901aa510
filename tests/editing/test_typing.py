"""Texts as they come from hands, typed letter by letter and torn: there is always an answer."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from convdsl import zoo
from convdsl.diagnostics import InputError
from convdsl.editing.analysis import Analysis, analyse
from convdsl.editing.completion import call_at, complete
from convdsl.editing.hover import hover
from convdsl.editing.mending import mendings
from convdsl.editing.outline import folds, outline
from convdsl.editing.project import Project
from convdsl.editing.references import definitions, references, rename
from convdsl.editing.shapes import hints
from convdsl.editing.view import Knowledge, View
from convdsl.editing.words import colours

NET = """convdsl 1
use "zoo:resnet.cnn": basic as unit
# größer 𝄞
block gate(width, act = relu) { in * (in -> conv(width, 1x1) -> act as "g{width}") }
model net(classes = 10) {
    input image: f32[N, 3, H, 32] where H % 4 == 0
    let wide = 2 * 4
    y = image -> conv(wide, 3x3, stride = 2) -> unit(wide) -> gate(wide, act = sigmoid)
    for w in [8, 16] { y = y -> seq "b{w}" { conv(w, 3x3) -> bn } }
    y -> avgpool(global) -> flatten -> linear(classes) -> output logits
}
train net {
    loss = cross_entropy(logits, label)
    optimizer = sgd(lr = 0.1)
}
"""
SIGNS = (
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    '"',
    "\n",
    "->",
    "=",
    ",",
    "#",
    "𝄞",
    "\r",
    "\0",
    "for ",
    "3x",
)


class Typist:
    """Asks everything of a text after each change, with what was known of earlier ones."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.project = Project(zoo.folder())
        self.latest: Analysis | None = None
        self.good: Analysis | None = None

    def types(self, text: str, offset: int, *, all: bool = False) -> None:
        self.project.set_text(self.place, text)
        for found in analyse(self.project, self.place, self.good or self.latest):
            self.latest = found
            if found.reading.whole and found.complete:
                self.good = found
        assert self.latest is not None
        self.ask(text, offset, self.good or self.latest, all=all)

    def ask(self, text: str, offset: int, known: Analysis, *, all: bool) -> None:
        view = View(text, Knowledge(self.project, known))
        for proposal in complete(view, self.project.parsed(self.place, text), offset):
            assert 0 <= proposal.start <= offset
        call_at(view, offset)
        found = hover(view, offset)
        assert found is None or 0 <= found.start <= found.end <= len(text)
        for location in definitions(view, offset):
            assert location.start <= location.end
        if not all:
            return
        for hint in hints(view, 0, len(text)):
            assert 0 <= hint.offset <= len(text)
        end = 0
        for word in colours(view):
            assert end <= word.start < word.end <= len(text)
            end = word.end
        for entry in outline(view):
            assert 0 <= entry.whole[0] <= entry.whole[1] <= len(text)
        folds(text)
        references(view, offset, ())
        with contextlib.suppress(InputError):
            rename(view, offset, "another", ())
        assert self.latest is not None
        for finding in self.latest.findings[:1]:
            mendings(self.project, self.latest, finding)


@pytest.mark.dear
def test_every_prefix(tmp_path: Path) -> None:
    """The text as it is typed."""
    typist = Typist(tmp_path.resolve() / "net.cnn")
    for length in range(len(NET) + 1):
        typist.types(NET[:length], length, all=length % 23 == 0)
    assert typist.latest is not None
    assert typist.latest.findings == ()


@pytest.mark.dear
def test_every_place_of_a_text_without_a_piece(tmp_path: Path) -> None:
    """A hole wanders through the text; the last good analysis is of the whole."""
    typist = Typist(tmp_path.resolve() / "net.cnn")
    typist.types(NET, 0)
    assert typist.good is not None
    for start in range(0, len(NET), 5):
        text = NET[:start] + NET[start + 7 :]
        typist.ask(text, start, typist.good, all=start % 95 == 0)


@pytest.mark.dear
@pytest.mark.parametrize("seed", range(3))
def test_random_edits(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    typist = Typist(tmp_path.resolve() / "net.cnn")
    text = NET
    for step in range(60):
        at = draw.randrange(len(text) + 1)
        if draw.random() < 0.5:
            text = text[:at] + draw.choice(SIGNS) + text[at:]
        else:
            text = text[:at] + text[at + draw.randrange(6) :]
        typist.types(text, draw.randrange(len(text) + 1), all=step % 5 == 0)
        if step % 20 == 19:
            text = NET


@pytest.mark.dear
def test_texts_at_the_limits(tmp_path: Path) -> None:
    typist = Typist(tmp_path.resolve() / "net.cnn")
    deep = f"let a = {'(' * 199}1{')' * 199}\n"
    for text in (
        "",
        "\ufeffconvdsl 1\r\nblock b { relu }\r\n",
        deep,
        deep.replace("(", "["),
        "(" * 5000,
        '"' * 301,
        "# " + "x" * 2_000_000,
        "let a = 1\n" * 3000,
        "block b { b }\n" * 40,
        "block b { in -> b }\nmodel m { input x: f32[N]\n x -> b }\n",
        "model m { input x: f32[N]\n for i in range(1000000) { x -> relu } }\n",
        'use "../../etc/passwd": a\nuse "/dev/zero": b\nuse "zoo:../x": c\n',
        "\ud800",
    ):
        typist.types(text, min(len(text), 20), all=len(text) < 10_000)
