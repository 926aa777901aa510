"""Every name means what elaboration makes of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from convdsl import zoo
from convdsl.diagnostics import InputError
from convdsl.editing.names import Names
from convdsl.editing.project import Project
from convdsl.editing.references import applied, definitions, references, rename
from convdsl.editing.symbols import Kind
from convdsl.elaborate import load_file
from editing.texts import marked, view

BLOCKS = """# Two layers.
block unit(width, stride = 1) {
    conv(width, 3x3, stride) -> relu
}
block pair(kind, width) { kind(width, stride = 2) -> kind(width) }
let wide = 64
"""
NET = """convdsl 1
use "blocks.cnn": unit, pair, wide as broad
block gate(width) { in -> conv(width, 1x1) -> sigmoid }
model net(classes = 10, width = 16) {
    input image: f32[N, 3, H, W] where H % 4 == 0
    preprocess image: resize(32) -> rescale(1 / 255)
    let wide = broad // 2
    y = image -> unit(width, stride = 2) as "u{wide}" -> pair(unit, wide)
    for w in [8, 16] { y = y -> gate(w) }
    y -> avgpool(global) -> flatten -> linear(classes) -> output logits
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path.resolve()
    (folder / "blocks.cnn").write_text(BLOCKS)
    (folder / "net.cnn").write_text(NET)
    return folder


@pytest.mark.dear
@pytest.mark.parametrize("place", zoo.files(), ids=lambda place: place.stem)
def test_every_name_of_the_zoo_means_something(place: Path) -> None:
    """What elaborates has no unknown names: so says elaboration itself."""
    project = Project(zoo.folder())
    names = Names(project, place, project.reading(place))
    unknown = [o for o in names.occurrences if o.symbol.kind is Kind.UNKNOWN]
    assert unknown == []
    text = names.reading.text
    for o in names.occurrences:
        assert text[o.start : o.end] == o.symbol.id


@pytest.mark.parametrize(
    ("words", "kind", "line"),
    [
        ("un|it(width, stride", Kind.BLOCK, "block unit(width, stride = 1) {"),
        ("str|ide = 2) as", Kind.PARAMETER, "block unit(width, stride = 1) {"),
        ("pair(un|it", Kind.BLOCK, "block unit(width, stride = 1) {"),
        ("u{wi|de}", Kind.NAME, "    let wide = broad // 2"),
        ("wide = bro|ad", Kind.ALIAS, "let wide = 64"),
        ("wide as bro|ad", Kind.ALIAS, "let wide = 64"),
        ("w|ide as broad", Kind.VALUE, "let wide = 64"),
        ("gate(w|)", Kind.NAME, "    for w in [8, 16] { y = y -> gate(w) }"),
        ("conv(wi|dth, 1x1)", Kind.PARAMETER, "block gate(width) {"),
        ("linear(cl|asses)", Kind.PARAMETER, "model net(classes = 10, width = 16) {"),
        ("preprocess im|age", Kind.INPUT, "    input image:"),
        ("where |H", Kind.SIZE, "    input image: f32[N, 3, H, W]"),
    ],
)
def test_definitions(folder: Path, words: str, kind: Kind, line: str) -> None:
    plain, into = marked(words)
    shown = view(folder / "net.cnn")
    offset = NET.index(plain) + into
    assert {o.symbol.kind for o in shown.occurrences(offset)} == {kind}
    (found,) = definitions(shown, offset)
    text = found.place.read_text()
    begin = text.rfind("\n", 0, found.start) + 1
    assert text[begin:].startswith(line)


def test_an_import_leads_to_its_file_and_the_zoo_to_its_blocks(tmp_path: Path) -> None:
    place = tmp_path.resolve() / "net.cnn"
    text = 'use "zoo:resnet.cnn": basic\nmodel m { input x: f32[N, 64, 8, 8]\n x -> basic(64) }\n'
    shown = view(place, text)
    (file,) = definitions(shown, text.index("resnet"))
    (block,) = definitions(shown, text.index("basic(64)"))
    assert zoo.folder() is not None
    assert file.place == block.place == zoo.folder() / "resnet.cnn"
    assert block.place.read_text()[block.start : block.end] == "basic"


def test_a_keyword_of_a_call_by_another_name_is_the_block_s(folder: Path) -> None:
    """`kind(width, stride = 2)` is of what the block was given."""
    project = Project(zoo.folder())
    text = BLOCKS + "model m { input x: f32[N, 3, 8, 8]\n x -> pair(unit, 4) }\n"
    shown = view(folder / "all.cnn", text, project)
    (found,) = definitions(shown, text.index("stride = 2"))
    assert (found.start, found.end) == (text.index("stride = 1"), text.index("stride = 1") + 6)


def test_references_are_in_all_files(folder: Path) -> None:
    shown = view(folder / "net.cnn")
    found = references(shown, NET.index("unit,"), ())
    seen = sorted((x.place.name, x.place.read_text()[x.start : x.end]) for x in found)
    assert seen == [("blocks.cnn", "unit"), *[("net.cnn", "unit")] * 3]


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(
    ("file", "words", "count"),
    [
        ("net.cnn", "un|it(width", 4),
        ("blocks.cnn", "block un|it", 4),
        ("net.cnn", "str|ide = 2", 4),
        ("net.cnn", "let wi|de", 3),
        ("net.cnn", "wide as bro|ad", 2),
        ("blocks.cnn", "let wi|de", 2),
        ("net.cnn", "input im|age", 3),
        ("net.cnn", "block ga|te", 2),
        ("net.cnn", "where |H", 2),
        ("net.cnn", "y| -> gate", 4),
    ],
)
def test_renamed_texts_are_the_same_network(
    folder: Path, file: str, words: str, count: int
) -> None:
    plain, into = marked(words)
    shown = view(folder / file)
    edits = rename(shown, shown.text.index(plain) + into, "fresh", ())
    assert sum(map(len, edits.values())) == count
    before = load_file(folder / "net.cnn", zoo=zoo.folder())
    for place, some in edits.items():
        place.write_text(applied(place.read_text(), some))
    after = load_file(folder / "net.cnn", zoo=zoo.folder())
    kinds = [[(n.op.name, n.call.outputs) for n in m.graph.op_nodes()] for m in (before, after)]
    assert str(kinds[0]) == str(kinds[1]).replace("fresh", "H")


def test_results_keep_their_names_where_tensors_are_renamed(tmp_path: Path) -> None:
    text = "model m {\n    input x: f32[N, 4]\n    a, b = x -> split\n    output a, b, x\n}\n"
    renamed = (("    a, b| =", "b", "low"), ("input x|", "x", "image"), ("output a|", "a", "y"))
    for words, old, name in renamed:
        place = tmp_path.resolve() / f"{old}.cnn"
        place.write_text(text)
        shown = view(place)
        plain, into = marked(words)
        (edits,) = rename(shown, shown.text.index(plain) + into, name, ()).values()
        after = applied(text, edits)
        assert f"    output {old} = {name}" in after
        place.write_text(after)
        assert list(load_file(place, zoo=zoo.folder()).graph.outputs) == ["a", "b", "x"]


def test_an_output_that_is_read_leads_to_where_it_is_put_out(tmp_path: Path) -> None:
    text = (
        "model m {\n    input x: f32[N, 4]\n    x -> relu -> output low\n"
        "    x -> tanh -> output tanh\n"
        "    low + low -> tanh -> output high\n    low -> output other\n}\n"
    )
    place = tmp_path.resolve() / "m.cnn"
    place.write_text(text)
    shown = view(place)
    put_out, read = text.index("low\n"), text.index("low + low")
    for at in (put_out, read, read + 6):
        assert [(d.start, d.end) for d in definitions(shown, at)] == [(put_out, put_out + 3)]
    assert len(references(shown, read, ())) == 4
    with pytest.raises(InputError, match="names an output"):
        rename(shown, read, "deep", ())


@pytest.mark.parametrize(
    ("words", "name", "why"),
    [
        ("let wi|de", "y", "means something else"),
        ("let wi|de", "classes", "means something else"),
        ("block ga|te", "unit", "means something else"),
        ("block ga|te", "sigmoid", "means something else"),
        ("let wi|de", "if", "cannot be a name"),
        ("let wi|de", "3x", "cannot be a name"),
        ("si|gmoid", "tanh", "word of the language"),
        ("resize(3|2)", "x", "no name"),
    ],
)
def test_what_would_mean_something_else_is_refused(
    folder: Path, words: str, name: str, why: str
) -> None:
    plain, into = marked(words)
    shown = view(folder / "net.cnn")
    with pytest.raises(InputError, match=why):
        rename(shown, shown.text.index(plain) + into, name, ())


def test_the_zoo_is_not_renamed(tmp_path: Path) -> None:
    place = tmp_path.resolve() / "net.cnn"
    text = 'use "zoo:resnet.cnn": basic\nmodel m { input x: f32[N, 64, 8, 8]\n x -> basic(64) }\n'
    with pytest.raises(InputError, match="of the zoo"):
        rename(view(place, text), text.index("basic"), "plain", ())


@pytest.mark.dear
@pytest.mark.parametrize("place", zoo.files()[::5], ids=lambda place: place.stem)
def test_all_that_the_zoo_defines_can_be_renamed(place: Path, tmp_path: Path) -> None:
    """Nothing of the zoo, of what is drawn, stands in the way of a fresh name."""
    text = re.sub(r'^labels "[^"]*"\n', "", place.read_text(encoding="utf-8"), flags=re.MULTILINE)
    copy = tmp_path.resolve() / place.name
    shown = view(copy, text)
    defined = [o for o in shown.names.occurrences if o.defines and o.symbol.id != "out"]
    for occurrence in defined[:: max(1, len(defined) // 8)]:
        edits = rename(shown, occurrence.start, "quite_fresh", ())
        assert list(edits) == [copy]
        assert text[occurrence.start : occurrence.end] not in ("", "quite_fresh")
