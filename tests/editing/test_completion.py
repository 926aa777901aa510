"""What is proposed can be written there, and what can be written is proposed."""

from __future__ import annotations

from pathlib import Path

import pytest

from convdsl import zoo
from convdsl.editing.completion import Proposal, call_at, complete
from convdsl.editing.describing import of_operator
from convdsl.editing.project import Project
from convdsl.editing.symbols import Kind
from convdsl.editing.view import Knowledge, View
from convdsl.ops import SPELLINGS
from convdsl.syntax.parser import expected, tokens
from editing.texts import analysed, marked

NET = """convdsl 1
use "blocks.cnn": unit
block res(width, stride = 1) { conv(width, 3x3, stride) }
model net(classes = 10) {
    input image: f32[N, 3, 32, 32]
    let wide = 32
    y = image -> res(wide) -> unit(16)
    y -> flatten -> linear(classes) -> output logits
}
train {
    loss = cross_entropy
}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path.resolve()
    blocks = "# A unit.\nblock unit(width, act = relu) { conv(width, 3x3) -> act }\nlet wide = 64\n"
    (folder / "blocks.cnn").write_text(blocks)
    (folder / "parts").mkdir()
    (folder / "parts" / "more.cnn").write_text("block more { relu }\n")
    return Project(zoo.folder())


def proposals(project: Project, tmp_path: Path, text: str) -> dict[str, Proposal]:
    """By label, of the text with a mark; what was known before is of NET."""
    place = tmp_path.resolve() / "net.cnn"
    before = analysed(place, NET, project)
    plain, offset = marked(text)
    project.set_text(place, plain)
    shown = View(plain, Knowledge(project, before))
    found = complete(shown, project.parsed(place, plain), offset)
    return {proposal.label: proposal for proposal in sorted(found, key=lambda p: p.order)[::-1]}


def instead(words: str, new: str) -> str:
    assert words in NET
    return NET.replace(words, new, 1)


STAGE = "-> res(wide) -> unit(16)"


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(
    ("text", "some", "none"),
    [
        (instead(STAGE, "-> |"), ["conv", "res", "unit", "y", "if", "output"], ["model", "as"]),
        (instead(STAGE, "-> co|"), ["conv", "concat"], []),
        (instead(STAGE, "-> res(|"), ["width", "stride", "wide", "classes"], ["model"]),
        (instead(STAGE, "-> res(wide, |)"), ["width", "stride"], []),
        (instead(STAGE, "-> res(stride = 2, |)"), ["width"], ["stride"]),
        (instead(STAGE, "-> unit(4, act = |)"), ["relu", "wide"], ["width"]),
        (instead(STAGE, "-> conv(8, 3x3, pad = |)"), ["half", "same", "valid"], ["stride"]),
        (instead(STAGE, "-> conv(8, 3x3, |)"), ["pad", "bias", "weight"], []),
        (instead(STAGE, "-> relu as |"), [], ["conv", "as", "if"]),
        (instead("let wide = 32", "let wide = image.|"), ["channels", "height"], ["conv"]),
        (instead("let wide = 32", "let wide = rou|"), ["round", "round_to", "classes"], ["y"]),
        (instead("f32[N", "|[N"), ["f32", "bool"], ["conv"]),
        (instead("block res", "|block res"), ["block", "model", "use", "train"], ["conv", "if"]),
        (instead(": unit", ": |"), ["unit", "wide"], ["res", "conv"]),
        (instead(": unit", ": unit, |"), ["wide"], ["unit"]),
        (instead('"blocks.cnn"', '"|"'), ["blocks.cnn", "parts/", "zoo:resnet.cnn"], ["net.cnn"]),
        (instead('"blocks.cnn"', '"parts/|"'), ["parts/more.cnn"], ["blocks.cnn"]),
        (instead('"blocks.cnn"', '"zoo:|"'), ["zoo:resnet.cnn", "zoo:gallery/"], ["blocks.cnn"]),
        (instead('"blocks.cnn"', '"../|"'), [], ["net.cnn"]),
        (instead("loss = cross_entropy", "|"), ["loss", "optimizer", "epochs"], ["conv"]),
        (instead("loss = cross_entropy", "optimizer = |"), ["sgd", "adam"], ["epochs"]),
        (instead("loss = cross_entropy", "optimizer = sgd(|"), ["lr", "momentum"], ["epochs"]),
        (instead("loss = cross_entropy", "loss = cross_entropy(|"), ["logits"], ["epochs"]),
        (instead("block res", "preprocess image: |\nblock res"), ["resize", "normalize"], []),
        (instead("block res", "default |\nblock res"), ["conv", "bn"], ["if"]),
        (instead("let wide = 32", "# let wide = |"), [], ["classes", "conv"]),
        (instead("let wide = 32", 'let wide = "|"'), [], ["classes", "conv"]),
        ("|", ["model", "block", "use"], ["conv"]),
        ("model m {\n    input x: f32[N, 3, 8, 8]\n    x -> |", ["conv", "x"], ["model"]),
        ("block b(w) {\n    let z = 3\n    for i in range(w) { conv(|", ["z", "i", "w"], []),
        (") ] broken (\nmodel m {\n    input x: f32[N]\n    x -> |", ["relu", "x"], []),
    ],
    ids=range(31),
)
def test_proposals(
    project: Project, tmp_path: Path, text: str, some: list[str], none: list[str]
) -> None:
    found = proposals(project, tmp_path, text)
    assert [label for label in some if label not in found] == []
    assert [label for label in none if label in found] == []


def test_proposals_say_what_they_are(project: Project, tmp_path: Path) -> None:
    found = proposals(project, tmp_path, instead(STAGE, "-> |"))
    assert found["unit"].detail == "unit(width, act = relu)"
    assert "A unit." in found["unit"].doc
    assert found["unit"].snippet == "unit($0)"
    assert found["relu"].snippet == ""
    assert found["conv"].detail.startswith("conv(channels, kernel, stride = 1")
    assert "Convolution" in found["conv"].doc
    assert found["conv"].kind is Kind.OPERATOR
    assert set(SPELLINGS) <= set(found)


def test_what_is_proposed_for_a_word_takes_its_place(project: Project, tmp_path: Path) -> None:
    text = instead(STAGE, "-> con|")
    found = proposals(project, tmp_path, text)
    assert found["conv"].start == text.index("con|")
    text = instead('"blocks.cnn"', '"blo|"')
    assert proposals(project, tmp_path, text)["blocks.cnn"].start == text.index("blo|")


def test_signatures_of_the_call_around(project: Project, tmp_path: Path) -> None:
    place = tmp_path.resolve() / "net.cnn"
    before = analysed(place, NET, project)

    def at(new: str) -> tuple[str, int, str | None]:
        plain, offset = marked(instead(STAGE, new))
        found = call_at(View(plain, Knowledge(project, before)), offset)
        assert found is not None
        return found[1][0].label, found[0].position, found[0].keyword

    assert at("-> res(|")[0] == "res(width, stride = 1)"
    assert at("-> res(3, |")[1:] == (1, None)
    assert at("-> res(3, stride = |")[1:] == (1, "stride")
    assert at("-> res(conv(4, 3x3), width = max(2, 3), |")[0].startswith("res")
    assert at("-> conv(3, [3, |")[0].startswith("conv")
    assert at("-> conv(max(1, 2), |")[1] == 1


@pytest.mark.dear
def test_what_can_follow_is_what_parses() -> None:
    """Of every word of the zoo's texts the parser says before it that it can come."""
    for place in zoo.files()[::6]:
        text = place.read_text(encoding="utf-8")
        words = [word for word in tokens(text) if word[0] != "_NL"]
        for kind, start, _ in words[::11]:
            before = text[:start]
            if kind in ("RBRACE", "ARROW", "AS", "ELSE", "LBRACE", "RPAR", "RSQB", "WHERE"):
                continue  # these undo a line end before them, which is there without them
            possible = expected(before)
            assert possible is not None, (place, before[-40:])
            assert kind in possible, (place, before[-40:])


@pytest.mark.parametrize("name", ["conv", "linear", "conv_transpose"])
def test_an_argument_that_is_two_things_is_named_once(name: str) -> None:
    """`bias`: whether there is one, and which."""
    found = of_operator(SPELLINGS[name], name)
    (bias,) = (slot for slot in found.slots if slot.name == "bias")
    assert bias.label == "bias = true"
    assert bias.doc.endswith("or a tensor in its place")


def test_no_operator_has_two_arguments_of_one_name() -> None:
    for name, op in SPELLINGS.items():
        names = [slot.name for slot in of_operator(op, name).slots]
        assert len(set(names)) == len(names), name
