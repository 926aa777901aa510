"""What is said of layers is what `convdsl report` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from convdsl import zoo
from convdsl.analysis.report import analyse as figures
from convdsl.analysis.report import figure_text
from convdsl.editing.hover import hover
from convdsl.editing.shapes import hints
from convdsl.editing.view import Knowledge, View
from convdsl.elaborate import load_file
from convdsl.ops import OPERATORS
from convdsl.tensor import format_shape
from editing.texts import analysed, marked, view

NET = """# A unit.
block unit(width, stride = 1) { conv(width, 3x3, stride) as c -> relu }
model net(classes = 10) {
    input image: f32[N, 3, 32, 32]
    let wide = 16
    y = image -> unit(wide, stride = 2) as first -> unit(32) as second
    let f = conv(8, 1x1, bias = false)
    f(y) + f(y) -> maxpool(2, pad = 0) -> flatten -> linear(classes) as head -> output logits
}
"""


def said(words: str, text: str = NET, place: Path = Path("/nowhere/net.cnn")) -> str:
    plain, into = marked(words)
    found = hover(view(place, text), text.index(plain) + into)
    assert found is not None
    return found.text


@pytest.mark.dear
def test_a_layer_has_the_figures_of_the_report() -> None:
    """Every operator of networks that were not made for this, by what stands at its place."""
    seen = 0
    for name in ("lenet5.cnn", "unet.cnn", "gallery/swin.cnn"):
        place = zoo.folder() / name
        if not place.is_file():
            continue
        shown = view(place)
        model = load_file(place, zoo=zoo.folder(), model=shown.analysis.reading.models[0])
        nodes = {node.name: node for node in model.graph.op_nodes()}
        for layer in figures(model).layers:
            span = nodes[layer.name].span
            assert span is not None
            found = hover(shown, span.start + (0 if span.text[0].isalpha() else 1))
            if found is None or f"`{layer.name}`" not in found.text:
                continue  # one of many instances, or a sign between tensors
            params, macs = figure_text(layer.cost.params), figure_text(layer.cost.macs)
            shape = format_shape(layer.output.shape)
            row = (
                f"| {params} | {macs} |" if "|---" in found.text else f"{params} parameters, {macs}"
            )
            lines = [line for line in found.text.split("\n") if f"`{layer.name}`" in line]
            assert shape in lines[0]
            assert row in (lines[0] if "|---" in found.text else found.text)
            seen += 1
    assert seen > 30


def test_one_instance_is_told_in_words() -> None:
    text = said("lin|ear(classes)")
    assert text.startswith("`head`: `[N, 512]` → `[N, 10]`")
    assert "5,130 parameters, 5,120*N MACs" in text
    assert "linear(channels" in text


def test_instances_of_a_block_stand_in_a_table() -> None:
    text = said("co|nv(width, 3x3")
    assert "| `first.c` | `[N, 16, 16, 16]` | 448 | 110,592*N | 3x3 of `image` |" in text
    assert "| `second.c` | `[N, 32, 16, 16]` | 4,640 | 1,179,648*N | 7x7 of `image` |" in text


def test_a_block_is_told_with_all_that_is_in_it() -> None:
    text = said("un|it(32)")
    assert "`second`: `[N, 16, 16, 16]` → `[N, 32, 16, 16]`" in text
    assert "4,640 parameters" in text
    assert "A unit." in text
    assert "block unit(width, stride = 1)" in text


def test_names_have_values() -> None:
    assert "`16`" in said("let wi|de")
    assert "`16`" in said("unit(wi|de")
    assert "`16`, `32`" in said("wid|th, 3x3, stride")
    assert "`[N, 32, 16, 16]`" in said("f(|y) + f")
    assert "f32[N, 3, 32, 32]" in said("input im|age")
    assert "classes = 10" in said("(cl|asses = 10")


def test_attributes_words_and_parts_are_explained() -> None:
    assert "positions around the input" in said("pa|d = 0")
    assert "attribute `bias`" in said("bi|as = false")
    text = NET.replace("let wide = 16", "let wide = image.channels * 5 + 1")
    assert "part of a tensor" in said("image.cha|nnels", text)


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_every_operator_is_explained(op: object) -> None:
    from convdsl.editing.describing import documented
    from convdsl.editing.project import Project
    from convdsl.editing.symbols import Kind, Symbol

    name = op.name  # type: ignore[attr-defined]
    text = documented(Project(None), Symbol(Kind.OPERATOR, name))
    assert text.startswith(f"```cnn\n{name}(")
    assert len(text.splitlines()) > 3


def test_hints_are_the_shapes_that_layers_give(tmp_path: Path) -> None:
    shown = view(tmp_path / "net.cnn", NET)
    text = NET
    for hint in reversed(list(hints(shown, 0, len(NET)))):
        text = f"{text[: hint.offset]}⟨{hint.label}⟩{text[hint.offset :]}"
    assert "conv(width, 3x3, stride)⟨[N, 16, 16, 16] … [N, 32, 16, 16]⟩ as c -> relu }" in text
    assert "y = image -> unit(wide, stride = 2)⟨[N, 16, 16, 16]⟩ as first" in text
    assert "unit(32)⟨[N, 32, 16, 16]⟩ as second" in text
    assert "maxpool(2, pad = 0)⟨[N, 8, 8, 8]⟩ -> flatten⟨[N, 512]⟩ -> linear(classes)" in text
    part = list(hints(shown, NET.index("let f"), len(NET)))
    assert all(hint.offset >= NET.index("let f") for hint in part)
    assert part


def test_a_name_has_its_shape_where_its_layers_do_not_show_it(tmp_path: Path) -> None:
    text = "model m {\n    input x: f32[N, 3, 8, 8]\n    y = x -> relu\n    y + x -> output z\n}\n"
    (hint,) = hints(view(tmp_path / "m.cnn", text), 0, len(text))
    assert (text[hint.offset - 1], hint.label) == ("y", "[N, 3, 8, 8]")


def test_while_a_text_is_broken_the_last_good_one_speaks(tmp_path: Path) -> None:
    place = tmp_path / "net.cnn"
    good = analysed(place, NET)
    from convdsl.editing.project import Project

    broken = NET.replace("let wide = 16", "let wide = (16").replace("# A unit.", "# Ein Block.\n#")
    shown = View(broken, Knowledge(Project(zoo.folder()), good))
    found = hover(shown, broken.index("linear(classes)") + 2)
    assert found is not None
    assert "`head`" in found.text
    assert broken[found.start : found.end] in ("linear", "linear(classes)")
    labels = {
        broken[: hint.offset].rpartition(" ")[2]: hint.label for hint in hints(shown, 0, 10**6)
    }
    assert labels["flatten"] == "[N, 512]"


def test_sizes_that_are_open_stay_in_the_shapes(tmp_path: Path) -> None:
    text = "model m { input x: f32[N, 3, H, W]\n x -> conv(8, 3x3, stride = 2) -> output y }\n"
    assert "floor" in said("co|nv(8", text, tmp_path / "m.cnn")


def test_blocks_are_known_by_who_imports_them(tmp_path: Path) -> None:
    """A file of blocks alone has shapes where an open file uses them."""
    from convdsl.editing.project import Project

    folder = tmp_path.resolve()
    project = Project(zoo.folder())
    blocks = "block unit(width) { conv(width, 3x3) }\n"
    project.set_text(folder / "blocks.cnn", blocks)
    net = 'use "blocks.cnn": unit\nmodel m { input x: f32[N, 3, 8, 8]\n x -> unit(5) }\n'
    user = analysed(folder / "net.cnn", net, project)
    own = analysed(folder / "blocks.cnn", None, project)
    shown = View(blocks, Knowledge(project, own, (user,)))
    found = hover(shown, blocks.index("conv") + 1)
    assert found is not None
    assert "[N, 5, 8, 8]" in found.text
